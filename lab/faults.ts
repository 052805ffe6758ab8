/** What goes wrong on real hosts, done on purpose. */
import { command, LabError } from './command.js'
import { execInside } from './machine.js'
import { hasCommand } from './packages.js'
import { namespaceFile, namespaceOfHost } from './paths.js'

/** What not to let through: packets that come `from` an address or go `to` one; with `port`, TCP to that port only. */
export interface Block {
  from?: string
  to?: string
  port?: number
}

/** The host's own firewall can reload its rules without losing these: they are in chains of their own, of the older iptables. */
const chains = { INPUT: 'UNDERSTUDY-LAB-IN', OUTPUT: 'UNDERSTUDY-LAB-OUT' } as const

/** Drops packets at a host, silently, as a broken network does: in one direction if only one is given. */
export async function blockPackets(lab: string, host: string, { from, to, port }: Block): Promise<void> {
  if (from === undefined && to === undefined && port === undefined) {
    throw new LabError('block: say from, to or port; to cut a host off, take linkDown')
  }
  const tcp = port === undefined ? [] : ['-p', 'tcp', '--dport', String(port)]
  if (from !== undefined || to === undefined) await drop(lab, host, 'INPUT', [...(from ? ['-s', from] : []), ...tcp])
  if (to !== undefined) await drop(lab, host, 'OUTPUT', ['-d', to, ...tcp])
}

/** Takes back every block at a host. */
export async function unblockPackets(lab: string, host: string): Promise<void> {
  for (const chain of Object.values(chains)) await iptables(lab, host, ['-F', chain], false)
}

async function drop(lab: string, host: string, hook: keyof typeof chains, match: string[]): Promise<void> {
  const chain = chains[hook]
  await iptables(lab, host, ['-N', chain], false)
  const hooked = await iptables(lab, host, ['-C', hook, '-j', chain], false)
  if (hooked.exitCode !== 0) await iptables(lab, host, ['-I', hook, '-j', chain])
  await iptables(lab, host, ['-A', chain, ...match, '-j', 'DROP'])
}

async function iptables(lab: string, host: string, argv: string[], reject = true) {
  const program = (await hasCommand('iptables-legacy')) ? 'iptables-legacy' : 'iptables'
  const namespace = namespaceFile(namespaceOfHost(lab, host))
  return command(['nsenter', `--net=${namespace}`, program, '-w', ...argv], { reject })
}

/** A signal to processes of a host. */
export type FaultSignal = 'SIGKILL' | 'SIGSTOP' | 'SIGCONT'

/**
 * Signals the processes of a host whose command line matches a pattern (of `pkill --full`); returns how many.
 * It runs in the host's process namespace: from there no process of anything else can be seen, let alone signalled.
 */
export async function signalProcesses(
  lab: string,
  host: string,
  pattern: string,
  signal: FaultSignal,
): Promise<number> {
  const argv = ['pkill', '--signal', signal, '--echo', '--full', '--', pattern]
  const { stdout, stderr, exitCode } = await execInside(lab, host, argv, { reject: false })
  if (exitCode > 1) throw new LabError(`pkill on ${host}: ${stderr}`)
  return stdout.split('\n').filter(Boolean).length
}

/** The file that takes the room on a full disk. */
const ballast = (path: string) => `${path.replace(/\/+$/, '')}/.lab-ballast`

/** Fills the small disk at `path` but for some bytes. Refuses on a disk that is shared with the machine below. */
export async function fillDisk(lab: string, host: string, path: string, leaveBytes: number): Promise<void> {
  await unfillDisk(lab, host, path)
  const { stdout } = await execInside(lab, host, ['stat', '--file-system', '--format=%T %a %S', path])
  const [type, blocks, blockBytes] = stdout.split(' ')
  if (type !== 'tmpfs') {
    throw new LabError(`${path} on ${host} is not a disk of its own (${type}): add the host with postgresDiskBytes`)
  }
  const unit = Number(blockBytes)
  const bytes = Math.floor((Number(blocks) * unit - leaveBytes) / unit) * unit
  if (bytes > 0) await execInside(lab, host, ['fallocate', '--length', String(bytes), ballast(path)])
}

/** Gives the room back. */
export async function unfillDisk(lab: string, host: string, path: string): Promise<void> {
  await execInside(lab, host, ['rm', '-f', ballast(path)])
}
