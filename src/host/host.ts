import pLimit from 'p-limit'
import pRetry from 'p-retry'
import type { Client } from 'ssh2'
import { OperationCancelled } from '../operations/errors.js'
import { type Command, type CommandResult, KILL_AFTER_SECONDS, remoteLine, render } from './command.js'
import { type Connection, connect, type HostAddress, type Identity } from './connect.js'
import { CommandFailed, CommandTimedOut, ConnectionLost, HostUnreachable, SudoRefused } from './errors.js'
import { ChannelRefused, type Ending, execute } from './execute.js'
import { refusalOf } from './guard-refusal.js'
import type { KeyFamily } from './host-key.js'
import { createBoundedText, createCleaner, createLineSplitter, createTail } from './output.js'

export type { HostAddress, Identity } from './connect.js'

export interface RunOptions {
  /** Ends the waiting at once, with OperationCancelled. The command itself ends by its own time limit at the latest. */
  signal?: AbortSignal
  /** Called for each line as it comes, redacted, cut at 8192 characters. */
  onLine?: (line: string, stream: 'stdout' | 'stderr') => void
  /** Exit statuses that are an answer and no failure. Default `[0]`. */
  acceptExit?: readonly number[]
}

export interface Host {
  readonly address: HostAddress
  /**
   * Throws HostUnreachable (also when no session became free within the command's time limit), HostKeyMismatch,
   * AuthenticationFailed, SudoRefused, GuardBusy or Superseded when the command was not started, CommandFailed when it says that it failed, and CommandTimedOut or ConnectionLost when nobody knows.
   */
  run(command: Command, options?: RunOptions): Promise<CommandResult>
  /** The address that this host sees us come from: what its firewall and its pg_hba.conf must let in. */
  controllerAddress(signal?: AbortSignal): Promise<string>
}

export interface HostPool {
  /** Opens nothing yet: the first command does. */
  host(address: HostAddress): Host
  /** Ends every connection; a command that still runs throws ConnectionLost. */
  close(): Promise<void>
}

export interface HostPoolOptions {
  identity: Identity
  /** Default 10 000, for the whole handshake. */
  connectTimeoutMs?: number
  /** Default 10 000. A host that is gone is noticed after interval × count. */
  keepaliveIntervalMs?: number
  /** Default 3. */
  keepaliveCountMax?: number
  /** Commands at a time on one host; the others wait. Default 4: sshd allows 10 sessions, and people log in too. */
  maxChannels?: number
  /** An unused connection is closed after this. Default 60 000. */
  idleMs?: number
}

/** One warm connection a host, shared by everyone and made again when it was lost. */
export function openHostPool(options: HostPoolOptions): HostPool {
  const lines = new Map<string, HostLine>()
  let closed = false
  return {
    host(address) {
      // The pin is part of the key: a connection checked against one pin is never used under another.
      const key = JSON.stringify([address.user, address.host, address.port, address.hostKey])
      const line = lines.get(key) ?? openLine(address, options, () => closed)
      lines.set(key, line)
      return {
        address,
        run: (command, runOptions = {}) => run(line, command, runOptions),
        async controllerAddress(signal) {
          const command: Command = { argv: ['printenv', 'SSH_CONNECTION'], as: 'login', timeoutMs: 10_000 }
          const { stdout } = await run(line, command, signal ? { signal } : {})
          return stdout.split(' ')[0] ?? ''
        },
      }
    },
    async close() {
      closed = true
      await Promise.all([...lines.values()].map(line => line.close()))
    },
  }
}

/** The connection to one host, and the queue for its channels. */
interface HostLine {
  address: HostAddress
  /** Waits for a free channel and holds it until `use` is done. */
  limit<T>(use: () => Promise<T>): Promise<T>
  client(): Promise<Client>
  close(): Promise<void>
}

