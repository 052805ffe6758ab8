/** From a request to a plan: for the worker that will run it, and for a dry run that will not. */
import type { Cluster } from '../src/cluster/model.js'
import type { HostPool } from '../src/host/host.js'
import type { OperationType } from '../src/operations/operation.js'
import type { Plan } from '../src/operations/step.js'
import { makePassword, repmgrPassword } from '../src/store/secrets.js'
import type { Store } from '../src/store/store.js'
import { addStandby } from './add-standby.js'
import { type Bench, openBench } from './bench.js'
import { bootstrapCluster } from './bootstrap-cluster.js'
import type { OperationDefinition, OperationInputs } from './define-operation.js'

const DEFINITIONS: { [T in OperationType]: OperationDefinition<T> } = {
  'bootstrap-cluster': bootstrapCluster,
  'add-standby': addStandby,
}

export interface PlannedOperation {
  plan: Plan
  bench: Bench
  begin(): Promise<void>
  complete(): Promise<void>
}

export async function planOperation<T extends OperationType>(
  { store, pool }: { store: Store; pool: HostPool },
  { type, cluster, input, dryRun }: { type: T; cluster: Cluster; input: OperationInputs[T]; dryRun: boolean },
  signal: AbortSignal,
): Promise<PlannedOperation> {
  const definition: OperationDefinition<T> = DEFINITIONS[type]
  const name = repmgrPassword(cluster.name)
  // A dry run writes nothing anywhere, and shows no password: where there is none yet, any will do.
  const password = dryRun
    ? ((await store.secrets.get(name)) ?? makePassword())
    : await store.secrets.getOrCreate(name, makePassword)
  const bench = await openBench(
    definition.target(cluster, input),
    password,
    pool,
    node => definition.mayBeAbsent(node, input),
    signal,
  )
  return {
    plan: definition.plan(bench, input),
    bench,
    begin: async () => definition.begin?.(store, bench),
    complete: () => definition.complete(store, bench, input),
  }
}
