/** What each operation is asked with. Kept with the operation and shown to who may read it, so no secrets. */

import type { Access } from './access.js'
import type { ArchivePolicy } from './archive.js'
import type { DrillKind, Fault } from './drills.js'
import type { Cluster, ClusterSpec, NodeSpec } from './model.js'
import type { RebuildMethod } from './rejoin.js'
import type { SettingsChange } from './settings-change.js'
import type { TlsPolicy } from './tls.js'

/** A call about one node. */
export interface AboutNode {
  node: string
}

/** One that may do harm: `confirm` names the node again. */
export interface Confirmed extends AboutNode {
  confirm?: string
}

/** Who is to be the primary, and how much a switchover may take. */
export interface SwitchoverInput {
  /** Name of the standby. Default: the one with the highest priority. */
  to?: string
  /** How long the primary may take to stop, and the standby to replay its last byte, before everything goes back. */
  deadlineMs?: number
  /** A transaction that is older is a reason not to begin. */
  maxTransactionAgeMs?: number
  /** A standby that is further behind is a reason not to begin. */
  maxLagBytes?: number
  /** Logical slots stay behind on the old primary. */
  loseLogicalSlots?: boolean
}

/** How servers are started again one after the other, the primary by a switchover. */
export interface RollingInput extends SwitchoverInput {
  /** The old primary is the primary again in the end: the roles are exchanged twice. */
  switchBack?: boolean
  /** Name of the node, where there is only one with data: nobody can write while it is started again. */
  confirm?: string
}

/** Exact versions of the packages. Default: those that the cluster is described with, otherwise the newest that the hosts' sources have. */
export interface UpgradeInput {
  /** Of the server, its client, and what else is built with it. */
  version?: string
  /** Of repmgr. */
  repmgrVersion?: string
}

/** Who takes the place of a primary that is lost, and what may be risked. */
export interface PromoteInput {
  /** Name of the standby. Default: the one that has the most. */
  to?: string
  /** What another standby, or the disk of the old primary, may have that the new primary does not have. */
  maxLossBytes?: number
  /** Go on although the primary may live, or a vote or a proof is missing. Needs `confirm`. */
  force?: boolean
  /** The name of the cluster. */
  confirm?: string
}

/** What is rehearsed. */
export interface DrillInput {
  kind?: DrillKind
  /** Name of the standby that takes over. Default: as without a rehearsal. */
  to?: string
  /** Of a failover: what happens to the primary. */
  fault?: Fault
  /** Of a failover: the name of the cluster. */
  confirm?: string
}

/** How a node is brought back, and what is done with the copy that it has. */
export interface RejoinInput extends Confirmed {
  /** Where it has to be cloned anew: its data directory is moved aside and not emptied. */
  keepOldData?: boolean
}

export interface OperationInputs {
  'bootstrap-cluster': Record<string, never>
  'apply-cluster': { description: ClusterSpec }
  'rotate-credentials': Record<string, never>
  'verify-replication': Record<string, never>
  'add-standby': { node: NodeSpec }
  'change-archive': { archive: ArchivePolicy; restart: boolean }
  'add-witness': { node: NodeSpec }
  'change-settings': SettingsChange
  'provision-node': AboutNode
  'clone-node': Confirmed
  'start-node': Confirmed
  'stop-node': Confirmed
  'restart-node': Confirmed
  'register-node': AboutNode
  'rejoin-node': RejoinInput
  'rebuild-node': RejoinInput & { method?: RebuildMethod }
  'unregister-node': AboutNode
  'follow-node': AboutNode & { upstream?: string }
  'change-access': { access: Access }
  'change-tls': { tls: TlsPolicy }
  'remove-node': Confirmed & { wipe?: boolean }
  switchover: SwitchoverInput
  'restart-cluster': RollingInput & { onlyPending?: boolean }
  'upgrade-cluster': RollingInput & UpgradeInput
  promote: PromoteInput
  drill: DrillInput
  'destroy-cluster': { confirm: string; leaveUnreachable?: boolean }
}

/** An operation as it is asked for: which, on which cluster, with what. */
export type WantedOperation = {
  [T in keyof OperationInputs]: { type: T; cluster: Cluster; input: OperationInputs[T] }
}[keyof OperationInputs]