function openLine(address: HostAddress, options: HostPoolOptions, poolClosed: () => boolean): HostLine {
  const limit = pLimit(options.maxChannels ?? 4)
  let connection: Promise<Connection> | undefined
  let family: KeyFamily | undefined
  let idle: NodeJS.Timeout | undefined
  let users = 0

  function open(): Promise<Connection> {
    const opening = connect(address, {
      identity: options.identity,
      connectTimeoutMs: options.connectTimeoutMs ?? 10_000,
      keepaliveIntervalMs: options.keepaliveIntervalMs ?? 10_000,
      keepaliveCountMax: options.keepaliveCountMax ?? 3,
      ...(family && { family }),
    })
    const forget = () => {
      if (connection === opening) connection = undefined
    }
    opening.then(made => {
      family = made.family
      made.client.on('end', forget).on('close', forget)
      if (poolClosed()) made.client.end()
    }, forget)
    return opening
  }

  async function disconnect() {
    clearTimeout(idle)
    const current = connection
    connection = undefined
    const made = await current?.catch(() => undefined)
    if (!made) return
    await new Promise<void>(resolve => {
      made.client.on('close', () => resolve())
      made.client.end()
      // A host that is gone never says goodbye, and `destroy` does nothing once `end` was called: it is not waited for.
      setTimeout(() => {
        made.client.destroy()
        resolve()
      }, 1000).unref()
    })
  }

  return {
    address,
    limit: use =>
      limit(async () => {
        clearTimeout(idle)
        users += 1
        try {
          return await use()
        } finally {
          users -= 1
          if (users === 0 && !poolClosed()) {
            idle = setTimeout(() => users === 0 && void disconnect(), options.idleMs ?? 60_000).unref()
          }
        }
      }),
    async client() {
      if (poolClosed()) throw new HostUnreachable(address, 'this service is shutting down')
      connection ??= open()
      return (await connection).client
    },
    close: disconnect,
  }
}

/** What a time-out waits for beyond the limit: `timeout` on the host says so itself, if the host still answers. */
const GRACE_MS = 1000
/** After a time-out: a channel that has not closed by then will not, and its connection is given up with it. */
const STUCK_MS = KILL_AFTER_SECONDS * 1000 + 3000
const LONGEST_TIMER_MS = 2 ** 31 - 1

function run(line: HostLine, command: Command, options: RunOptions): Promise<CommandResult> {
  return new Promise((resolve, reject) => {
    const { signal } = options
    let started = false
    let tooLate = false
    const cancel = () => reject(new OperationCancelled(started ? stillRunning(line, command) : undefined))
    if (signal?.aborted) return cancel()
    signal?.addEventListener('abort', cancel, { once: true })
    // What waits behind commands that do not end is not started any more. The connection has a limit of its own, and the
    // command its whole limit from its start.
    const waiting = setTimeout(
      () => {
        tooLate = true
        reject(new HostUnreachable(line.address, `no session became free within ${command.timeoutMs} ms`))
      },
      Math.min(command.timeoutMs + GRACE_MS, LONGEST_TIMER_MS),
    )
    // The channel stays taken until it has closed, however early the caller stops to wait: sshd counts it as well.
    line
      .limit(async () => {
        if (signal?.aborted || tooLate) return
        clearTimeout(waiting)
        const client = await line.client()
        if (signal?.aborted) return
        started = true
        await runOnChannel(line, client, command, options, resolve, reject)
      })
      .catch(reject)
      .finally(() => {
        clearTimeout(waiting)
        signal?.removeEventListener('abort', cancel)
      })
  })
}

function stillRunning(line: HostLine, command: Command): string {
  const limitMs = command.timeoutMs + KILL_AFTER_SECONDS * 1000
  return (
    `The operation was cancelled during ${render(command)} on ${line.address.host}; ` +
    `that command is not called back, and ends within ${limitMs} ms of its start.`
  )
}

/** Settles the caller's promise as soon as the answer is known, its own when the channel is free again. */
async function runOnChannel(
  line: HostLine,
  firstClient: Client,
  command: Command,
  options: RunOptions,
  resolve: (result: CommandResult) => void,
  reject: (error: unknown) => void,
): Promise<void> {
  const { address } = line
  const text = remoteLine(command)
  // Nobody listens any more once the answer has been given.
  let answered = false
  const onLine: RunOptions['onLine'] = (printed, stream) => {
    if (!answered && !options.signal?.aborted) options.onLine?.(printed, stream)
  }
  const output = collect(command, onLine)
  const startedMs = performance.now()
  let current = firstClient
  let stuck: NodeJS.Timeout | undefined
  const overdue = setTimeout(
    () => {
      answered = true
      stuck = setTimeout(() => current.destroy(), STUCK_MS)
      const facts = { timeoutMs: command.timeoutMs, ended: false, output: output.tail() }
      reject(new CommandTimedOut(address, command, facts))
    },
    Math.min(command.timeoutMs + GRACE_MS, LONGEST_TIMER_MS),
  )
  try {
    const ending = await withChannel(line, firstClient, client => {
      current = client
      return execute(client, text, {
        ...(command.stdin !== undefined && { stdin: command.stdin }),
        onStdout: output.stdout,
        onStderr: output.stderr,
      })
    })
    const result = output.end(performance.now() - startedMs)
    await judge(line, current, command, ending, result, output.tail(), options.acceptExit ?? [0])
    resolve(result)
  } catch (error) {
    reject(error)
  } finally {
    clearTimeout(overdue)
    clearTimeout(stuck)
  }
}

