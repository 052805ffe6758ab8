/** What the checks say of the hosts: whether they can be logged in to, sudo, clock, disk, kernel. Pure. */
import type { Answered, HostAnswer } from './check-answers.js'
import type { CheckResult } from './checks.js'

const GIB = 1024 ** 3
const gibibytes = (bytes: number) => `${(bytes / GIB).toFixed(1)} GiB`

/** Room that a clone takes: WAL that is written meanwhile comes on top, hence a margin. */
export const cloneBytes = (databaseBytes: number) => Math.ceil(databaseBytes * 1.05) + 64 * 1024 ** 2

export function judgeSsh(answer: HostAnswer): CheckResult {
  const edge = { kind: 'ssh', to: answer.node } as const
  return 'failure' in answer
    ? { ...edge, verdict: 'failed', ...answer.failure }
    : { ...edge, verdict: 'ok', detail: `logged in, became root, and was answered in ${answer.connectMs} ms` }
}

export function judgeSudo({ node, sudo }: Answered): CheckResult[] {
  return sudo.map(({ command, allowed }) =>
    allowed
      ? { kind: 'sudo', to: node, verdict: 'ok', detail: `postgres may run ${command}` }
      : {
          kind: 'sudo',
          to: node,
          verdict: 'warning',
          detail: `postgres may not run ${command}`,
          remedy:
            'repmgr needs it to start and stop the server by itself; the operations of this service do not. PUT the description of the cluster writes the sudoers file.',
        },
  )
}

const CLOCK_WARNING_MS = 1000
const CLOCK_FAILED_MS = 60_000

export function judgeClock({ node, clockOffsetMs }: Answered): CheckResult {
  const behind = Math.abs(clockOffsetMs)
  const detail = `its clock is ${behind} ms ${clockOffsetMs < 0 ? 'behind' : 'ahead of'} this service’s`
  if (behind < CLOCK_WARNING_MS) return { kind: 'clock', to: node, verdict: 'ok', detail }
  const remedy = 'Let chrony or systemd-timesyncd keep the clocks of all hosts, and of this service’s.'
  return { kind: 'clock', to: node, verdict: behind < CLOCK_FAILED_MS ? 'warning' : 'failed', detail, remedy }
}

export function judgeDisk({ node, disk, inUse, ownBytes }: Answered, databaseBytes: number): CheckResult {
  const free = `${disk.mount} has ${gibibytes(disk.availableBytes)} of ${gibibytes(disk.totalBytes)} free`
  const edge = { kind: 'disk', to: node } as const
  const neededBytes = databaseBytes === 0 ? 0 : cloneBytes(databaseBytes)
  const cleared = ownBytes < GIB / 10 ? '' : `, and ${gibibytes(ownBytes)} more once its directory is emptied`
  const room = `${free}${cleared}; a clone needs ${gibibytes(neededBytes)}`
  if (!inUse && disk.availableBytes + ownBytes < neededBytes)
    return { ...edge, verdict: 'failed', detail: room, remedy: 'Free space there, or give it a larger disk.' }
  if (disk.availableBytes < disk.totalBytes * 0.1 || disk.availableBytes < GIB / 4) {
    return {
      ...edge,
      verdict: 'warning',
      detail: free,
      remedy: 'A full disk stops the server. Free space there, or give it a larger disk.',
    }
  }
  return { ...edge, verdict: 'ok', detail: inUse ? free : room }
}

/** @see https://www.postgresql.org/docs/current/kernel-resources.html */
export function judgeKernel({ node, openFilesLimit, overcommitMemory, transparentHugePages }: Answered): CheckResult[] {
  const items: CheckResult[] = []
  const say = (fine: boolean, detail: string, remedy: string) =>
    items.push({ kind: 'kernel', to: node, verdict: fine ? 'ok' : 'warning', detail, ...(fine ? {} : { remedy }) })
  if (openFilesLimit !== undefined)
    say(
      openFilesLimit >= 4096,
      `the server may have ${openFilesLimit} files open`,
      'Raise LimitNOFILE of the PostgreSQL unit to 65536 or so.',
    )
  if (overcommitMemory !== undefined)
    say(
      overcommitMemory !== 1,
      `vm.overcommit_memory is ${overcommitMemory}`,
      'With 1 the kernel promises memory that it does not have, and ends a process, often PostgreSQL, when it is wanted. Set it to 2, or 0.',
    )
  if (transparentHugePages !== undefined)
    say(
      transparentHugePages !== 'always',
      `transparent huge pages: ${transparentHugePages}`,
      'They cost latency under PostgreSQL. Set /sys/kernel/mm/transparent_hugepage/enabled to madvise.',
    )
  return items
}
