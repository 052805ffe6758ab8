/** Running commands on the machine that carries the labs. */
import { execa } from 'execa'

/** What a command left behind; the final newline of each stream is cut off. */
export interface CommandResult {
  stdout: string
  stderr: string
  /** 124 when the time was up, as `timeout(1)` has it. */
  exitCode: number
}

/** How to run one command. */
export interface CommandOptions {
  stdin?: string
  /** Default two minutes. */
  timeoutMs?: number
  /** Throw when the exit code is not 0 (the default). */
  reject?: boolean
  env?: Record<string, string>
  /** What an error calls the command: for one that is wrapped in others. */
  shownAs?: string
  /** Ends the command early. */
  signal?: AbortSignal
}

/** Thrown when a lab cannot do what was asked; the message is one that a person can act on. */
export class LabError extends Error {
  override name = 'LabError'
}

/** Runs a command to its end. */
export async function command(argv: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
  const [file = 'true', ...args] = argv
  const { stdin, timeoutMs = 120_000, reject = true, env = {}, signal, shownAs = argv.join(' ') } = options
  // Without this, programs answer in the caller's language, and ask questions that nobody is there to answer.
  const quiet = { LC_ALL: 'C.UTF-8', DEBIAN_FRONTEND: 'noninteractive' }
  const ended = await execa(file, args, {
    reject: false,
    timeout: timeoutMs,
    forceKillAfterDelay: 2_000,
    env: { ...quiet, ...env },
    ...(signal ? { cancelSignal: signal } : {}),
    ...(stdin === undefined ? { stdin: 'ignore' as const } : { input: stdin }),
  })
  const exitCode = ended.timedOut ? 124 : (ended.exitCode ?? 128)
  if (exitCode !== 0 && reject) {
    const notStarted = ended.exitCode === undefined && !ended.timedOut ? (ended.originalMessage ?? '') : ''
    const said = ended.stderr.trim() || ended.stdout.trim().split('\n').slice(-5).join('\n') || notStarted
    const how = ended.timedOut ? `was not done after ${timeoutMs} ms` : `ended with ${exitCode}`
    throw new LabError(`${shownAs}: ${how}${said ? `: ${said}` : ''}`)
  }
  return { stdout: ended.stdout, stderr: ended.stderr, exitCode }
}
