/**
 * Words of this file:
 *
 * job    a detached command on its host, named by an id; its files are in /var/lib/understudy/jobs/<id>
 * unit   the systemd unit understudy-<id> that a job runs in; where systemd does not run, a session of its own instead
 * began  the file that a job writes first: after it, the command may have done something
 * exit   the file that a job writes last, with the command's exit status
 * log    a link to the file log.<n> that holds the end of what the command printed; n is how many bytes came before it
 *
 * A job lives without us: SSH and this service may go away and come back, and any worker can look at it by its id.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { OperationCancelled, OperationError } from '../operations/errors.js'
import { type Command, environmentOf } from './command.js'
import { FOLLOW, KEEP_LOG, START, STATE, STOP, UNDECIDED } from './detached-scripts.js'
import { AS_USER } from './drop.js'
import {
  AuthenticationFailed,
  CommandFailed,
  CommandTimedOut,
  ConnectionLost,
  DetachedCommandLost,
  DetachedCommandUnwatched,
  HostUnreachable,
} from './errors.js'
import { type Guard, guarded } from './guard.js'
import { refusalOf } from './guard-refusal.js'
import type { Host } from './host.js'
import { createCleaner, createLineSplitter, createTail } from './output.js'
import { quote } from './quote.js'

export interface DetachedCommand {
  /** `[a-z0-9-]+`, unique to a step of an operation. */
  id: string
  /** Without stdin: there is nobody to feed it. Its `timeoutMs` is not used: a job ends by itself or by cancelDetached. */
  command: Command
  guard?: Guard
}

export type DetachedState =
  | { state: 'absent' }
  | { state: 'running' }
  | { state: 'exited'; exitCode: number }
  /** Started, without an exit status, and no longer there: killed, or the host was restarted. */
  | { state: 'lost' }

export interface DetachedOptions {
  signal?: AbortSignal
}

/**
 * Starts a job, or finds it there already in whatever state: of any number of starts with the same id, only one runs the
 * command. `started` or `attached` says which this was. A job whose start was cut short before the command ran is
 * started.
 */
export async function startDetached(
  host: Host,
  detached: DetachedCommand,
  options: DetachedOptions = {},
): Promise<'started' | 'attached'> {
  const { command } = detached
  if (command.stdin !== undefined) throw new TypeError('a detached command has no standard input')
  const result = await host.run(
    {
      ...script(
        START,
        detached.id,
        60_000,
        `start understudy-${detached.id}: ${command.shownAs ?? quote(command.argv)}`,
      ),
      stdin: jobScript(host, detached),
    },
    options,
  )
  return result.stdout.trim() === 'started' ? 'started' : 'attached'
}

/** Looks at a job and changes nothing. */
export async function inspectDetached(host: Host, id: string, options: DetachedOptions = {}): Promise<DetachedState> {
  const result = await host.run(script(`${STATE}\nstate`, id, 15_000, `inspect understudy-${id}`), options)
  return parseState(result.stdout.trim())
}

const RECONNECT_MS = 15 * 60_000

export interface FollowOptions extends DetachedOptions {
  /** Between two looks at the host. */
  pollMs: number
  /** Each line of the log from its beginning, or from its last 256 KiB. Redacted. */
  onLine?: (line: string) => void
  /** For the whole of it. When it is up CommandTimedOut is thrown, and the job goes on. */
  timeoutMs: number
  /**
   * How long the host may stay out of reach. Default 900 000, a quarter of an hour: the job goes on meanwhile, and giving
   * up on an hour's copy for a switch that restarts costs more than to wait.
   */
  reconnectMs?: number
  /** Values taken out of the log, beside the patterns of `redact`. */
  secrets?: readonly string[]
}

/**
 * Passes on a job's log until it has ended. Lost connections are made again. Aborting ends the following, not the job.
 * Throws DetachedCommandLost, GuardBusy or Superseded (then the job is forgotten, so that its id can be started again),
 * CommandTimedOut, OperationCancelled, and DetachedCommandUnwatched once the host was out of reach for `reconnectMs`, or
 * at once where waiting does not help.
 */
