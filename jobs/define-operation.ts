/** What an operation is to the worker: how its plan is made, and what is recorded around it. */
import type { Cluster, ClusterNode, NodeSpec } from '../src/cluster/model.js'
import type { OperationType } from '../src/operations/operation.js'
import type { Plan } from '../src/operations/step.js'
import type { Store } from '../src/store/store.js'
import type { Bench } from './bench.js'

/** What each operation is asked with; kept with the operation, so no secrets. */
export interface OperationInputs {
  'bootstrap-cluster': Record<string, never>
  'add-standby': { node: NodeSpec }
}

export interface OperationDefinition<T extends OperationType> {
  type: T
  /** The cluster as it will be: with a node that is to be added. Nothing is stored yet. */
  target(cluster: Cluster, input: OperationInputs[T]): Cluster
  /** Whether it can be done while this node does not answer. */
  mayBeAbsent(node: ClusterNode, input: OperationInputs[T]): boolean
  /** The same steps with the same ids whenever it is asked again; throws where the operation must be refused. */
  plan(bench: Bench, input: OperationInputs[T]): Plan
  /** Once the plan stands and before its first step. */
  begin?(store: Store, bench: Bench): Promise<void>
  /** Once every step is done. */
  complete(store: Store, bench: Bench, input: OperationInputs[T]): Promise<void>
}

export const defineOperation = <T extends OperationType>(definition: OperationDefinition<T>): OperationDefinition<T> =>
  definition
