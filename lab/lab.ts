/**
 * Lab hosts: throw-away Debian machines on one Linux machine, each with its own systemd, sshd, address and disk.
 *
 * A lab is written down in files, its machines are control groups and its network is namespaces: nothing of it lives in the process
 * that made it. Any process can open it, go on with it, or take it down.
 */
import type { ChildProcess } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, readFile, rm } from 'node:fs/promises'
import { endGroup, groupOf } from './cgroup.js'
import { type CommandOptions, type CommandResult, command, LabError } from './command.js'
import {
  type Block,
  blockPackets,
  type FaultSignal,
  fillDisk,
  signalProcesses,
  unblockPackets,
  unfillDisk,
} from './faults.js'
import { defaultSuite, ensureGoldenTree, ensurePostgresTree, goldenTree, type Suite } from './golden.js'
import { addToHostsFile, hostsLine, loginUser, type Neighbour, writeIdentity } from './identity.js'
import { withLock } from './lock.js'
import {
  type ExecOptions,
  execInside,
  initOf,
  killMachine,
  machineRuns,
  startMachine,
  waitForOtherInit,
  waitForSshd,
} from './machine.js'
import {
  addressOfHost,
  connectHost,
  disconnectHost,
  gateway,
  makeLabNetwork,
  maximumHosts,
  removeLabNetwork,
  setLink,
} from './network.js'
import { ensurePackages } from './packages.js'
import { checkName, directoryOfLab, filesOfHost, labDirectory, namespaceFile, namespaceOfLab } from './paths.js'
import { inParentNamespace, type SpawnOptions, spawnProgram } from './programs.js'
import { whatIsMissing } from './requirements.js'
import {
  type HostRecord,
  type LabRecord,
  labNames,
  readHost,
  readHosts,
  readLab,
  writeHost,
  writeLab,
} from './state.js'

export { type CommandOptions, type CommandResult, LabError } from './command.js'
export type { Block, FaultSignal } from './faults.js'
export { goldenTree, type Suite, suites } from './golden.js'
export type { ExecOptions } from './machine.js'
export type { SpawnOptions } from './programs.js'
export { whatIsMissing } from './requirements.js'

/** A host of a lab, as one would register it. */
export interface LabHost {
  name: string
  address: string
  sshPort: 22
  loginUser: 'admin'
  /** "SHA256:…" of its ed25519 key. */
  hostKey: string
}

/** What a host may have other than usual. */
export interface HostOptions {
  /** Give it a disk of its own, of this size, at /var/lib/postgresql: one that can be filled. */
  postgresDiskBytes?: number
  /** False: the login user has no sudo at all. Default true. */
  sudo?: boolean
  /** Its Debian release. Default: the lab's, bookworm. The first host of another one on this machine takes a minute longer. */
  suite?: Suite
}

