/** The queue between the API and the workers: it carries an operation's id and nothing else. */
import { Queue } from 'bullmq'
import type { Redis } from 'ioredis'
import { ulid } from 'ulid'
import { keys } from '../src/store/keys.js'

export const QUEUE_NAME = 'operations'

export interface OperationJob {
  operationId: string
}

export interface OperationQueue {
  /**
   * Rejects at once where Redis is away. Does nothing while a job of the operation waits already. Queued twice is no harm:
   * an operation's lease is had by one worker only.
   */
  add(operationId: string): Promise<void>
  close(): Promise<void>
}

/**
 * `attempts: 1`, and `maxStalledCount: 0` at the worker: BullMQ would run a stalled job a second time beside the first.
 * What a dead worker has left is taken up by our own recovery, which looks at the hosts first.
 */
export function openQueue(connection: Redis): OperationQueue {
  const queue = new Queue<OperationJob>(QUEUE_NAME, {
    connection,
    prefix: keys.queuePrefix,
    defaultJobOptions: {
      attempts: 1,
      removeOnComplete: { age: 3600, count: 1000 },
      removeOnFail: { age: 86_400, count: 1000 },
    },
  })
  // Told to whoever called; without a listener it would end the process.
  queue.on('error', () => undefined)
  return {
    async add(operationId) {
      // The worker frees the id when it takes the job: BullMQ does so when the job has ended, which for a dead worker's job
      // it finds out after a minute only.
      await queue.add('run', { operationId }, { jobId: `${operationId}_${ulid()}`, deduplication: { id: operationId } })
    },
    close: () => queue.close(),
  }
}
