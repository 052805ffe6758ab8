/**
 * One service a state directory: a file that is locked with flock(2). The kernel lets go of it when the service ends in
 * whatever way, and it counts between containers that share the directory too, where process ids mean nothing.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs'

/** Thrown when another living service uses the same state directory. */
export class StateDirectoryInUse extends Error {
  constructor(directory: string, holder: string) {
    super(`The state directory ${directory} is in use by ${holder}. Stop that one, or set UNDERSTUDY_STATE_DIR.`)
    this.name = 'StateDirectoryInUse'
  }
}

export async function takeProcessLock(directory: string): Promise<() => Promise<void>> {
  const path = `${directory}/service.lock`
  // A number and no FileHandle, which would be closed, and the lock lost, once nobody refers to it any more.
  const file = openSync(path, 'a', 0o600)
  try {
    if (!(await lock(file))) {
      const pid = readFileSync(path, 'utf8').trim()
      throw new StateDirectoryInUse(directory, pid === '' ? 'another process' : `process ${pid}`)
    }
    // For people alone. The file stays: a new one of the same name would be another lock.
    ftruncateSync(file)
    writeSync(file, `${process.pid}\n`)
  } catch (error) {
    closeSync(file)
    throw error
  }
  return async () => closeSync(file)
}

/** Node cannot lock files. flock(1) locks the open file that it was given, and that file stays open here. */
async function lock(file: number): Promise<boolean> {
  const flock = spawn('flock', ['--nonblock', '3'], { stdio: ['ignore', 'ignore', 'ignore', file] })
  const [code] = (await once(flock, 'exit')) as [number | null]
  if (code !== 0 && code !== 1) throw new Error(`flock (of util-linux) ended with exit ${code}`)
  return code === 0
}
