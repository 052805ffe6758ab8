/** One service a state directory: a file that names a process, believed only while that very process lives. */
import { readFile, rename, rm, writeFile } from 'node:fs/promises'

/** Thrown when another living service uses the same state directory. */
export class StateDirectoryInUse extends Error {
  constructor(directory: string, pid: number) {
    super(`The state directory ${directory} is in use by process ${pid}. Stop that one, or set UNDERSTUDY_STATE_DIR.`)
    this.name = 'StateDirectoryInUse'
  }
}

export async function takeProcessLock(directory: string): Promise<() => Promise<void>> {
  const path = `${directory}/service.pid`
  const holder = await readFile(path, 'utf8').catch(() => '')
  const [pid = 0, startedAt = ''] = holder
    .trim()
    .split(' ')
    .map((part, index) => (index === 0 ? Number(part) : part)) as [number?, string?]
  if (pid > 0 && pid !== process.pid && (await processStart(pid)) === startedAt)
    throw new StateDirectoryInUse(directory, pid)
  const temporary = `${path}.${process.pid}`
  await writeFile(temporary, `${process.pid} ${await processStart(process.pid)}\n`, { mode: 0o600 })
  await rename(temporary, path)
  return () => rm(path, { force: true })
}

/** Field 22 of /proc/PID/stat: a process id that was used again has another start time. */
async function processStart(pid: number): Promise<string | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined)
  return stat?.slice(stat.lastIndexOf(')') + 2).split(' ')[19]
}
