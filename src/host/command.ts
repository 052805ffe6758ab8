import { redact } from '../redact.js'
import { quote } from './quote.js'

/** One program with its arguments, to be run on a host. */
export interface Command {
  argv: readonly string[]
  /** `root` goes through `sudo -n --`, `postgres` through `sudo -n -u postgres --`. */
  as: 'login' | 'root' | 'postgres'
  /** Not secret: everyone on the host can read it. `LC_ALL=C.UTF-8` is always set, so that messages can be matched. */
  env?: Readonly<Record<string, string>>
  /** Default `/`: PostgreSQL's tools complain in a directory that postgres cannot enter, such as the login user's home. */
  cwd?: string
  /** The one way for a secret: arguments and environment show in `ps`, in `/proc` and in the sudo log. */
  stdin?: string
  /**
   * The command is ended on the host when this time is up, by SIGTERM, five seconds later by SIGKILL. It waits as long for
   * a free session before that.
   */
  timeoutMs: number
  /** Values taken out of whatever the command prints, beside the patterns of `redact`. */
  secrets?: readonly string[]
  /** What to show instead of the line, for commands that are wrapped in a script. A person must be able to paste it. */
  shownAs?: string
}

export interface CommandResult {
  /** 128 + the number of the signal when a signal ended it. */
  exitCode: number
  /** As printed, with its last newline; redacted. */
  stdout: string
  stderr: string
  /** True when a stream was longer than 256 KiB and its middle was left out. */
  truncated: boolean
  durationMs: number
}

const BECOME: Readonly<Record<Command['as'], readonly string[]>> = {
  login: [],
  root: ['sudo', '-n', '--'],
  postgres: ['sudo', '-n', '-u', 'postgres', '--'],
}

/** Seconds between SIGTERM and SIGKILL for a command whose time is up. */
export const KILL_AFTER_SECONDS = 5

/** Returns the words that set the directory and the environment of what follows. */
export function environmentOf(command: Command): string[] {
  const settings = Object.entries({ ...command.env, LC_ALL: 'C.UTF-8' }).map(([name, value]) => {
    if (!/^[A-Za-z_]\w*$/.test(name)) throw new TypeError(`${JSON.stringify(name)} is no name of a variable`)
    return `${name}=${value}`
  })
  return ['env', '-C', command.cwd ?? '/', ...settings]
}

/**
 * Returns the line as a person could paste it to do the same: without the locale and the time limit that are put around
 * every command.
 */
export function render(command: Command): string {
  const settings = Object.entries(command.env ?? {}).map(([name, value]) => `${name}=${value}`)
  const directory = command.cwd === undefined || command.cwd === '/' ? [] : ['-C', command.cwd]
  const env = settings.length + directory.length > 0 ? ['env', ...directory, ...settings] : []
  const line = command.shownAs ?? quote([...BECOME[command.as], ...env, ...command.argv])
  const input = command.stdin === undefined || command.shownAs !== undefined ? '' : ' <<< [input not shown]'
  return redact(line, command.secrets) + input
}

/**
 * Returns the line that is sent. `timeout` stands behind sudo, as root or postgres: only there may it signal the
 * command. Closing the channel would not end it: sshd leaves a command without a terminal running.
 * Throws a TypeError when a secret stands in it.
 */
export function remoteLine(command: Command): string {
  const words = [...command.argv, ...Object.values(command.env ?? {})]
  for (const secret of command.secrets ?? []) {
    if (secret.length >= 4 && words.some(word => word.includes(secret)))
      throw new TypeError('a secret stands in the arguments or the environment of a command: it belongs on stdin')
  }
  const limit = ['timeout', `--kill-after=${KILL_AFTER_SECONDS}`, String(Math.max(command.timeoutMs, 1) / 1000)]
  return quote([...BECOME[command.as], ...environmentOf(command), ...limit, ...command.argv])
}
