/** Whether this system can carry a lab at all. */
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { command } from './command.js'
import { hasCommand } from './packages.js'
import { labDirectory } from './paths.js'

const instead = 'Try a virtual machine with Debian 12, as root.'

/** One plain sentence on why this system cannot run a lab, and what to do instead; undefined if it can. */
export async function whatIsMissing(): Promise<string | undefined> {
  if (process.platform !== 'linux') return `Lab hosts need Linux; this is ${process.platform}. ${instead}`
  if (process.getuid?.() !== 0) return 'Lab hosts need root (mounts, network namespaces). Repeat it with sudo.'
  if (!(await hasCommand('apt-get'))) return `Lab hosts need Debian or Ubuntu: there is no apt-get here. ${instead}`
  if (!(await works(['unshare', '--net', '--mount', '--pid', '--fork', 'true']))) {
    return `This system does not let root make namespaces (a container without privileges?). ${instead}`
  }
  if (!(await overlayWorks())) {
    return `No overlay file system can be mounted in ${labDirectory()}: name a directory on ext4 or xfs by UNDERSTUDY_LAB_DIR. ${instead}`
  }
  return undefined
}

const works = async (argv: string[]) =>
  (await command(argv, { reject: false }).catch(() => ({ exitCode: 1 }))).exitCode === 0

/** By trying: /proc/filesystems does not name a module that is not loaded yet, and not every directory can be the upper layer. */
async function overlayWorks(): Promise<boolean> {
  try {
    await mkdir(labDirectory(), { recursive: true })
    const probe = await mkdtemp(join(labDirectory(), 'probe-'))
    try {
      const script =
        'cd "$1" && mkdir l u w r && mount -t overlay probe -o lowerdir=l,upperdir=u,workdir=w r && touch r/file && test -e u/file'
      return await works(['unshare', '--mount', '--propagation', 'private', 'sh', '-c', script, 'sh', probe])
    } finally {
      await rm(probe, { recursive: true, force: true })
    }
  } catch {
    return false
  }
}
