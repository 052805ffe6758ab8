/** One operation, run by one worker that holds its lease: plan, steps, record. */
import type { FenceHook } from '../src/cluster/fence-hook.js'
import type { ClusterNode } from '../src/cluster/model.js'
import type { OperationInputs, WantedOperation } from '../src/cluster/operation-inputs.js'
import { sweepDetached } from '../src/host/detached-sweep.js'
import type { HostPool } from '../src/host/host.js'
import type { Logger } from '../src/logging.js'
import { OperationCancelled, OperationError } from '../src/operations/errors.js'
import {
  isFinal,
  isInWholeStep,
  mayExchangeRoles,
  type Operation,
  type OperationFailure,
} from '../src/operations/operation.js'
import { failureOf, PlanFailed, runPlan, summaryOf, WorkerGone } from '../src/operations/run-plan.js'
import { type Turn, TurnLost } from '../src/store/operations.js'
import type { Store } from '../src/store/store.js'
import { cancelledBy, closeSteps, endOnHosts } from './cancel-operation.js'
import type { PlannedOperation, planOperation } from './plan-operation.js'
import { releaseAfterFailure } from './release-repmgrd.js'
import { refuseOtherPlan } from './same-plan.js'

/** So often in the time of a lease a worker renews it, and looks whether its operation is to be cancelled. */
const RENEWALS = 10

export interface RunnerContext {
  store: Store
  pool: HostPool
  /** Addresses of this service beside those that the hosts see. */
  controllers?: readonly string[]
  fenceHook?: FenceHook | undefined
  logger: Logger
  /** Name of this worker, unique to the process. */
  worker: string
  draining: AbortSignal
  /** What makes plans of operations: `planOperation`, but for tests that need no hosts. */
  plan: typeof planOperation
  /** A lease runs out this long after its worker was last heard of. */
  leaseMs: number
}

/** Returns when the operation has ended, or is somebody else's. Never throws for what an operation can fail at. */
export async function runOperation(operationId: string, context: RunnerContext): Promise<void> {
  const { store, worker, draining, leaseMs } = context
  if (draining.aborted) return
  const turn = await store.operations.take(operationId, worker, leaseMs)
  if (!turn) return
  const logger = context.logger.child({ operation: operationId, epoch: turn.epoch })
  const held = holdLease(turn, context, logger)
  try {
    await carryOut(turn, context, held.signal, logger)
  } catch (error) {
    if (error instanceof WorkerGone) {
      logger.info({ reason: error.message }, 'operation left to the next worker')
      if (!(held.signal.reason instanceof WorkerGone)) await store.operations.release(turn)
    } else if (error instanceof TurnLost) {
      logger.warn('operation was taken over by another worker')
    } else {
      throw error
    }
  } finally {
    held.release()
  }
}

/** Thrown when the cluster's record is not there any more. */
class ClusterGone extends OperationError {
  constructor(name: string) {
    super(`There is no record of cluster ${name} any more.`, {
      code: 'cluster-gone',
      outcome: 'not_started',
      remedy: 'Describe it again, then repeat the call.',
    })
  }
}

/** Thrown when the cluster was forgotten, and another one has been described under its name. */
class ClusterReplaced extends OperationError {
  constructor(name: string) {
    super(`${name} is another cluster now than the one that this was asked for.`, {
      code: 'cluster-replaced',
      outcome: 'not_started',
      remedy: 'If it is wanted of the cluster that has this name now, ask for it anew.',
    })
  }
}

/** Whether it came to its very end, though that is not in its record yet. */
const didEverything = ({ steps }: Operation) =>
  steps.length > 0 && steps.every(({ state }) => state === 'changed' || state === 'unchanged' || state === 'verified')

/**
 * A step, or a plan, that did not start says nothing of the steps before it: "not_started" is true of an operation only
 * where no step of any turn has changed anything.
 */
function withOutcome(failure: OperationFailure, operation: Operation): OperationFailure {
  if (failure.outcome !== 'not_started') return failure
  const others = operation.steps.filter(({ id }) => id !== failure.step)
  // A neighbour that failed too may have left something half-done: the record keeps only the first failure.
  if (others.some(({ state }) => state === 'failed')) return { ...failure, outcome: 'failed_partial' }
  // Left behind by an earlier turn, and not looked at since.
  if (others.some(({ state }) => state === 'running')) return { ...failure, outcome: 'unknown' }
  return others.some(({ state }) => state === 'changed') ? { ...failure, outcome: 'failed_clean' } : failure
}

