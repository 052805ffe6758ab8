import type { Cluster } from '../src/cluster/model.js'
import type { HostPool } from '../src/host/host.js'
import { debianLayout } from '../src/postgres/layout.js'
import type { Store } from '../src/store/store.js'
import { repmgrdRecord } from './repmgrd-record.js'
import { releaseRepmgrd } from './steps/repmgrd.js'

/** Hosts that answer do so at once; the operation is not held up for those that do not. */
const RELEASE_MS = 90_000

/**
 * Unpauses repmgrd after an operation that did not come to its last step: it failed, was called off, or its plan could not even
 * be made again. `epoch`: one that the hosts do not refuse.
 */
export async function releaseAfterFailure(
  { store, pool }: { store: Store; pool: HostPool },
  cluster: Cluster,
  { operationId, epoch, log }: { operationId: string; epoch: number; log(line: string): void },
): Promise<void> {
  if (cluster.repmgrd?.operation !== operationId) return
  const hosts = {
    cluster,
    layout: debianLayout(cluster.postgresVersion),
    host: ({ host, ssh: { port, user, hostKey } }: Cluster['nodes'][number]) =>
      pool.host({ host, port, user, hostKey }),
  }
  const signal = AbortSignal.timeout(RELEASE_MS)
  await releaseRepmgrd(hosts, repmgrdRecord(store, cluster.name), { operationId, epoch, signal, log })
}
