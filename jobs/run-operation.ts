/** One operation, run by one worker that holds its lease: plan, steps, record. */
import type { HostPool } from '../src/host/host.js'
import type { Logger } from '../src/logging.js'
import { OperationError } from '../src/operations/errors.js'
import { isFinal, type Operation, type OperationFailure } from '../src/operations/operation.js'
import { failureOf, PlanFailed, runPlan, WorkerGone } from '../src/operations/run-plan.js'
import { type Turn, TurnLost } from '../src/store/operations.js'
import type { Store } from '../src/store/store.js'
import type { OperationInputs } from './define-operation.js'
import { planOperation } from './plan-operation.js'

/** A lease runs out this long after its worker was last heard of; the worker renews it five times in that time. */
export const LEASE_MS = 10_000
export const RENEW_MS = 2000

export interface RunnerContext {
  store: Store
  pool: HostPool
  logger: Logger
  /** Name of this worker, unique to the process. */
  worker: string
  draining: AbortSignal
}

/** Returns when the operation has ended, or is somebody else's. Never throws for what an operation can fail at. */
export async function runOperation(operationId: string, context: RunnerContext): Promise<void> {
  const { store, worker, draining } = context
  if (draining.aborted) return
  const turn = await store.operations.take(operationId, worker, LEASE_MS)
  if (!turn) return
  const logger = context.logger.child({ operation: operationId, epoch: turn.epoch })
  const held = holdLease(turn, context, logger)
  try {
    await carryOut(turn, context, held.signal, logger)
  } catch (error) {
    if (error instanceof WorkerGone) {
      logger.info({ reason: error.message }, 'operation left to the next worker')
      if (!held.signal.aborted) await store.operations.release(turn)
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

/**
 * A step, or a plan, that did not start says nothing of the steps before it: "not_started" is true of an operation only
 * where no step of any turn has changed anything.
 */
function withOutcome(failure: OperationFailure, operation: Operation | undefined): OperationFailure {
  if (failure.outcome !== 'not_started') return failure
  const others = operation?.steps.filter(({ id }) => id !== failure.step) ?? []
  // A neighbour that failed too may have left something half-done: the record keeps only the first failure.
  if (others.some(({ state }) => state === 'failed')) return { ...failure, outcome: 'failed_partial' }
  // Left behind by an earlier turn, and not looked at since.
  if (others.some(({ state }) => state === 'running')) return { ...failure, outcome: 'unknown' }
  return others.some(({ state }) => state === 'changed') ? { ...failure, outcome: 'failed_clean' } : failure
}

async function carryOut(
  turn: Turn,
  { store, pool, draining }: RunnerContext,
  signal: AbortSignal,
  logger: Logger,
): Promise<void> {
  const { operationId } = turn
  const operation = await store.operations.get(operationId)
  if (!operation || isFinal(operation.state)) return
  logger.info({ type: operation.type, cluster: operation.cluster, turns: operation.turns }, 'operation taken up')
  try {
    const cluster = await store.clusters.get(operation.cluster)
    if (!cluster) throw new ClusterGone(operation.cluster)
    const input = (await store.operations.input(operationId)) as OperationInputs[typeof operation.type]
    const stop = AbortSignal.any([signal, draining])
    const planned = await planOperation(
      { store, pool },
      { type: operation.type, cluster, input, dryRun: false },
      stop,
    ).catch(error => {
      if (stop.aborted) throw new WorkerGone('the worker stopped while it looked at the hosts')
      throw error
    })
    await planned.begin()
    const journal = store.operations.journal(turn, error =>
      logger.debug({ err: error }, 'a line of the log could not be kept'),
    )
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
  } catch (error) {
    if (error instanceof WorkerGone || error instanceof TurnLost) throw error
    const failure = withOutcome(
      error instanceof PlanFailed ? error.failure : failureOf(error),
      await store.operations.get(operationId),
    )
    if (!(error instanceof PlanFailed || error instanceof OperationError))
      logger.error({ err: error }, 'operation failed unexpectedly')
    await store.operations.finish(turn, {
      state: failure.code === 'cancelled' ? 'cancelled' : 'failed',
      error: failure,
    })
    logger.warn({ failure }, 'operation failed')
  }
}

/** Renews the lease until released. Aborts once another worker has it; a store that is away alone is no reason to stop. */
function holdLease(turn: Turn, { store }: RunnerContext, logger: Logger): { signal: AbortSignal; release(): void } {
  const lost = new AbortController()
  let renewing = false
  const timer = setInterval(async () => {
    // While Redis is away one renewal waits for it, and is the first to arrive when it is back.
    if (renewing) return
    renewing = true
    try {
      if (!(await store.operations.renew(turn, LEASE_MS))) lost.abort(new WorkerGone('another worker has taken over'))
    } catch (error) {
      logger.warn({ err: error }, 'the lease could not be renewed')
    } finally {
      renewing = false
    }
  }, RENEW_MS)
  return { signal: lost.signal, release: () => clearInterval(timer) }
}
