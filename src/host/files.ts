import { createHash } from 'node:crypto'
import type { Command } from './command.js'
import { CommandFailed } from './errors.js'
import type { Host } from './host.js'

export interface RemoteFile {
  /** Absolute. */
  path: string
  content: string
  /** `user:group` */
  owner: string
  /** Octal, such as `0640`. */
  mode: string
  /** Its content is taken out of everything printed. */
  secret?: boolean
}

export interface FileOptions {
  signal?: AbortSignal
}

const TIMEOUT_MS = 60_000
const ABSENT = 66

const READ = `path=$1
limit=$2
[ -e "$path" ] || [ -L "$path" ] || exit ${ABSENT}
size=$(stat -L -c %s -- "$path") || exit 1
if [ "$size" -gt "$limit" ]; then
  echo "understudy: $path has $size bytes, more than the $limit that are read" >&2
  exit 1
fi
base64 -- "$path"`

/**
 * Returns a file's content as UTF-8, undefined when there is no such file. Reads as root. Throws CommandFailed when it
 * is longer than `maxBytes` (default 4 MiB): half a configuration file is worse than none.
 */
export async function readFile(
  host: Host,
  path: string,
  options: FileOptions & { maxBytes?: number } = {},
): Promise<string | undefined> {
  const command: Command = {
    argv: ['sh', '-c', READ, 'understudy-read', absolute(path), String(options.maxBytes ?? 4 * 1024 * 1024)],
    as: 'root',
    timeoutMs: TIMEOUT_MS,
    shownAs: `read ${path}`,
  }
  // In base64, because what a host prints is redacted and bounded, and a file must come as it is.
  const lines: string[] = []
  const result = await host.run(command, {
    ...(options.signal && { signal: options.signal }),
    acceptExit: [0, ABSENT],
    onLine: (line, stream) => {
      if (stream === 'stdout') lines.push(line)
    },
  })
  return result.exitCode === ABSENT ? undefined : Buffer.from(lines.join(''), 'base64').toString('utf8')
}

/*
 * The size is compared because a connection lost halfway looks to `cat` like the end of the content. A hash would be
 * stronger, but it would stand in the arguments, and a short secret can be guessed from its hash.
 */
const WRITE = `path=$1
bytes=$2
owner=$3
mode=$4
umask 077
directory=$(dirname -- "$path")
if [ ! -d "$directory" ]; then
  echo "understudy: $path cannot be written: there is no directory $directory" >&2
  exit 1
fi
new=$(mktemp -- "$directory/.understudy.XXXXXXXX") || exit 1
trap 'rm -f -- "$new"' EXIT
# PIPE too: with the connection gone, so is whoever reads what is said below.
trap 'exit 143' TERM INT HUP PIPE
cat >"$new" || exit 1
if [ "$(stat -c %s -- "$new")" -ne "$bytes" ]; then
  echo "understudy: the content of $path came only in part, and the file was left as it was" >&2
  exit 1
fi
chown -- "$owner" "$new" && chmod -- "$mode" "$new" && sync -- "$new" && mv -fT -- "$new" "$path" && sync -- "$directory"`

/**
 * Puts a file into place at once: a reader, and a crash, finds the old one or the new one, whole, with its owner and
 * mode. A symbolic link at `path` is replaced, not followed. The directory must be there. Throws CommandFailed.
 */
export async function writeFile(host: Host, file: RemoteFile, options: FileOptions = {}): Promise<void> {
  await host.run(writeCommand(file), options)
}

/** The command of `writeFile`, for those that must put a guard around it. */
export function writeCommand(file: RemoteFile): Command {
  const bytes = String(Buffer.byteLength(file.content))
  if (!/^[0-7]{3,4}$/.test(file.mode)) throw new TypeError(`${JSON.stringify(file.mode)} is no octal mode`)
  return {
    argv: ['sh', '-c', WRITE, 'understudy-write', absolute(file.path), bytes, file.owner, file.mode],
    as: 'root',
    stdin: file.content,
    timeoutMs: TIMEOUT_MS,
    shownAs: `write ${file.path} (${file.owner} ${file.mode}, ${bytes} bytes)`,
    ...(file.secret && { secrets: [file.content] }),
  }
}

const COMPARE = `path=$1
[ -f "$path" ] && [ ! -L "$path" ] || exit ${ABSENT}
stat -c '%U:%G %a %s' -- "$path" && sha256sum <"$path"`

/** True when the file is there with this content, owner and mode. A symbolic link never matches. */
export async function fileMatches(host: Host, file: RemoteFile, options: FileOptions = {}): Promise<boolean> {
  const command: Command = {
    argv: ['sh', '-c', COMPARE, 'understudy-compare', absolute(file.path)],
    as: 'root',
    timeoutMs: TIMEOUT_MS,
    shownAs: `compare ${file.path}`,
  }
  const result = await host.run(command, { ...options, acceptExit: [0, ABSENT] })
  if (result.exitCode === ABSENT) return false
  const [owner, mode, size, hash] = result.stdout.split(/\s+/)
  if (mode === undefined || hash === undefined) throw new CommandFailed(host.address, command, result, result.stdout)
  return (
    owner === file.owner &&
    Number.parseInt(mode, 8) === Number.parseInt(file.mode, 8) &&
    Number(size) === Buffer.byteLength(file.content) &&
    hash === createHash('sha256').update(file.content).digest('hex')
  )
}

function absolute(path: string): string {
  if (!path.startsWith('/')) throw new TypeError(`${JSON.stringify(path)} is no absolute path`)
  return path
}
