/** What the API needs from the rest of the house. `main.ts` provides it; tests provide the real thing too. */
import type { Cluster, NodeSpec } from '../cluster/model.js'
import type { ClusterStatus } from '../cluster/status.js'
import type { PlanPreview } from '../operations/operation.js'
import type { Changes } from '../store/changes.js'
import type { Store } from '../store/store.js'

export type PreviewRequest =
  | { type: 'bootstrap-cluster'; cluster: Cluster }
  | { type: 'add-standby'; cluster: Cluster; node: NodeSpec }

export interface Services {
  store: Store
  changes: Changes
  /** Hands an operation to the workers. */
  enqueue(operationId: string): Promise<void>
  /** Asks all servers of a cluster, side by side. */
  observe(cluster: Cluster, signal: AbortSignal): Promise<ClusterStatus>
  /** Makes the plan and runs its checks. Throws `OperationError` where the operation would be refused. */
  preview(request: PreviewRequest, signal: AbortSignal): Promise<PlanPreview>
  /** What keys a host offers. Throws `OperationError` where it does not answer. */
  scanHostKeys(host: string, port: number): Promise<{ type: string; fingerprint: string }[]>
  /** The line for `authorized_keys`; undefined where an SSH agent holds the key. */
  sshPublicKey: string | undefined
}