export async function followDetached(
  host: Host,
  id: string,
  options: FollowOptions,
): Promise<{ exitCode: number; tail: string }> {
  const startedMs = performance.now()
  let contactMs = startedMs
  let offset = -1
  const tail = createTail(40)
  const splitter = createLineSplitter(line => {
    tail.push(line)
    options.onLine?.(line)
  })
  const cleaner = createCleaner(options.secrets ?? [], splitter.push)
  const pass = options.signal ? { signal: options.signal } : {}

  for (;;) {
    if (options.signal?.aborted) throw new OperationCancelled(`${id} on ${host.address.host} is no longer followed.`)
    if (performance.now() - startedMs > options.timeoutMs) throw overdue(host, id, options.timeoutMs, tail.text())
    const look = await lookAt(host, id, offset, offset < 0 ? 0 : options.pollMs, pass).catch(error => {
      const awayMs = performance.now() - contactMs
      if (!isTemporary(error, offset >= 0) || awayMs > (options.reconnectMs ?? RECONNECT_MS))
        throw unwatched(host, id, error, tail.text())
      return undefined
    })
    if (look) {
      contactMs = performance.now()
      if (look.skippedBytes > 0) splitter.push(`[… ${look.skippedBytes} bytes left out …]\n`)
      cleaner.write(look.bytes)
      offset = look.offset
      if (look.more) continue
      const waited = look.waited && look.bytes.length === 0
      const { state } = look
      if (state.state !== 'running') {
        cleaner.end()
        splitter.end()
        if (state.state !== 'exited') throw new DetachedCommandLost(host.address, id, tail.text())
        const refusal = refusalOf(host.address, { exitCode: state.exitCode, stderr: tail.text() })
        if (!refusal) return { exitCode: state.exitCode, tail: tail.text() }
        await forgetDetached(host, id, pass)
        throw refusal
      }
      // It was waited on the host already.
      if (waited) continue
    }
    // The loop's head throws the right error for an abort.
    await sleep(options.pollMs, undefined, pass).catch(() => {})
  }
}

/**
 * Ends a job with every process that it has started: SIGTERM, ten seconds later SIGKILL. Returns when they are gone.
 * Does nothing when it is not running. Throws CommandFailed when something of it cannot be ended.
 */
export async function cancelDetached(host: Host, id: string, options: DetachedOptions = {}): Promise<void> {
  await host.run(script(STOP, id, 40_000, `cancel understudy-${id}`), options)
}

/** Removes a job's files. Throws CommandFailed when it is still running. */
export async function forgetDetached(host: Host, id: string, options: DetachedOptions = {}): Promise<void> {
  const text = `${STATE}
take_lock
now=$(state) || exit
if [ "$now" = running ]; then
  echo "understudy: $id is still running" >&2
  exit 1
fi
rm -rf -- "$job"
rm -f -- "$jobs/$id.lock"`
  await host.run(script(text, id, 30_000, `forget understudy-${id}`), options)
}

function script(text: string, id: string, timeoutMs: number, shownAs: string, ...words: string[]): Command {
  if (!/^[a-z0-9-]+$/.test(id)) throw new TypeError(`${JSON.stringify(id)} is no id of a detached command`)
  return { argv: ['sh', '-c', text, 'understudy-job', id, ...words], as: 'root', timeoutMs, shownAs }
}

/**
 * The file `command` of a job: readable by whoever is on the host, and free of secrets. It stays beside the command to
 * write down how it ended, also when it is asked to end.
 */
