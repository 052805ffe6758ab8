/** What an operation is to the worker: how its plan is made, and what is recorded around it. */
import type { Cluster, ClusterNode } from '../src/cluster/model.js'
import type { OperationInputs } from '../src/cluster/operation-inputs.js'
import type { OperationFailure, OperationType } from '../src/operations/operation.js'
import type { Plan } from '../src/operations/step.js'
import type { Store } from '../src/store/store.js'
import type { Bench, SurveyOptions } from './bench.js'

export interface OperationDefinition<T extends OperationType> {
  type: T
  /** The cluster as it will be: with a node that is to be added. Nothing is stored yet. */
  target(cluster: Cluster, input: OperationInputs[T]): Cluster
  /** Name of the secret that is the password of the role repmgr once it is done. Default: the one that it has. */
  password?(cluster: string): string
  /** So long hosts have to answer before they count as away. Default: as long as each question may take. */
  surveyMs?: number
  /** `servers`: neither the hardware of the hosts nor their packages are looked at. Default: everything. */
  surveys?: SurveyOptions['surveys']
  /** Whether it can be done while this node does not answer. */
  mayBeAbsent(node: ClusterNode, input: OperationInputs[T]): boolean
  /** Looks at more than the survey does, changing nothing: the plan is made from what it returns. */
  look?(bench: Bench, input: OperationInputs[T], signal: AbortSignal): Promise<Bench>
  /**
   * Where repmgrd runs, it is paused before the first step that changes something, and unpaused after the last, or when the
   * operation ends otherwise. Undefined: it need not be. `rebuilds`: the node that gets another one's data.
   */
  holdsRepmgrd?(input: OperationInputs[T]): { rebuilds?: string } | undefined
  /** Throws where it must be refused for a reason that only the hosts can tell. Nothing is written before. */
  refuse?(bench: Bench, input: OperationInputs[T], signal: AbortSignal): Promise<void>
  /** The same steps with the same ids whenever it is asked again; throws where the operation must be refused. */
  plan(bench: Bench, input: OperationInputs[T]): Plan
  /** Once the plan stands and before its first step. */
  begin?(store: Store, bench: Bench, input: OperationInputs[T]): Promise<void>
  /** Once every step is done. */
  complete(store: Store, bench: Bench, input: OperationInputs[T]): Promise<void>
  /** Once it has failed for good, or was cancelled, after its plan stood. */
  failed?(store: Store, bench: Bench, failure: OperationFailure): Promise<void>
}

export const defineOperation = <T extends OperationType>(definition: OperationDefinition<T>): OperationDefinition<T> =>
  definition
