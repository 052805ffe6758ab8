/** What each operation is asked with. Kept with the operation and shown to who may read it, so no secrets. */

import type { Access } from './access.js'
import type { ArchivePolicy } from './archive.js'
import type { Cluster, ClusterSpec, NodeSpec } from './model.js'
import type { SettingsChange } from './settings-change.js'

/** A call about one node. */
export interface AboutNode {
  node: string
}

/** One that may do harm: `confirm` names the node again. */
export interface Confirmed extends AboutNode {
  confirm?: string
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
  'unregister-node': AboutNode
  'change-access': { access: Access }
  'remove-node': Confirmed & { wipe?: boolean }
  'destroy-cluster': { confirm: string; leaveUnreachable?: boolean }
}

/** An operation as it is asked for: which, on which cluster, with what. */
export type WantedOperation = {
  [T in keyof OperationInputs]: { type: T; cluster: Cluster; input: OperationInputs[T] }
}[keyof OperationInputs]