function jobScript(host: Host, { id, command, guard }: DetachedCommand): string {
  const login = host.address.user
  const inner = guard ? guarded(command, guard) : command
  // The guard asks sudo who the login user is, but no sudo stands in front of a job.
  const env = guard && command.as === 'login' ? { ...inner.env, SUDO_USER: login } : { ...inner.env }
  const words = [...environmentOf({ ...inner, env }), ...inner.argv]
  const user = inner.as === 'login' ? login : inner.as
  return `#!/bin/sh
# A detached command of Understudy. Its log, and later its exit status, are beside this file.
job=/var/lib/understudy/jobs/${id}
UNDERSTUDY_JOB=${id}
export UNDERSTUDY_JOB
${AS_USER}
rm -f "$job/output"
mkfifo "$job/output" || exit 1
trap : TERM INT HUP
start=$(sed 's/.*) //' /proc/$$/stat | cut -d' ' -f20)
echo "$$ $start $(cat /proc/sys/kernel/random/boot_id)" >"$job/began.new" || exit 1
sync "$job/began.new"
mv -f "$job/began.new" "$job/began" || exit 1
# Whoever starts the same job waits for this lock, and finds "began".
exec 8>&-
${KEEP_LOG}
as_user ${quote([user])} ${quote(words)} >"$job/output" 2>&1 </dev/null
code=$?
log_is_kept
echo "$code" >"$job/exit.new" && sync "$job/exit.new" && mv -f "$job/exit.new" "$job/exit" && sync "$job"
# end
`
}

function parseState(text: string): DetachedState {
  const [state, code] = text.split(' ')
  if (state === 'exited') return { state, exitCode: Number(code) }
  if (state === 'absent' || state === 'running' || state === 'lost') return { state }
  throw new Error(`unexpected answer about a detached command: ${JSON.stringify(text)}`)
}

function overdue(host: Host, id: string, timeoutMs: number, output: string): CommandTimedOut {
  const command: Command = { argv: [], as: 'root', timeoutMs, shownAs: `the detached command ${id}` }
  return new CommandTimedOut(host.address, command, { timeoutMs, ended: false, output })
}

interface Look {
  state: DetachedState
  bytes: Buffer
  /** Of the end of `bytes` in the log. */
  offset: number
  skippedBytes: number
  /** The log is longer than what was read. */
  more: boolean
  /** For something new, on the host. */
  waited: boolean
}

/** Several times as long as between two looks; the host notices sooner that there is something new. */
const LOOKS_IN_A_WAIT = 5
const QUARTER_MS = 250

async function lookAt(host: Host, id: string, offset: number, pollMs: number, options: DetachedOptions): Promise<Look> {
  const quarters = Math.min(20, Math.floor((pollMs * LOOKS_IN_A_WAIT) / QUARTER_MS))
  // base64: the log is decoded and redacted as one stream here, and not in pieces cut anywhere.
  const command = script(FOLLOW, id, 30_000, `follow understudy-${id}`, String(offset), String(quarters))
  const { stdout } = await host.run(command, options)
  const end = stdout.indexOf('\n')
  const [from, size, ...state] = stdout.slice(0, end).split(' ')
  const bytes = Buffer.from(stdout.slice(end + 1), 'base64')
  const skippedBytes = Number(from) - Math.max(offset, 0)
  return {
    state: parseState(state.join(' ')),
    bytes,
    offset: Number(from) + bytes.length,
    skippedBytes,
    more: Number(from) + bytes.length < Number(size),
    waited: quarters > 0,
  }
}

/** What an error of one look says of the job: nothing, so `not_started` would be a lie. */
function unwatched(host: Host, id: string, error: unknown, output: string): unknown {
  if (!(error instanceof OperationError) || error instanceof OperationCancelled) return error
  return new DetachedCommandUnwatched(host.address, id, error, output)
}

/** A host that restarts refuses logins for a while, so a refusal is temporary once we have been in. */
function isTemporary(error: unknown, haveBeenIn: boolean): boolean {
  return (
    error instanceof HostUnreachable ||
    error instanceof ConnectionLost ||
    error instanceof CommandTimedOut ||
    (error instanceof CommandFailed && error.exitCode === UNDECIDED) ||
    (haveBeenIn && error instanceof AuthenticationFailed)
  )
}
