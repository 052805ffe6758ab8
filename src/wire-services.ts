/** What the API is given: the parts of the house behind it, wired together once for the service and for tests. */
import { planOperation } from '../jobs/plan-operation.js'
import type { OperationQueue } from '../jobs/queue.js'
import type { PreviewRequest, Services } from './api/services.js'
import type { HostPool } from './host/host.js'
import { scanHostKeys } from './host/scan.js'
import { observeCluster } from './monitor/observe-cluster.js'
import { previewPlan } from './operations/preview-plan.js'
import type { Changes } from './store/changes.js'
import type { Store } from './store/store.js'

const SCAN_TIMEOUT_MS = 5000

export interface Parts {
  store: Store
  changes: Changes
  queue: Pick<OperationQueue, 'add'>
  pool: HostPool
  sshPublicKey: string | undefined
}

export function wireServices({ store, changes, queue, pool, sshPublicKey }: Parts): Services {
  const plan = (request: PreviewRequest, signal: AbortSignal) =>
    request.type === 'add-standby'
      ? planOperation({ store, pool }, { ...request, input: { node: request.node }, dryRun: true }, signal)
      : planOperation({ store, pool }, { ...request, input: {}, dryRun: true }, signal)
  return {
    store,
    changes,
    sshPublicKey,
    enqueue: id => queue.add(id),
    observe: (cluster, signal) => observeCluster(store, cluster, signal),
    async preview(request, signal) {
      const about = { operation: request.type, cluster: request.cluster.name }
      return previewPlan((await plan(request, signal)).plan, about, { signal, log: () => undefined })
    },
    scanHostKeys: (host, port) => scanHostKeys(host, port, { timeoutMs: SCAN_TIMEOUT_MS }),
  }
}
