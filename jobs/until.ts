/** Waiting for a condition, with a limit and two ways out: the operation is called off, or its worker is stopping. */
import { setTimeout as sleep } from 'node:timers/promises'
import { OperationError } from '../src/operations/errors.js'
import { WorkerGone } from '../src/operations/run-plan.js'
import type { StepContext } from '../src/operations/step.js'

/** Thrown when a condition did not come true in time. */
export class NotInTime extends OperationError {
  constructor(what: string, waitedMs: number) {
    super(`Waited ${Math.round(waitedMs / 1000)} s in vain until ${what}.`, {
      code: 'not-in-time',
      outcome: 'failed_partial',
      remedy: 'Look at the server’s log on the host (/var/log/postgresql). Repeat the call to wait again.',
    })
  }
}

const POLL_MS = 250

/** Looks until `condition` holds. Throws `NotInTime`; what `condition` throws ends the waiting too. */
export async function until(
  what: string,
  timeoutMs: number,
  { signal, draining }: Pick<StepContext, 'signal' | 'draining'>,
  condition: () => Promise<boolean>,
): Promise<void> {
  const deadline = performance.now() + timeoutMs
  while (!(await condition())) {
    if (draining.aborted) throw new WorkerGone('the worker is stopping')
    if (performance.now() > deadline) throw new NotInTime(what, timeoutMs)
    await sleep(POLL_MS, undefined, { signal: AbortSignal.any([signal, draining]) }).catch(() => undefined)
    signal.throwIfAborted()
  }
}
