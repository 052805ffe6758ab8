/** From a request to a plan: for the worker that will run it, and for a dry run that will not. */
import type { FenceHook } from '../src/cluster/fence-hook.js'
import type { Cluster } from '../src/cluster/model.js'
import type { OperationInputs } from '../src/cluster/operation-inputs.js'
import type { HostPool } from '../src/host/host.js'
import type { OperationFailure, OperationType } from '../src/operations/operation.js'
import type { Plan } from '../src/operations/step.js'
import { makePassword, nextRepmgrPassword, repmgrPassword } from '../src/store/secrets.js'
import type { Store } from '../src/store/store.js'
import { withAcceptedPassword } from './accepted-password.js'
import { addStandby } from './add-standby.js'
import { addWitness } from './add-witness.js'
import { applyCluster } from './apply-cluster.js'
import { type Bench, type Ledger, openBench, withoutOwnAddress } from './bench.js'
import { bootstrapCluster } from './bootstrap-cluster.js'
import { changeAccess } from './change-access.js'
import { changeArchive } from './change-archive.js'
import { changeSettings } from './change-settings.js'
import { changeTls } from './change-tls.js'
import { cloneNode } from './clone-node.js'
import type { OperationDefinition } from './define-operation.js'
import { destroyCluster } from './destroy-cluster.js'
import { drill } from './drill.js'
import { followNode } from './follow-node.js'
import { handoverKeeper } from './handover.js'
import { openTls } from './open-tls.js'
import { promote } from './promote.js'
import { provisionNode } from './provision-node.js'
import { rebuildNode } from './rebuild-node.js'
import { registerNode } from './register-node.js'
import { rejoinNode } from './rejoin-node.js'
import { removeNode } from './remove-node.js'
import { repmgrdRecord } from './repmgrd-record.js'
import { restartCluster } from './restart-cluster.js'
import { restartNode } from './restart-node.js'
import { rotateCredentials } from './rotate-credentials.js'
import { startNode } from './start-node.js'
import { runsRepmgrd, withRepmgrdHeld } from './steps/repmgrd.js'
import { stopNode } from './stop-node.js'
import { switchover } from './switchover.js'
import { unregisterNode } from './unregister-node.js'
import { upgradeCluster } from './upgrade-cluster.js'
import { verifyReplication } from './verify-replication.js'

const DEFINITIONS: { [T in OperationType]: OperationDefinition<T> } = {
  'bootstrap-cluster': bootstrapCluster,
  'apply-cluster': applyCluster,
  'add-standby': addStandby,
  'change-archive': changeArchive,
  'add-witness': addWitness,
  'change-settings': changeSettings,
  'provision-node': provisionNode,
  'clone-node': cloneNode,
  'start-node': startNode,
  'stop-node': stopNode,
  'restart-node': restartNode,
  'restart-cluster': restartCluster,
  'upgrade-cluster': upgradeCluster,
  'rejoin-node': rejoinNode,
  'rebuild-node': rebuildNode,
  'register-node': registerNode,
  'unregister-node': unregisterNode,
  'follow-node': followNode,
  'rotate-credentials': rotateCredentials,
  'verify-replication': verifyReplication,
  'change-access': changeAccess,
  'change-tls': changeTls,
  'remove-node': removeNode,
  'destroy-cluster': destroyCluster,
  switchover,
  promote,
  drill,
}

/** The cluster as the operation is to leave it. */
export function targetOf<T extends OperationType>(wanted: {
  type: T
  cluster: Cluster
  input: OperationInputs[T]
}): Cluster {
  const definition: OperationDefinition<T> = DEFINITIONS[wanted.type]
  return definition.target(wanted.cluster, wanted.input)
}

export interface PlannedOperation {
  plan: Plan
  bench: Bench
  begin(): Promise<void>
  complete(): Promise<void>
  failed(failure: OperationFailure): Promise<void>
}

export interface PlanContext {
  store: Store
  pool: HostPool
  /** Addresses of this service beside those that the hosts see. */
  controllers?: readonly string[]
  /** Whether operations are carried out in this process. Default: true. */
  worker?: boolean
  fenceHook?: FenceHook | undefined
}

export async function planOperation<T extends OperationType>(
  context: PlanContext,
  {
    type,
    cluster,
    input,
    dryRun,
    operationId,
  }: { type: T; cluster: Cluster; input: OperationInputs[T]; dryRun: boolean; operationId?: string },
  signal: AbortSignal,
): Promise<PlannedOperation> {
  const { store, pool, controllers = [], worker = true, fenceHook } = context
  const definition: OperationDefinition<T> = DEFINITIONS[type]
  const name = (definition.password ?? repmgrPassword)(cluster.name)
  // A dry run writes nothing anywhere, and shows no password: where there is none yet, any will do.
  const password = dryRun
    ? ((await store.secrets.get(name)) ?? makePassword())
    : await store.secrets.getOrCreate(name, makePassword)
  const target = definition.target(cluster, input)
  const surveyed = await openBench(
    target,
    password,
    pool,
    node => definition.mayBeAbsent(node, input),
    signal,
    await openTls(store.secrets, cluster, target, !dryRun),
    controllers,
    { surveyMs: definition.surveyMs, surveys: definition.surveys },
  )
  const seen = worker ? surveyed : withoutOwnAddress(surveyed, controllers)
  const ledger: Ledger = {
    read: () => store.clusters.get(cluster.name),
    update: change => store.clusters.update(cluster.name, change),
    vote: () => store.voter.vote(),
    leaseLeftMs: (id, epoch) => store.operations.leaseLeftMs(id, epoch),
  }
  const opened: Bench = {
    ...seen,
    ledger,
    ...(fenceHook ? { fenceHook } : {}),
    async nested(of, asked, abort) {
      const now = (await store.clusters.get(cluster.name)) ?? cluster
      const wanted = { type: of, cluster: now, input: asked, dryRun: false, ...(operationId ? { operationId } : {}) }
      return (await planOperation(context, wanted, abort)).plan
    },
    ...(operationId === undefined ? {} : { operationId, keepHandover: handoverKeeper(store, cluster, operationId) }),
  }
  // A rotation that stopped half-way left the new password on the servers: nothing else would come in with the old one.
  const accepted = definition.password
    ? opened
    : await withAcceptedPassword(opened, await store.secrets.get(nextRepmgrPassword(cluster.name)), signal)
  const bench = (await definition.look?.(accepted, input, signal)) ?? accepted
  const plan = definition.plan(bench, input)
  await definition.refuse?.(bench, input, signal)
  const holds = definition.holdsRepmgrd?.(input)
  // Where an earlier operation could not unpause it, this one does, though it does not run at the moment.
  const held = holds !== undefined && (cluster.repmgrd !== undefined || (await runsRepmgrd(bench, signal)))
  return {
    plan: held ? withRepmgrdHeld(bench, repmgrdRecord(store, cluster.name), plan, holds) : plan,
    bench,
    begin: async () => definition.begin?.(store, bench, input),
    complete: () => definition.complete(store, bench, input),
    failed: async failure => definition.failed?.(store, bench, failure),
  }
}