/** A lab that is up. Hosts are named as they were added; where an address is asked for, a host's name or "gateway" does as well. */
export interface Lab {
  readonly name: string
  /** The network namespace from which the hosts are reached. */
  readonly namespace: string
  /** Where the hosts reach what runs in that namespace. */
  readonly gateway: '192.0.2.1'
  /** Makes a host and boots it; returns once its sshd answers. */
  addHost(name: string, options?: HostOptions): Promise<LabHost>
  /** Several at once, with addresses in the order of their names here. */
  addHosts(names: readonly string[], options?: HostOptions): Promise<LabHost[]>
  /** Ends a host and removes its disk. */
  removeHost(name: string): Promise<void>
  hosts(): Promise<LabHost[]>
  /** Runs a command inside a host, as root, not over SSH. */
  exec(host: string, argv: readonly string[], options?: ExecOptions): Promise<CommandResult>
  /** Runs a command in the lab's namespace, to its end. */
  run(argv: readonly string[], options?: CommandOptions): Promise<CommandResult>
  /** Starts a program in the lab's namespace that keeps running; its process identifier is the program's own. */
  spawn(argv: readonly string[], options?: SpawnOptions): Promise<ChildProcess>
  /** A power cut: the others hear nothing from it any more. The disk stays, with all that was written. */
  powerOff(host: string): Promise<void>
  /** Boots a host again, on the same disk, with its cable in and no blocks. */
  powerOn(host: string): Promise<LabHost>
  /** An orderly reboot. */
  reboot(host: string): Promise<LabHost>
  /** Pulls the cable. */
  linkDown(host: string): Promise<void>
  /** Puts the cable back. */
  linkUp(host: string): Promise<void>
  /** Drops packets at a host, in one direction if only one is given. */
  block(host: string, what: Block): Promise<void>
  /** Takes back every block at a host. */
  unblock(host: string): Promise<void>
  /** Signals the processes of this host whose command line matches; returns how many. */
  signal(host: string, pattern: string, signal: FaultSignal): Promise<number>
  /** Fills the small disk at `path` but for some bytes. */
  fill(host: string, path: string, leaveBytes?: number): Promise<void>
  /** Gives the room back. */
  unfill(host: string, path: string): Promise<void>
  /** Ends and removes everything of this lab. */
  down(): Promise<void>
}

/** Makes a lab, and whatever it needs that is missing here. A lab of the same name is taken down first. */
export async function bringUpLab(options: {
  name: string
  hosts?: readonly string[]
  publicKeys: readonly string[]
  /** The Debian release of its hosts. Default bookworm. */
  suite?: Suite
  /** Its hosts have the packages of PostgreSQL and repmgr already, and no server. Default: they are bare. */
  postgres?: boolean
  log?: (line: string) => void
}): Promise<Lab> {
  const { name, hosts = [], publicKeys, suite = defaultSuite, postgres = false, log = () => {} } = options
  checkName('lab', name)
  for (const host of hosts) checkName('host', host)
  const missing = await whatIsMissing()
  if (missing) throw new LabError(missing)
  await ensurePackages(log)
  const golden = await (postgres ? ensurePostgresTree(suite, log) : ensureGoldenTree(suite, log))
  await takeLabDown(name)
  try {
    await withLock(`lab-${name}`, async () => {
      await writeLab({ name, publicKeys: [...publicKeys], golden })
      await makeLabNetwork(name)
    })
    log(`booting ${hosts.join(', ') || 'no host yet'}`)
    await addHosts(name, hosts)
  } catch (error) {
    await takeLabDown(name)
    throw error
  }
  return labOf(name)
}

/** A lab that is up, made by this process or another. */
export async function openLab(name: string): Promise<Lab | undefined> {
  checkName('lab', name)
  const up = (await readLab(name)) !== undefined && existsSync(namespaceFile(namespaceOfLab(name)))
  return up ? labOf(name) : undefined
}

/** The labs that are written down here, whether they are up or left over. */
export const listLabs = (): Promise<string[]> => labNames()

/** Ends every machine of a lab and removes all that there is of it; also what a crash left. Does nothing when there is nothing. */
export async function takeLabDown(name: string): Promise<void> {
  checkName('lab', name)
  await withLock(`lab-${name}`, async () => {
    const hosts = await readHosts(name)
    await Promise.all(hosts.map(host => killMachine(name, host.name)))
    await endGroup(groupOf(name))
    await removeLabNetwork(name)
    await unmountBelow(directoryOfLab(name))
    await rm(directoryOfLab(name), { recursive: true, force: true })
  })
}

