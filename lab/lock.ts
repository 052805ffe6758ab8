/** A lock between processes, which the kernel takes back from one that dies. */
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { execa } from 'execa'
import { LabError } from './command.js'
import { labDirectory } from './paths.js'

/** Runs `work` while no other process holds the lock of this name. Not to be nested for one name. */
export async function withLock<T>(name: string, work: () => Promise<T>): Promise<T> {
  const directory = join(labDirectory(), 'locks')
  await mkdir(directory, { recursive: true })
  // Node has no flock(2). `flock` holds it for as long as `cat` reads from us: when this process dies, however it dies, cat sees the end.
  const holder = execa('flock', [join(directory, `${name}.lock`), 'sh', '-c', 'echo held; cat >/dev/null'], {
    reject: false,
  })
  try {
    await new Promise<void>((resolve, reject) => {
      holder.stdout.once('data', () => resolve())
      holder.once('exit', () => reject(new LabError(`cannot take the lock "${name}" in ${directory}`)))
      holder.once('error', reject)
    })
    return await work()
  } finally {
    holder.stdin.end()
    await holder
  }
}
