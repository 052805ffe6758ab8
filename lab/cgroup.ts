/**
 * Control groups: which processes belong to a lab.
 *
 * Each machine, and the programs run in a lab's namespace, have a control group of their own. It is the kernel's own list of what
 * was started: nothing escapes from it, it survives whoever started it, and no process identifier in it can be a stranger that got
 * a number again. Ending a machine is ending its group.
 */
import { existsSync } from 'node:fs'
import { mkdir, readdir, readFile, rmdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { command, LabError } from './command.js'

/** Where a group is, relative to the root of the hierarchy. `member` undefined: the whole lab. */
export const groupOf = (lab: string, member?: string): string => join('understudy-lab', lab, member ?? '')

/** The group of the programs run in a lab's namespace. No host can have this name. */
export const programs = '_programs'

/** Finds the version 2 hierarchy, or mounts it: machines run their systemd on it also where the system below uses version 1. */
async function hierarchy(): Promise<string> {
  const mounted = await mountPoint()
  if (mounted) return mounted
  const point = existsSync('/sys/fs/cgroup/cgroup.procs') ? '/sys/fs/cgroup' : '/sys/fs/cgroup/unified'
  await mkdir(point, { recursive: true })
  await command(['mount', '-t', 'cgroup2', 'cgroup2', point])
  return point
}

async function mountPoint(): Promise<string | undefined> {
  for (const line of (await readFile('/proc/self/mounts', 'utf8')).split('\n')) {
    const [, point, type] = line.split(' ')
    if (type === 'cgroup2' && point) return point
  }
  return undefined
}

/** systemd-nspawn on a version 1 system makes the same groups in systemd's own hierarchy, and leaves them there. */
const named = '/sys/fs/cgroup/systemd'
const hasNamed = () => existsSync(join(named, 'cgroup.procs')) && existsSync(join(named, 'release_agent'))

/** Makes a group; a process that writes its identifier to each of the files returned is in it. */
export async function makeGroup(group: string): Promise<string[]> {
  const roots = [await hierarchy(), ...(hasNamed() ? [named] : [])]
  for (const root of roots) await mkdir(join(root, group), { recursive: true })
  return roots.map(root => join(root, group, 'cgroup.procs'))
}

/** The processes of a group itself, not of the groups below it. */
export async function processesIn(group: string): Promise<number[]> {
  const list = await readFile(join(await hierarchy(), group, 'cgroup.procs'), 'utf8').catch(() => '')
  return list.split('\n').filter(Boolean).map(Number)
}

/** Whether anything runs in the group or below it. */
export async function isPopulated(group: string): Promise<boolean> {
  const events = await readFile(join(await hierarchy(), group, 'cgroup.events'), 'utf8').catch(() => '')
  return /^populated 1$/m.test(events)
}

/** Ends every process of the group and below it, at once and without asking, and removes the group. */
export async function endGroup(group: string): Promise<void> {
  const directory = join(await hierarchy(), group)
  const deadline = Date.now() + 15_000
  while (await isPopulated(group)) {
    await writeFile(join(directory, 'cgroup.kill'), '1').catch(() => {})
    if (Date.now() > deadline) throw new LabError(`processes in ${directory} do not end, though killed`)
    await sleep(20)
  }
  await removeGroups(directory)
  if (hasNamed()) await removeGroups(join(named, group))
}

async function removeGroups(directory: string): Promise<void> {
  if (!existsSync(directory)) return
  for (const entry of await readdir(directory, { withFileTypes: true }).catch(() => [])) {
    if (entry.isDirectory()) await removeGroups(join(directory, entry.name))
  }
  // Just emptied, a group can be busy for a moment.
  for (let attempt = 0; attempt < 50; attempt++) {
    const failure = await rmdir(directory).then(
      () => undefined,
      (error: NodeJS.ErrnoException) => error.code,
    )
    if (failure !== 'EBUSY') return
    await sleep(20)
  }
}