/** A refused channel is asked for again: the line was not sent, and other sessions of the host end. */
async function withChannel(
  line: HostLine,
  firstClient: Client,
  use: (client: Client) => Promise<Ending>,
): Promise<Ending> {
  try {
    return await pRetry(async attempt => use(attempt === 1 ? firstClient : await line.client()), {
      retries: 6,
      minTimeout: 100,
      factor: 2,
      shouldRetry: ({ error }) => error instanceof ChannelRefused,
    })
  } catch (error) {
    if (!(error instanceof ChannelRefused)) throw error
    throw new HostUnreachable(
      line.address,
      `it opens no further session on our connection (${error.message}); see MaxSessions in its sshd_config`,
      error,
    )
  }
}

/** Throws the error that an ending stands for. */
async function judge(
  line: HostLine,
  client: Client,
  command: Command,
  ending: Ending,
  result: CommandResult,
  tail: string,
  acceptExit: readonly number[],
): Promise<void> {
  const { address } = line
  if (ending.kind === 'lost') throw new ConnectionLost(address, command, tail, 'unknown', ending.error)
  result.exitCode = ending.exitCode
  // 124 from `timeout` after SIGTERM, 137 when only SIGKILL helped. A command may end with these too, but not so late.
  if ((ending.exitCode === 124 || ending.exitCode === 137) && result.durationMs >= command.timeoutMs)
    throw new CommandTimedOut(address, command, { timeoutMs: command.timeoutMs, ended: true, output: tail })
  const refusal = refusalOf(address, result)
  if (refusal) throw refusal
  if (acceptExit.includes(ending.exitCode)) return
  if (command.as !== 'login' && saidBySudo(result.stderr)) await confirmSudo(line, client, command)
  throw new CommandFailed(address, command, result, tail)
}

const SUDO_REFUSALS =
  /^(.*\bsudo: (\d+: )?(command )?not found|.*sudo: No such file or directory|sudo: a (terminal|password) is required.*|sudo: .*account.*|(sudo: )?sorry, you must have a tty.*|sudo: no valid sudoers.*|.* is not (in the sudoers file|allowed to (run sudo|execute)).*)/im

function saidBySudo(stderr: string): string | undefined {
  return SUDO_REFUSALS.exec(stderr)?.[0]
}

/**
 * The command may itself have called sudo (repmgr does, for its service commands), and then it did run. Only when sudo
 * refuses a harmless command too was it ours that refused.
 */
async function confirmSudo(line: HostLine, client: Client, command: Command): Promise<void> {
  const probe: Command = { argv: ['true'], as: command.as, timeoutMs: 10_000 }
  const output = collect(probe, undefined)
  const ending = await execute(client, remoteLine(probe), {
    onStdout: output.stdout,
    onStderr: output.stderr,
  }).catch((): Ending => ({ kind: 'lost' }))
  const said = saidBySudo(output.end(0).stderr)
  if (ending.kind === 'exit' && ending.exitCode !== 0 && said) throw new SudoRefused(line.address, said.trim())
}

function collect(command: Command, onLine: RunOptions['onLine']) {
  const tail = createTail()
  let brokenBy: unknown
  const stream = (name: 'stdout' | 'stderr') => {
    const bounded = createBoundedText()
    const splitter = createLineSplitter(line => {
      tail.push(line)
      try {
        onLine?.(line, name)
      } catch (error) {
        // Thrown into ssh2's parser it would end the process.
        brokenBy ??= error
      }
    })
    const cleaner = createCleaner(command.secrets ?? [], text => {
      bounded.push(text)
      splitter.push(text)
    })
    return { bounded, splitter, cleaner }
  }
  const stdout = stream('stdout')
  const stderr = stream('stderr')
  return {
    stdout: stdout.cleaner.write,
    stderr: stderr.cleaner.write,
    tail: () => tail.text(),
    /** Ends both streams. Throws what `onLine` threw. */
    end(durationMs: number): CommandResult {
      for (const { cleaner, splitter } of [stdout, stderr]) {
        cleaner.end()
        splitter.end()
      }
      if (brokenBy !== undefined) throw brokenBy
      return {
        exitCode: 0,
        stdout: stdout.bounded.text(),
        stderr: stderr.bounded.text(),
        truncated: stdout.bounded.truncated() || stderr.bounded.truncated(),
        durationMs: Math.round(durationMs),
      }
    },
  }
}
