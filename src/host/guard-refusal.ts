import type { CommandResult } from './command.js'
import { GuardBusy, Superseded, type Where } from './errors.js'

/** Exit statuses of the guard's script. A command may end with the same: what it says beside them is what counts. */
export const BUSY = 75
export const SUPERSEDED = 76
/** Begins the line that the guard's script prints, so that a command's own 75 is not taken for ours. */
export const MARK = 'understudy-guard:'

/** Returns the error that a guard's refusal stands for, undefined for every other ending. */
export function refusalOf(where: Where, result: Pick<CommandResult, 'exitCode' | 'stderr'>) {
  if (result.exitCode !== BUSY && result.exitCode !== SUPERSEDED) return undefined
  const said = new RegExp(`^${MARK} (busy|superseded) ([a-z0-9-]+) (\\d+) (\\d+)$`, 'm').exec(result.stderr)
  if (!said) return undefined
  const [, verdict, scope = '', epoch, newerEpoch] = said
  return verdict === 'busy'
    ? new GuardBusy(where, scope)
    : new Superseded(where, scope, Number(epoch), Number(newerEpoch))
}
