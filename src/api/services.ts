/** What the API needs from the rest of the house. `main.ts` provides it; tests provide the real thing too. */
import type { Adoption, AdoptionRequest, ForeignCluster } from '../cluster/adoption.js'
import type { Checks } from '../cluster/checks.js'
import type { Drift } from '../cluster/drift.js'
import type { Cluster } from '../cluster/model.js'
import type { WantedOperation } from '../cluster/operation-inputs.js'
import type { Readiness } from '../cluster/readiness.js'
import type { SettingsReport } from '../cluster/settings-report.js'
import type { ClusterStatus } from '../cluster/status.js'
import type { PlanPreview } from '../operations/operation.js'
import type { Changes } from '../store/changes.js'
import type { Asker } from '../store/event.js'
import type { Store } from '../store/store.js'

export interface Services {
  store: Store
  changes: Changes
  /** Hands an operation to the workers. */
  enqueue(operationId: string): Promise<void>
  /** Asks all servers of a cluster, side by side. */
  observe(cluster: Cluster, signal: AbortSignal): Promise<ClusterStatus>
  /** Who would have to take over if the primary died now. */
  readiness(cluster: Cluster, signal: AbortSignal): Promise<Readiness>
  /** Makes the plan and runs its checks. Throws `OperationError` where the operation would be refused. */
  preview(wanted: WantedOperation, signal: AbortSignal): Promise<PlanPreview>
  /** Throws `OperationError` where a plan's id is of another request, or of the cluster as it is not any more. Asks no host. */
  refuseOtherSubject(planId: string, wanted: WantedOperation): void
  /** Compares the hosts with the record. What is not so is in the answer and not an error. */
  drift(cluster: Cluster, signal: AbortSignal): Promise<Drift>
  /** Reads repmgr's metadata on the node that is given. Throws `OperationError` where that cannot be, or must not be taken over. */
  readForeign(request: AdoptionRequest, signal: AbortSignal): Promise<ForeignCluster>
  /** Looks at every host and records the cluster. Undefined where its name was taken meanwhile. */
  adopt(
    cluster: Cluster,
    password: string | undefined,
    asked: { by: Asker; reference?: string },
    signal: AbortSignal,
  ): Promise<Adoption | undefined>
  /** The same answer for a cluster that was adopted before. Throws `OperationError` where a host does not answer. */
  adoptedBefore(cluster: Cluster, signal: AbortSignal): Promise<Adoption>
  /** Tries every edge that the cluster needs. What does not answer is in the answer and not an error. */
  checks(cluster: Cluster, signal: AbortSignal): Promise<Checks>
  /** Makes the plan and no more. Throws `OperationError` where the operation would be refused. */
  tryPlan(wanted: WantedOperation, signal: AbortSignal): Promise<void>
  /** Asks every server what it runs with. A host that does not answer is a row of the answer. */
  settings(cluster: Cluster, signal: AbortSignal): Promise<SettingsReport>
  /** What keys a host offers. Throws `OperationError` where it does not answer. */
  scanHostKeys(host: string, port: number): Promise<{ type: string; fingerprint: string }[]>
  /** The line for `authorized_keys`; undefined where an SSH agent holds the key. */
  sshPublicKey: string | undefined
}
