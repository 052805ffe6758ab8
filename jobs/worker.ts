/** Takes operations from the queue and runs them; takes up what a dead worker has left. */
import { hostname } from 'node:os'
import { type Job, Worker } from 'bullmq'
import type { Redis } from 'ioredis'
import { ulid } from 'ulid'
import type { FenceHook } from '../src/cluster/fence-hook.js'
import type { HostPool } from '../src/host/host.js'
import type { Logger } from '../src/logging.js'
import { keys } from '../src/store/keys.js'
import type { Store } from '../src/store/store.js'
import { planOperation } from './plan-operation.js'
import { type OperationJob, type OperationQueue, QUEUE_NAME } from './queue.js'
import { runOperation } from './run-operation.js'

export interface OperationWorker {
  /** Lets running steps end, for `graceMs` at most, then leaves the rest to the next worker. */
  close(graceMs: number): Promise<void>
}

export interface WorkerOptions {
  store: Store
  queue: OperationQueue
  pool: HostPool
  /** Addresses of this service beside those that the hosts see. */
  controllers?: readonly string[]
  fenceHook?: FenceHook | undefined
  /** A connection that waits for Redis instead of failing. */
  connection: Redis
  concurrency: number
  /** How long a worker that is not heard of keeps its operation. */
  leaseMs: number
  logger: Logger
  plan?: typeof planOperation
}

/** A lease must be seen missing for this part of its time: after Redis was away, living workers come back first. */
const PATIENCE = 0.6
/** And so often in its time somebody looks. */
const LOOKS = 5

export function startWorker(options: WorkerOptions): OperationWorker {
  const {
    store,
    queue,
    pool,
    controllers = [],
    fenceHook,
    connection,
    concurrency,
    leaseMs,
    logger,
    plan = planOperation,
  } = options
  const draining = new AbortController()
  const name = `${hostname()}:${process.pid}:${ulid()}`
  const running = new Set<Promise<void>>()

  const run = (operationId: string) => {
    const promise = runOperation(operationId, {
      store,
      pool,
      controllers,
      fenceHook,
      logger,
      worker: name,
      draining: draining.signal,
      plan,
      leaseMs,
    }).finally(() => running.delete(promise))
    running.add(promise)
    return promise
  }

  const take = async (job: Job<OperationJob>) => {
    // Only what waits keeps others out of the queue. See `openQueue`.
    await job
      .removeDeduplicationKey()
      .catch(error =>
        logger.warn({ operation: job.data.operationId, err: error }, 'its place in the queue stays taken'),
      )
    await run(job.data.operationId)
  }

  const worker = new Worker<OperationJob>(QUEUE_NAME, take, {
    connection,
    prefix: keys.queuePrefix,
    concurrency,
    lockDuration: 60_000,
    maxStalledCount: 0,
  })
  worker.on('error', error => logger.warn({ err: error }, 'queue'))
  worker.on('failed', (job, error) =>
    logger.debug({ operation: job?.data.operationId, err: error }, 'a job of the queue ended without its operation'),
  )

  const stopRecovery = startRecovery({ store, queue, leaseMs, logger })

  return {
    async close(graceMs) {
      stopRecovery()
      draining.abort()
      // No new jobs; BullMQ's own close would wait without a limit.
      const closing = worker.close(true)
      let timer: NodeJS.Timeout | undefined
      const grace = new Promise<void>(resolve => {
        timer = setTimeout(resolve, graceMs)
      })
      await Promise.race([Promise.allSettled(running), grace])
      clearTimeout(timer)
      await Promise.race([closing, new Promise(resolve => setTimeout(resolve, 2000).unref())])
    },
  }
}

/** Looks for operations that nobody runs, and queues them again: their worker died, or Redis was away at the wrong moment. */
function startRecovery({
  store,
  queue,
  leaseMs,
  logger,
}: Pick<WorkerOptions, 'store' | 'queue' | 'leaseMs' | 'logger'>): () => void {
  const missingSince = new Map<string, number>()
  let looking = false
  const look = async () => {
    const open = await store.operations.openIds()
    for (const id of missingSince.keys()) if (!open.includes(id)) missingSince.delete(id)
    for (const id of open) {
      if (await store.operations.hasWorker(id)) {
        missingSince.delete(id)
        continue
      }
      const since = missingSince.get(id) ?? performance.now()
      missingSince.set(id, since)
      if (performance.now() - since < leaseMs * PATIENCE) continue
      if (await store.operations.markInterrupted(id))
        logger.warn({ operation: id }, 'its worker is gone; operation interrupted')
      if (await store.operations.mayRequeue(id, leaseMs)) await queue.add(id)
    }
  }
  const timer = setInterval(async () => {
    if (looking) return
    looking = true
    try {
      await look()
    } catch (error) {
      // What was missing while nobody could look is not known to be missing.
      missingSince.clear()
      logger.warn({ err: error }, 'cannot look for interrupted operations')
    } finally {
      looking = false
    }
  }, leaseMs / LOOKS)
  return () => clearInterval(timer)
}
