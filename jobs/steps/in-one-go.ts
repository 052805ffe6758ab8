/** What must not be left half-way, though somebody calls it off, and what must be known before anything else is done. */
import { setTimeout as sleep } from 'node:timers/promises'
import { CommandFailed, Superseded } from '../../src/host/errors.js'
import { OperationError } from '../../src/operations/errors.js'
import { WorkerGone } from '../../src/operations/run-plan.js'
import type { StepContext } from '../../src/operations/step.js'

/** How long a host that does not answer is asked again. */
export const CERTAINTY_MS = 60_000

/** Gives `run` a signal that only the loss of this worker aborts: nobody calls it off once it has begun. */
export async function inOneGo<T>(context: StepContext, run: (signal: AbortSignal) => Promise<T>): Promise<T> {
  context.signal.throwIfAborted()
  const whole = new AbortController()
  const onAbort = () => {
    if (context.signal.reason instanceof WorkerGone) whole.abort(context.signal.reason)
  }
  context.signal.addEventListener('abort', onAbort)
  try {
    return await run(whole.signal)
  } finally {
    context.signal.removeEventListener('abort', onAbort)
  }
}

/** Asked again until it is known what came of it: an answer that got lost says nothing. What a host refuses is thrown. */
export async function insist<T>(
  signal: AbortSignal,
  uncertain: (detail: string) => OperationError,
  run: () => Promise<T>,
): Promise<T> {
  const deadline = performance.now() + CERTAINTY_MS
  for (;;) {
    try {
      return await run()
    } catch (error) {
      signal.throwIfAborted()
      if (!(error instanceof OperationError) || error instanceof Superseded || error instanceof CommandFailed)
        throw error
      if (performance.now() > deadline) throw uncertain(error.message)
      await sleep(1000)
    }
  }
}