function labOf(lab: string): Lab {
  const host = (name: string) => hostOf(lab, name)
  const resolve = async (name: string) =>
    name === 'gateway' ? gateway : ((await readHost(lab, name))?.address ?? name)
  return {
    name: lab,
    namespace: namespaceOfLab(lab),
    gateway,
    addHosts: (names, options) => addHosts(lab, names, options),
    addHost: async (name, options) => {
      const [added] = await addHosts(lab, [name], options)
      if (!added) throw new LabError(`${name} was not added`)
      return added
    },
    removeHost: async name => removeHost(lab, (await host(name)).name),
    hosts: async () => (await readHosts(lab)).map(asLabHost),
    exec: async (name, argv, options) => execInside(lab, (await host(name)).name, argv, options),
    run: async (argv, options) => command(await inParentNamespace(lab, argv), { shownAs: argv.join(' '), ...options }),
    spawn: (argv, options = {}) => spawnProgram(lab, argv, options),
    powerOff: async name => powerOff(lab, await host(name)),
    powerOn: async name => powerOn(lab, await host(name)),
    reboot: async name => {
      const record = await host(name)
      const before = await initOf(lab, name)
      await execInside(lab, name, ['systemctl', 'reboot'])
      await waitForOtherInit(lab, name, before)
      await waitForSshd(lab, name, record.address)
      return asLabHost(record)
    },
    linkDown: async name => setLink(lab, (await host(name)).address, 'down'),
    linkUp: async name => setLink(lab, (await host(name)).address, 'up'),
    block: async (name, { from, to, port }) => {
      const what: Block = port === undefined ? {} : { port }
      if (from !== undefined) what.from = await resolve(from)
      if (to !== undefined) what.to = await resolve(to)
      await blockPackets(lab, (await host(name)).name, what)
    },
    unblock: async name => unblockPackets(lab, (await host(name)).name),
    signal: (name, pattern, signal) => signalProcesses(lab, name, pattern, signal),
    fill: (name, path, leaveBytes = 0) => fillDisk(lab, name, path, leaveBytes),
    unfill: (name, path) => unfillDisk(lab, name, path),
    down: () => takeLabDown(lab),
  }
}

const asLabHost = ({ name, address, hostKey }: HostRecord): LabHost => ({
  name,
  address,
  sshPort: 22,
  loginUser,
  hostKey,
})

async function hostOf(lab: string, name: string): Promise<HostRecord> {
  const record = await readHost(lab, name)
  if (!record) throw new LabError(`lab ${lab} has no host ${name}`)
  return record
}

async function labRecord(lab: string): Promise<LabRecord> {
  const record = await readLab(lab)
  if (!record) throw new LabError(`there is no lab ${lab}`)
  return record
}

/**
 * Several hosts are written down at once, so that each knows the names of all from its first boot; then they boot side
 * by side. The lock is held until they are up: a machine that is only half there cannot be told the name of a next one.
 */
async function addHosts(lab: string, names: readonly string[], options: HostOptions = {}): Promise<LabHost[]> {
  // Before the lock: building a tree takes longer than others should have to wait for this lab.
  if (options.suite) await ensureGoldenTree(options.suite, () => {})
  return withLock(`lab-${lab}`, () => bootNewHosts(lab, names, options))
}

async function bootNewHosts(lab: string, names: readonly string[], options: HostOptions): Promise<LabHost[]> {
  const records = await writeHostsDown(lab, names, options)
  const booted = await Promise.allSettled(records.map(record => powerOn(lab, record)))
  for (const [index, record] of records.entries()) {
    // So that the same name can be tried again.
    if (booted[index]?.status === 'rejected') await removeHost(lab, record.name)
  }
  return booted.map(result => {
    if (result.status === 'rejected') throw result.reason
    return result.value
  })
}

