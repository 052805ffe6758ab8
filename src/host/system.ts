import type { Command } from './command.js'
import { CommandFailed } from './errors.js'
import type { Host, RunOptions } from './host.js'

export interface SystemFacts {
  /** As in /etc/os-release: `debian`, `ubuntu`, `rocky`, … */
  osId: string
  osVersionId: string
  /** For people: `Debian GNU/Linux 12 (bookworm)`. */
  osName: string
  family: 'debian' | 'rhel' | 'other'
  /** As `uname -m` says it: `x86_64`, `aarch64`. */
  architecture: string
  hostname: string
  memoryBytes: number
  cpus: number
  /** systemd is the init of this host. */
  systemd: boolean
  /** The host's clock minus ours; good to half a round trip. */
  clockOffsetMs: number
  /** The address that the host sees us come from. */
  controllerAddress: string
}

export type SystemOptions = Pick<RunOptions, 'signal'>

const FACTS = `date +%s%N
[ -r /etc/os-release ] && . /etc/os-release
printf '%s\\n' "$ID" "$VERSION_ID" "$PRETTY_NAME" "$ID_LIKE"
uname -m
uname -n
sed -n 's/^MemTotal: *\\([0-9]*\\) kB$/\\1/p' /proc/meminfo
nproc
if [ -d /run/systemd/system ]; then echo yes; else echo no; fi
printf '%s\\n' "$SSH_CONNECTION"`

/** Reads what provisioning must know of a host, in one round trip, as the login user, changing nothing. */
export async function readSystemFacts(host: Host, options: SystemOptions = {}): Promise<SystemFacts> {
  const command: Command = {
    argv: ['sh', '-c', FACTS],
    as: 'login',
    timeoutMs: 15_000,
    shownAs: 'cat /etc/os-release /proc/meminfo; uname -mn; nproc; date',
  }
  // Connected first, or the handshake would be taken for a wrong clock.
  await host.controllerAddress(options.signal)
  const sentMs = Date.now()
  const result = await host.run(command, options)
  const oursMs = (sentMs + Date.now()) / 2
  const lines = result.stdout.split('\n')
  const [nanoseconds, id, version, name, like, machine, hostname, memoryKiB, cpus, systemd, connection] = lines
  if (connection === undefined) throw new CommandFailed(host.address, command, result, result.stdout)
  return {
    osId: id || 'unknown',
    osVersionId: version || 'unknown',
    osName: name || id || 'unknown',
    family: familyOf(`${id} ${like}`),
    architecture: machine ?? '',
    hostname: hostname ?? '',
    memoryBytes: Number(memoryKiB) * 1024,
    cpus: Number(cpus),
    systemd: systemd === 'yes',
    clockOffsetMs: Math.round(Number(nanoseconds) / 1e6 - oursMs),
    controllerAddress: connection.split(' ')[0] ?? '',
  }
}

function familyOf(ids: string): SystemFacts['family'] {
  if (/\b(debian|ubuntu)\b/.test(ids)) return 'debian'
  return /\b(rhel|fedora|centos|rocky|almalinux|ol)\b/.test(ids) ? 'rhel' : 'other'
}

/** Throws SudoRefused when the login user may not become root without a password. */
export async function checkSudo(host: Host, options: SystemOptions = {}): Promise<void> {
  await host.run({ argv: ['true'], as: 'root', timeoutMs: 15_000 }, options)
}

/** Files that go while they are counted are no failure. */
const TAKEN = `[ -d "$1" ] || { echo 0; exit 0; }
taken=$(du -sxB1 -- "$1/" 2>/dev/null | cut -f1)
echo "\${taken:-0}"`

/** What the files of a directory take on its own file system; 0 where there is none. */
export async function spaceTaken(host: Host, directory: string, options: SystemOptions = {}): Promise<number> {
  const { stdout } = await host.run(
    {
      argv: ['sh', '-c', TAKEN, 'understudy-taken', directory],
      as: 'root',
      timeoutMs: 300_000,
      shownAs: `du -sxB1 ${directory}`,
    },
    options,
  )
  return Number(stdout.trim())
}

const DISK = `path=$1
while [ ! -e "$path" ]; do path=$(dirname -- "$path"); done
df -B1 --output=avail,size,target -- "$path" | tail -n 1`

/** Returns what is free for root and what there is on the file system of a path, or of its nearest parent that exists. */
export async function diskFree(
  host: Host,
  path: string,
  options: SystemOptions = {},
): Promise<{ availableBytes: number; totalBytes: number; mount: string }> {
  if (!path.startsWith('/')) throw new TypeError(`${JSON.stringify(path)} is no absolute path`)
  // As root: the parents of a data directory are often closed to the login user.
  const command: Command = {
    argv: ['sh', '-c', DISK, 'understudy-disk', path],
    as: 'root',
    timeoutMs: 15_000,
    shownAs: `df -B1 ${path}`,
  }
  const result = await host.run(command, options)
  const found = /^\s*(\d+)\s+(\d+)\s+(.+)$/m.exec(result.stdout)
  if (!found) throw new CommandFailed(host.address, command, result, result.stdout)
  return { availableBytes: Number(found[1]), totalBytes: Number(found[2]), mount: found[3] ?? '' }
}
