/** Tells who waits for an operation that something happened to it: one subscription a process, however many wait. */
import { EventEmitter } from 'node:events'
import type { Redis } from 'ioredis'
import { keys } from './keys.js'

export interface Changes {
  /** Resolves at the next change of the operation, after `timeoutMs`, or when `signal` aborts: look again in any case. */
  next(operationId: string, timeoutMs: number, signal?: AbortSignal): Promise<void>
  close(): Promise<void>
}

/** `subscriber` is a connection of its own: a subscribed one takes no other commands. */
export async function listenForChanges(subscriber: Redis): Promise<Changes> {
  const emitter = new EventEmitter().setMaxListeners(0)
  subscriber.on('message', (_channel: string, id: string) => emitter.emit(id))
  await subscriber.subscribe(keys.changed)
  return {
    next: (operationId, timeoutMs, signal) =>
      new Promise(resolve => {
        const done = () => {
          clearTimeout(timer)
          emitter.off(operationId, done)
          signal?.removeEventListener('abort', done)
          resolve()
        }
        const timer = setTimeout(done, timeoutMs)
        emitter.on(operationId, done)
        signal?.addEventListener('abort', done)
        if (signal?.aborted) done()
      }),
    async close() {
      subscriber.disconnect()
    },
  }
}