async function carryOut(
  turn: Turn,
  { store, pool, controllers = [], fenceHook, draining, plan }: RunnerContext,
  signal: AbortSignal,
  logger: Logger,
): Promise<void> {
  const { operationId } = turn
  const operation = await store.operations.get(operationId)
  if (!operation || isFinal(operation.state)) return
  logger.info({ type: operation.type, cluster: operation.cluster, turns: operation.turns }, 'operation taken up')
  const journal = store.operations.journal(turn, error =>
    logger.debug({ err: error }, 'a line of the log could not be kept'),
  )
  let planned: PlannedOperation | undefined
  try {
    // A worker that died in the middle of such a step leaves it to us, though it was called off meanwhile.
    if (operation.cancelRequest && !isInWholeStep(operation.steps)) throw cancelledBy(operation.cancelRequest)
    const cluster = await store.clusters.get(operation.cluster)
    // The record is the last thing that this one removes: the worker before us came to the very end.
    if (!cluster && operation.type === 'destroy-cluster' && didEverything(operation)) {
      await store.operations.finish(turn, { state: 'succeeded', result: summaryOf(operation.steps) })
      return
    }
    if (!cluster) throw new ClusterGone(operation.cluster)
    // Planned anew, a switchover that is through would be one back.
    const begun = [cluster.handover?.operation, cluster.drill?.operation].includes(operationId)
    if (mayExchangeRoles(operation.type) && didEverything(operation) && !begun) {
      await store.operations.finish(turn, { state: 'succeeded', result: summaryOf(operation.steps) })
      return
    }
    const meantFor = (await store.operations.clusterCreatedAt(operationId)) ?? cluster.createdAt
    if (cluster.createdAt !== meantFor) throw new ClusterReplaced(operation.cluster)
    const input = (await store.operations.input(operationId)) as OperationInputs[typeof operation.type]
    const stop = AbortSignal.any([signal, draining])
    const wanted = { type: operation.type, cluster, input } as WantedOperation
    const look = async () => {
      const found = await plan({ store, pool, controllers, fenceHook }, { ...wanted, dryRun: false, operationId }, stop)
      // Once a step has begun, the plan that was seen is under way, and its hosts are not as it found them any more.
      if (operation.planId !== undefined && operation.steps.every(({ state }) => state === 'pending'))
        await refuseOtherPlan(operation.planId, wanted, found, stop)
      return found
    }
    planned = await look().catch(error => {
      if (signal.reason instanceof OperationCancelled) throw signal.reason
      if (stop.aborted) throw new WorkerGone('the worker stopped while it looked at the hosts')
      throw error
    })
    await planned.begin()
    const result = await runPlan(planned.plan, {
      operationId,
      epoch: turn.epoch,
      signal,
      draining,
      journal,
      now: () => new Date().toISOString(),
    })
    await planned.complete()
    await store.operations.finish(turn, { state: 'succeeded', result })
    logger.info({ result }, 'operation succeeded')
    await sweepHosts(planned, stop, logger).catch(error => logger.debug({ err: error }, 'nothing was swept'))
  } catch (error) {
    if (error instanceof WorkerGone || error instanceof TurnLost) throw error
    let failure = error instanceof PlanFailed ? error.failure : failureOf(error)
    const wasCancelled = failure.code === 'cancelled'
    if (wasCancelled) await closeSteps(journal, (await store.operations.get(operationId)) ?? operation, failure)
    const now = (await store.operations.get(operationId)) ?? operation
    failure = withOutcome(failure, now)
    await planned
      ?.failed(failure)
      .catch(err => logger.warn({ err }, 'the record of the cluster could not be put right'))
    const cluster = await store.clusters.get(operation.cluster)
    if (cluster && wasCancelled)
      failure = await endOnHosts(pool, cluster, now, turn, failure, line => journal.log('cancel', line))
    // Hosts on which it was called off refuse the epoch that it had.
    const epoch = turn.epoch + (wasCancelled ? 1 : 0)
    const log = (line: string) => journal.log('cluster/unpause-repmgrd', line)
    if (cluster)
      await releaseAfterFailure({ store, pool }, cluster, { operationId, epoch, log }).catch(err =>
        logger.warn({ err }, 'repmgrd could not be unpaused; the record of the cluster says where'),
      )
    if (!(error instanceof PlanFailed || error instanceof OperationError))
      logger.error({ err: error }, 'operation failed unexpectedly')
    await store.operations.finish(turn, { state: wasCancelled ? 'cancelled' : 'failed', error: failure })
    logger.warn({ failure }, wasCancelled ? 'operation cancelled' : 'operation failed')
  }
}

/** What is swept is a week old: it is not looked for after every operation. */
const SWEEP_EVERY_MS = 3_600_000
const sweptAt = new Map<string, number>()

/**
 * What operations that were never repeated have left on these hosts. After everything else: a repetition finds what it had
 * begun, however long ago. No step of the operation, and no failure of it.
 */
async function sweepHosts({ bench }: PlannedOperation, signal: AbortSignal, logger: Logger): Promise<void> {
  const key = (node: ClusterNode) => `${node.host}:${node.ssh.port}`
  const due = bench.cluster.nodes.filter(
    node => !bench.absent.has(node.name) && Date.now() - (sweptAt.get(key(node)) ?? 0) > SWEEP_EVERY_MS,
  )
  await Promise.all(
    due.map(async node => {
      sweptAt.set(key(node), Date.now())
      try {
        const swept = await sweepDetached(bench.host(node), { signal })
        if (swept.length > 0) logger.info({ node: node.name, swept }, 'files of commands that ended long ago are gone')
      } catch (error) {
        logger.debug(
          { err: error, node: node.name },
          'the files of commands that ended long ago could not be looked for',
        )
      }
    }),
  )
}

/**
 * Renews the lease until released. Aborts once another worker has it, or when the operation is to be cancelled; a store
 * that is away alone is no reason to stop.
 */
function holdLease(
  turn: Turn,
  { store, leaseMs }: RunnerContext,
  logger: Logger,
): { signal: AbortSignal; release(): void } {
  const { operations } = store
  const stop = new AbortController()
  let renewing = false
  const timer = setInterval(async () => {
    // While Redis is away one renewal waits for it, and is the first to arrive when it is back.
    if (renewing) return
    renewing = true
    try {
      if (!(await operations.renew(turn, leaseMs))) stop.abort(new WorkerGone('another worker has taken over'))
      const asked = stop.signal.aborted ? undefined : await operations.cancelRequest(turn.operationId)
      const now = asked ? await operations.get(turn.operationId) : undefined
      if (asked && now && !isInWholeStep(now.steps)) stop.abort(cancelledBy(asked))
    } catch (error) {
      logger.warn({ err: error }, 'the lease could not be renewed')
    } finally {
      renewing = false
    }
  }, leaseMs / RENEWALS)
  return { signal: stop.signal, release: () => clearInterval(timer) }
}
