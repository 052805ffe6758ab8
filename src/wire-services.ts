/** What the API is given: the parts of the house behind it, wired together once for the service and for tests. */
import { adoptCluster, adoptedBefore, readForeignCluster } from '../jobs/adopt-cluster.js'
import { findDrift } from '../jobs/find-drift.js'
import { planOperation } from '../jobs/plan-operation.js'
import type { OperationQueue } from '../jobs/queue.js'
import { reportReadiness } from '../jobs/report-readiness.js'
import { reportSettings } from '../jobs/report-settings.js'
import { runChecks } from '../jobs/run-checks.js'
import { refuseOtherSubject, showPlan } from '../jobs/same-plan.js'
import type { Services } from './api/services.js'
import type { FenceHook } from './cluster/fence-hook.js'
import type { HostPool } from './host/host.js'
import { scanHostKeys } from './host/scan.js'
import { observeCluster } from './monitor/observe-cluster.js'
import type { Changes } from './store/changes.js'
import type { Store } from './store/store.js'

const SCAN_TIMEOUT_MS = 5000

export interface Parts {
  store: Store
  changes: Changes
  queue: Pick<OperationQueue, 'add'>
  pool: HostPool
  /** Addresses of this service beside those that the hosts see. */
  controllers?: readonly string[]
  fenceHook?: FenceHook | undefined
  sshPublicKey: string | undefined
  /** Whether operations are carried out in this process: only then its address counts. Default: true. */
  worker?: boolean
}

export function wireServices({
  store,
  changes,
  queue,
  pool,
  controllers = [],
  fenceHook,
  sshPublicKey,
  worker = true,
}: Parts): Services {
  const context = { store, pool, controllers, worker, fenceHook }
  return {
    store,
    changes,
    sshPublicKey,
    enqueue: id => queue.add(id),
    drift: (cluster, signal) => findDrift(context, cluster, signal),
    readForeign: (request, signal) => readForeignCluster(pool, request, signal),
    adopt: (cluster, password, asked, signal) => adoptCluster(context, cluster, password, asked, signal),
    adoptedBefore: (cluster, signal) => adoptedBefore(context, cluster, signal),
    checks: (cluster, signal) => runChecks({ store, pool }, cluster, signal),
    async readiness(cluster, signal) {
      const status = await observeCluster(store, cluster, signal)
      return reportReadiness({ store, pool, fenceHook }, cluster, status, signal)
    },
    observe: (cluster, signal) => observeCluster(store, cluster, signal),
    async preview(wanted, signal) {
      const planned = await planOperation(context, { ...wanted, dryRun: true }, signal)
      return showPlan(wanted, planned, signal)
    },
    refuseOtherSubject,
    async tryPlan(wanted, signal) {
      await planOperation(context, { ...wanted, dryRun: true }, signal)
    },
    settings: (cluster, signal) => reportSettings({ store, pool }, cluster, signal),
    scanHostKeys: (host, port) => scanHostKeys(host, port, { timeoutMs: SCAN_TIMEOUT_MS }),
  }
}
