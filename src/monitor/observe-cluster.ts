/** Asks every server of a cluster, side by side: one that hangs costs the answer nothing but its own row. */
import { archiveOf } from '../cluster/archive.js'
import type { Cluster } from '../cluster/model.js'
import { type ClusterStatus, describeStatus, type Probe } from '../cluster/status.js'
import type { Trust } from '../cluster/tls.js'
import { archiveStateDirectory } from '../postgres/archive.js'
import { ServerUnreachable } from '../postgres/connect.js'
import { observeServer } from '../postgres/observe.js'
import { trustOf } from '../store/authority.js'
import { nextRepmgrPassword, repmgrPassword } from '../store/secrets.js'
import type { Store } from '../store/store.js'

const PROBE_TIMEOUT_MS = 2000

export async function observeCluster(store: Store, cluster: Cluster, signal: AbortSignal): Promise<ClusterStatus> {
  const [password, next, trust, operation] = await Promise.all([
    store.secrets.get(repmgrPassword(cluster.name)),
    store.secrets.get(nextRepmgrPassword(cluster.name)),
    trustOf(store.secrets, cluster),
    store.operations.activeOn(cluster.name),
  ])
  const probes = await Promise.all(
    cluster.nodes.map(async node => {
      const first = await probe(cluster, node, password, trust, signal)
      // In the middle of a rotation, or after one that failed, a server may have the new password already.
      const refused = 'failure' in first && first.failure.reason === 'authentication'
      return refused && next !== undefined ? probe(cluster, node, next, trust, signal) : first
    }),
  )
  return describeStatus(cluster, probes, { now: new Date().toISOString(), operation: operation ?? null })
}

async function probe(
  cluster: Cluster,
  node: Cluster['nodes'][number],
  password: string | undefined,
  trust: Trust,
  signal: AbortSignal,
): Promise<Probe> {
  // Before the first bootstrap nobody has a password, and no server knows us.
  if (password === undefined) return { node: node.name, failure: { reason: 'not_built', detail: 'not built yet' } }
  const archive = archiveOf(cluster)
  try {
    const address = { host: node.host, port: cluster.port, trust }
    const credentials = { user: 'repmgr', database: 'repmgr', password }
    return {
      node: node.name,
      observation: await observeServer(address, credentials, {
        timeoutMs: PROBE_TIMEOUT_MS,
        signal,
        ...(archive.mode === 'ship' ? { archiveState: archiveStateDirectory(archive) } : {}),
      }),
    }
  } catch (error) {
    const reason = error instanceof ServerUnreachable ? error.reason : 'other'
    return { node: node.name, failure: { reason, detail: error instanceof Error ? error.message : String(error) } }
  }
}