async function writeHostsDown(lab: string, names: readonly string[], options: HostOptions): Promise<HostRecord[]> {
  const { publicKeys } = await labRecord(lab)
  const present = await readHosts(lab)
  const used = new Set(present.map(host => host.address))
  const free = Array.from({ length: maximumHosts }, (_, index) => addressOfHost(index)).filter(it => !used.has(it))
  const added = names.map((name, index): Neighbour => {
    checkName('host', name)
    if (present.some(host => host.name === name) || names.indexOf(name) !== index)
      throw new LabError(`lab ${lab} has a host ${name} already`)
    const address = free[index]
    if (!address) throw new LabError(`lab ${lab} is full: ${maximumHosts} hosts`)
    return { name, address }
  })
  const { sudo = true, postgresDiskBytes, suite } = options
  const records: HostRecord[] = []
  for (const { name, address } of added) {
    // A process that died just here left a disk without a record.
    await rm(filesOfHost(lab, name).directory, { recursive: true, force: true })
    const neighbours = [...present, ...added]
    const hostKey = await writeIdentity(lab, name, { publicKeys, sudo, neighbours })
    const record = {
      name,
      address,
      hostKey,
      sudo,
      ...(suite ? { golden: goldenTree(suite) } : {}),
      ...(postgresDiskBytes ? { postgresDiskBytes } : {}),
    }
    await writeHost(lab, record)
    records.push(record)
  }
  for (const host of present) await introduce(lab, host.name, added)
  return records
}

/** Tells a host the names of new ones. The disk of a machine that runs is changed by the machine itself only. */
async function introduce(lab: string, host: string, added: readonly Neighbour[]): Promise<void> {
  if (await initOf(lab, host)) {
    const stdin = added.map(hostsLine).join('')
    await execInside(lab, host, ['sh', '-c', 'cat >> /etc/hosts'], { stdin })
  } else if (!(await machineRuns(lab, host))) {
    for (const neighbour of added) await addToHostsFile(lab, host, neighbour)
  }
}

/** Its line in /etc/hosts goes from the hosts that run; in one that is off it stays, and names an address that nobody has. */
async function removeHost(lab: string, name: string): Promise<void> {
  await killMachine(lab, name)
  await disconnectHost(lab, name)
  await unmountBelow(filesOfHost(lab, name).directory)
  await rm(filesOfHost(lab, name).directory, { recursive: true, force: true })
  for (const other of await readHosts(lab)) {
    if (await initOf(lab, other.name)) await execInside(lab, other.name, ['sed', '-i', `/\\t${name}$/d`, '/etc/hosts'])
  }
}

async function powerOff(lab: string, { name, address }: HostRecord): Promise<void> {
  // The cable first: a killed process still has its connections closed by the kernel, which the others would hear.
  await setLink(lab, address, 'down').catch(() => {})
  await killMachine(lab, name)
  // And the connections with the namespace: they would be closed when the cable is back.
  await disconnectHost(lab, name)
}

async function powerOn(lab: string, host: HostRecord): Promise<LabHost> {
  const { name, address, postgresDiskBytes } = host
  const golden = host.golden ?? (await labRecord(lab)).golden
  if (await machineRuns(lab, name)) throw new LabError(`${name} is running already`)
  // A machine that shut itself down leaves its network.
  await disconnectHost(lab, name)
  await connectHost(lab, name, address)
  if (postgresDiskBytes) await mountSmallDisk(filesOfHost(lab, name).smallDisk, postgresDiskBytes)
  const machine = await startMachine(lab, name, { golden, smallDisk: postgresDiskBytes !== undefined })
  await waitForSshd(lab, name, address, machine)
  return asLabHost(host)
}

/** Mounted outside of the machine: a disk outlives a power cut. */
async function mountSmallDisk(path: string, bytes: number): Promise<void> {
  await mkdir(path, { recursive: true })
  if ((await mountsBelow(path)).length > 0) return
  await command(['mount', '-t', 'tmpfs', '-o', `size=${bytes},mode=0755`, 'understudy-lab', path])
}

async function unmountBelow(directory: string): Promise<void> {
  for (const point of await mountsBelow(directory)) await command(['umount', '--lazy', point], { reject: false })
}

/** The mount points at or below a directory, the innermost first. */
async function mountsBelow(directory: string): Promise<string[]> {
  if (!directory.startsWith(labDirectory())) return []
  const points = (await readFile('/proc/self/mounts', 'utf8')).split('\n').map(line => line.split(' ')[1] ?? '')
  return points.filter(point => point === directory || point.startsWith(`${directory}/`)).reverse()
}
