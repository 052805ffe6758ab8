/** What a service on a host may use: memory, CPUs, and what kind of disk its files are on. */
import type { Command } from './command.js'
import { CommandFailed } from './errors.js'
import type { Host } from './host.js'
import type { SystemOptions } from './system.js'

export interface HardwareFacts {
  /** RAM, or the limit of a control group of the host where that is less. */
  memoryBytes: number
  /** CPUs, or the whole ones in the quota of a control group; one at least. */
  cpus: number
  /** In the order of the paths that were asked for. */
  disks: DiskFacts[]
}

export interface DiskFacts {
  /**
   * `unknown`: there is no block device to ask (overlay, ZFS, a network file system), or a virtual one that calls itself
   * rotational, as hypervisors let their disks do whatever is under them.
   */
  kind: 'ssd' | 'hdd' | 'unknown'
  totalBytes: number
  /** The number of the file system: two paths with the same one share its space. */
  fileSystem: string
}

/**
 * Of the control groups, the host's own (a container's, for a container) and those that systemd puts PostgreSQL into; the
 * login user's says nothing of a service. Of disks, a partition asks the disk that it is on, a volume (LVM, RAID, LUKS)
 * those that it is made of; btrfs has no number of its own, but a source.
 */
const HARDWARE = `
sed -n 's/^MemTotal: *\\([0-9]*\\) kB$/memory=\\1 kB/p' /proc/meminfo
echo "cpus=$(nproc)"
for group in '' system.slice/ system.slice/system-postgresql.slice/; do
  for file in "\${group}memory.max" "memory/\${group}memory.limit_in_bytes"; do
    [ ! -r "/sys/fs/cgroup/$file" ] || { read -r limit <"/sys/fs/cgroup/$file"; echo "limit=$limit"; }
  done
  [ ! -r "/sys/fs/cgroup/\${group}cpu.max" ] || { read -r quota <"/sys/fs/cgroup/\${group}cpu.max"; echo "quota=$quota"; }
  old=/sys/fs/cgroup/cpu/\${group}cpu
  [ ! -r "$old.cfs_quota_us" ] || echo "quota=$(cat "$old.cfs_quota_us") $(cat "$old.cfs_period_us")"
done
if grep -q '^flags.* hypervisor' /proc/cpuinfo || systemd-detect-virt --vm --quiet 2>/dev/null; then echo virtual=yes; fi
spinning() {
  device=$(readlink -f "/sys/dev/block/$1") || return 0
  [ ! -e "$device/partition" ] || device=\${device%/*}
  if [ -n "$(ls "$device/slaves" 2>/dev/null)" ]; then
    for slave in "$device"/slaves/*; do ( spinning "$(cat "$slave/dev")" ); done
  elif [ -e "$device/queue/rotational" ]; then
    echo "device=\${device##*/} $(cat "$device/queue/rotational")"
  fi
}
for path in "$@"; do
  while [ ! -e "$path" ]; do path=$(dirname -- "$path"); done
  path=$(readlink -f -- "$path")
  echo "path=$(stat -c %d -- "$path") $(df -B1 --output=size -- "$path" | tail -n 1)"
  read -r number source <<END
$(findmnt -n --first-only -o MAJ:MIN,SOURCE --target "$path")
END
  if [ ! -e "/sys/dev/block/$number" ]; then
    source=\${source%%\\[*}
    [ ! -b "$source" ] || number=$(lsblk -d -n -o MAJ:MIN -- "$source" | tr -d ' ')
  fi
  [ ! -e "/sys/dev/block/$number" ] || spinning "$number"
done`

/** The disk of each path, or of its nearest parent that exists. In one round trip, changing nothing. */
export async function readHardware(
  host: Host,
  paths: readonly string[],
  options: SystemOptions = {},
): Promise<HardwareFacts> {
  const relative = paths.find(path => !path.startsWith('/'))
  if (relative !== undefined) throw new TypeError(`${JSON.stringify(relative)} is no absolute path`)
  // As root: the parents of a data directory are often closed to the login user.
  const command: Command = {
    argv: ['sh', '-c', HARDWARE, 'understudy-hardware', ...paths],
    as: 'root',
    timeoutMs: 15_000,
    shownAs: `free -b; nproc; df -B1 ${paths.join(' ')}; lsblk -o NAME,ROTA`,
  }
  const result = await host.run(command, options)
  const facts = parseHardware(result.stdout)
  if (!Number.isFinite(facts.memoryBytes) || facts.disks.length !== paths.length)
    throw new CommandFailed(host.address, command, result, result.stdout)
  return facts
}

/**
 * The lines of the script: `memory=<n> kB`, `cpus=<n>`, `limit=<bytes or max>`, `quota=<µs or max> <period>`,
 * `virtual=yes`; then for each path `path=<file system> <bytes>` and `device=<name> <0|1>`. Version 1 of the control groups
 * says "no limit" as -1, or as a number beyond all RAM.
 */
export function parseHardware(text: string): HardwareFacts {
  const values = (key: string) => [...text.matchAll(new RegExp(`^${key}=(.*)$`, 'gm'))].map(([, value = '']) => value)
  const virtual = values('virtual').includes('yes')
  const usable = (found: readonly number[]) => found.filter(value => Number.isFinite(value) && value >= 0)
  const quotas = values('quota').map(line => {
    const [quota = '', period = ''] = line.split(' ')
    return Math.floor(Number(quota) / Number(period))
  })
  const [, ...paths] = text.split(/^path=/m)
  return {
    memoryBytes: Math.min(
      Number.parseInt(values('memory')[0] ?? '', 10) * 1024,
      ...usable(values('limit').map(Number)),
    ),
    cpus: Math.max(1, Math.min(Number(values('cpus')[0]), ...usable(quotas))),
    disks: paths.map(part => {
      const [fileSystem = '', size = ''] = part.split(/\s+/)
      const devices = [...part.matchAll(/^device=(\S+) ([01])$/gm)]
      return { kind: kindOf(devices, virtual), totalBytes: Number(size), fileSystem }
    }),
  }
}

/** What has a file, memory or a network below it says nothing of a disk. */
const NO_DISK = /^(loop|zram|ram|nbd|rbd|drbd)/

function kindOf(devices: readonly RegExpMatchArray[], virtual: boolean): DiskFacts['kind'] {
  if (devices.length === 0 || devices.some(([, name = '']) => NO_DISK.test(name))) return 'unknown'
  if (devices.every(([, , rotational]) => rotational === '0')) return 'ssd'
  return virtual ? 'unknown' : 'hdd'
}
