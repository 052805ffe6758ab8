/** Waiting for a condition, with a limit and a way out. */
import { setTimeout as sleep } from 'node:timers/promises'
import { OperationError } from '../src/operations/errors.js'

/** Thrown when a condition did not come true in time. */
export class NotInTime extends OperationError {
  constructor(what: string, timeoutMs: number) {
    super(`Waited ${timeoutMs / 1000} s in vain until ${what}.`, {
      code: 'not-in-time',
      outcome: 'failed_partial',
      remedy: 'Look at the server’s log on the host. Repeat the call to wait again.',
    })
  }
}

const POLL_MS = 250

/** Looks until `condition` holds. Throws `NotInTime`; what `condition` throws ends the waiting too. */
export async function until(
  what: string,
  timeoutMs: number,
  signal: AbortSignal,
  condition: () => Promise<boolean>,
): Promise<void> {
  const deadline = performance.now() + timeoutMs
  while (!(await condition())) {
    if (performance.now() > deadline) throw new NotInTime(what, timeoutMs)
    await sleep(POLL_MS, undefined, { signal })
  }
}
