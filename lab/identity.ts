/** What makes a host itself: its name, keys, users. Written into its disk before the first boot. */
import { randomUUID } from 'node:crypto'
import { existsSync } from 'node:fs'
import { appendFile, chmod, chown, mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { command } from './command.js'
import { filesOfHost } from './paths.js'

/** The user with whom the service logs in. */
export const loginUser = 'admin'

/** The number that the golden tree gives this user. */
const loginUid = 1000

/** A name and its address. */
export interface Neighbour {
  name: string
  address: string
}

/** The line that names a host in /etc/hosts. */
export const hostsLine = ({ name, address }: Neighbour): string => `${address}\t${name}\n`

/** Writes the disk of a new host; returns the fingerprint of its ed25519 host key. */
export async function writeIdentity(
  lab: string,
  host: string,
  options: { publicKeys: readonly string[]; sudo: boolean; neighbours: readonly Neighbour[] },
): Promise<string> {
  const files = filesOfHost(lab, host)
  for (const directory of [files.upper, files.work, files.root]) await mkdir(directory, { recursive: true })
  const disk = (path: string) => join(files.upper, path)
  for (const directory of ['etc/ssh', 'etc/sudoers.d', 'home']) await mkdir(disk(directory), { recursive: true })

  await writeFile(disk('etc/hostname'), `${host}\n`)
  await writeFile(disk('etc/machine-id'), `${randomUUID().replaceAll('-', '')}\n`)
  const localhost = '127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n'
  await writeFile(disk('etc/hosts'), localhost + options.neighbours.map(hostsLine).join(''))

  // A directory that is in both layers takes owner and mode from this one.
  const ssh = disk(`home/${loginUser}/.ssh`)
  await mkdir(ssh, { recursive: true })
  await writeFile(join(ssh, 'authorized_keys'), options.publicKeys.map(key => `${key.trim()}\n`).join(''))
  for (const path of [disk(`home/${loginUser}`), ssh, join(ssh, 'authorized_keys')]) {
    await chown(path, loginUid, loginUid)
    await chmod(path, path.endsWith('authorized_keys') ? 0o600 : 0o700)
  }
  await chmod(disk('etc/sudoers.d'), 0o750)
  if (options.sudo)
    await writeFile(disk('etc/sudoers.d/lab'), `${loginUser} ALL=(ALL) NOPASSWD: ALL\n`, { mode: 0o440 })
  return makeHostKeys(disk('etc/ssh'), host)
}

async function makeHostKeys(directory: string, host: string): Promise<string> {
  const path = (type: string) => join(directory, `ssh_host_${type}_key`)
  for (const type of ['ed25519', 'ecdsa']) {
    await command(['ssh-keygen', '-q', '-t', type, '-N', '', '-C', `root@${host}`, '-f', path(type)])
  }
  const { stdout } = await command(['ssh-keygen', '-l', '-E', 'sha256', '-f', `${path('ed25519')}.pub`])
  return stdout.split(' ')[1] ?? ''
}

/** Adds a neighbour to the disk of a host that does not run. */
export async function addToHostsFile(lab: string, host: string, neighbour: Neighbour): Promise<void> {
  await appendFile(join(filesOfHost(lab, host).upper, 'etc/hosts'), hostsLine(neighbour))
}

/** The public keys in a file, one a line. */
export async function readPublicKeys(path: string): Promise<string[]> {
  const text = existsSync(path) ? await readFile(path, 'utf8') : ''
  return text.split('\n').filter(line => /^(ssh|ecdsa|sk)-/.test(line))
}
