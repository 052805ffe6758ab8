/** A long command as an action: it runs on its host whether or not anybody here lives to see its end. */
import { OperationCancelled, type OperationError } from '../operations/errors.js'
import { WorkerGone } from '../operations/run-plan.js'
import type { Action, StepContext } from '../operations/step.js'
import { type Command, render } from './command.js'
import { cancelDetached, followDetached, forgetDetached, inspectDetached, startDetached } from './detached.js'
import { CommandFailed, DetachedCommandLost } from './errors.js'
import type { Host } from './host.js'

const POLL_MS = 500

export interface DetachedOptions {
  /** Part of its address on the host, beside the cluster's name. */
  name: string
  /**
   * Whether one that is found to have succeeded is still what is wanted. Default: yes. Where not, it is forgotten and the
   * command is started: a worker that died between `after` and the forgetting leaves one behind for however long.
   */
  stillStands?: (context: StepContext) => Promise<boolean>
  /** Run before the command is first started, not when one that is under way is found. */
  before?: (context: StepContext) => Promise<void>
  /** Run once it has succeeded, and before it is forgotten: a worker that dies in between finds it again. */
  after?: (context: StepContext) => Promise<void>
  /** Runs beside it until `signal` aborts; what it throws is not the command's failure. */
  alongside?: (context: StepContext, signal: AbortSignal) => Promise<void>
  /** Makes a clearer error of a failure, where the output tells. */
  explain?: (failure: CommandFailed) => OperationError
}

/**
 * The command's address on its host: of the cluster and the work, not of the operation, so that also a later operation
 * finds a copy that one before it has lost sight of.
 */
export const detachedId = (scope: string, name: string) =>
  `${scope}-${name}`.toLowerCase().replaceAll(/[^a-z0-9-]/g, '-')

export function runDetached(host: Host, scope: string, command: Command, options: DetachedOptions): Action {
  return {
    description: { kind: 'command', text: render(command) },
    async perform(context) {
      const { signal, draining, epoch, log } = context
      const id = detachedId(scope, options.name)
      const earlier = await inspectDetached(host, id, { signal })
      const succeeded = earlier.state === 'exited' && earlier.exitCode === 0
      const stands = succeeded && ((await options.stillStands?.(context)) ?? true)
      if (earlier.state === 'running' || stands) {
        log(`${id} is on the host already (${earlier.state}): a worker before this one started it`)
      } else {
        // One that failed, or was lost, while nobody looked is no answer to this try; nor is one whose work is gone since.
        if (succeeded) log(`${id} on the host is of an earlier time, and what it made is not there any more`)
        if (earlier.state !== 'absent') await forgetDetached(host, id, { signal })
        await options.before?.(context)
        await startDetached(host, { id, command, guard: { scope, epoch, waitMs: 120_000 } }, { signal })
      }
      const over = new AbortController()
      const until = AbortSignal.any([signal, draining, over.signal])
      const beside = options.alongside?.(context, until).catch(() => undefined)
      try {
        const { exitCode, tail } = await followDetached(host, id, {
          pollMs: POLL_MS,
          onLine: log,
          signal: AbortSignal.any([signal, draining]),
          timeoutMs: command.timeoutMs,
        })
        if (exitCode === 0) await options.after?.(context)
        await forgetDetached(host, id, { signal })
        if (exitCode !== 0) throw failure(host, command, exitCode, tail, options)
      } catch (error) {
        if (draining.aborted && !signal.aborted)
          throw new WorkerGone('the worker is stopping; the command goes on on its host')
        // The operation was called off, so its command is too. Where only this worker goes, the next one takes it up.
        if (signal.reason instanceof OperationCancelled) {
          await cancelDetached(host, id, {})
          await forgetDetached(host, id, {})
        }
        // It is over, however it ended, and a later try has to start afresh.
        if (error instanceof DetachedCommandLost) await forgetDetached(host, id, {})
        throw error
      } finally {
        over.abort()
        await beside
      }
    },
  }
}

function failure(
  host: Host,
  command: Command,
  exitCode: number,
  tail: string,
  { explain }: DetachedOptions,
): OperationError {
  const result = { exitCode, stdout: '', stderr: tail, truncated: false, durationMs: 0 }
  const failed = new CommandFailed(host.address, command, result, tail)
  return explain ? explain(failed) : failed
}
