/** What the machine that carries the labs has to have installed. */
import { access, constants } from 'node:fs/promises'
import { join } from 'node:path'
import { command } from './command.js'
import { withLock } from './lock.js'

/** A command that labs need, and the Debian package that brings it. */
const needed: Record<string, string> = {
  debootstrap: 'debootstrap',
  'systemd-nspawn': 'systemd-container',
  ip: 'iproute2',
  iptables: 'iptables',
  'ssh-keygen': 'openssh-client',
}

/** The keys that debootstrap checks Debian's signatures with; Ubuntu does not have them. */
const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg'

/** Whether there is such a command in the path, or in the directories of the administrator. */
export async function hasCommand(name: string): Promise<boolean> {
  const directories = [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/sbin', '/usr/bin', '/bin']
  for (const directory of directories) {
    if (directory !== '' && (await exists(join(directory, name), constants.X_OK))) return true
  }
  return false
}

async function exists(path: string, mode = constants.F_OK): Promise<boolean> {
  return access(path, mode).then(
    () => true,
    () => false,
  )
}

async function missingPackages(): Promise<string[]> {
  const missing = (await exists(keyring)) ? [] : ['debian-archive-keyring']
  for (const [name, brings] of Object.entries(needed)) if (!(await hasCommand(name))) missing.push(brings)
  return missing
}

/** Installs what is missing. Asks no repository when nothing is. */
export async function ensurePackages(log: (line: string) => void): Promise<void> {
  if ((await missingPackages()).length === 0) return
  await withLock('packages', async () => {
    const missing = await missingPackages()
    if (missing.length === 0) return
    log(`installing ${missing.join(', ')}`)
    // Another apt-get may be at work on this machine: wait for it.
    const apt = ['apt-get', '-o', 'DPkg::Lock::Timeout=300', '-qq']
    await command([...apt, 'update'], { timeoutMs: 300_000 })
    await command([...apt, 'install', '-y', '--no-install-recommends', ...missing], { timeoutMs: 600_000 })
  })
}
