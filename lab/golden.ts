/** The golden tree: a bare Debian 12, built once, the lower layer of every lab host. */
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, readdir, readFile, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { command } from './command.js'
import { withLock } from './lock.js'
import { ensurePackages } from './packages.js'
import { labDirectory } from './paths.js'

const release = 'bookworm'

/** On every lab host from the start. No PostgreSQL: putting it there is what provisioning is for. */
const installed = [
  'systemd',
  'systemd-sysv',
  'dbus',
  'openssh-server',
  'sudo',
  'iproute2',
  'iputils-ping',
  'procps',
  'ca-certificates',
  'apt-utils',
]

/** In the host's own repository, with all that they depend on, for `apt-get install` without the internet. */
const offered = [
  'postgresql-15',
  'postgresql-client-15',
  'postgresql-common',
  'postgresql-15-repmgr',
  'repmgr',
  'repmgr-common',
  'rsync',
  'nftables',
]

/** Nothing that a person at a console, a real disk or a calendar would need: a host has to boot in seconds. */
const masked = [
  'apt-daily.timer',
  'apt-daily-upgrade.timer',
  'console-getty.service',
  'container-getty@.service',
  'dev-hugepages.mount',
  'dpkg-db-backup.timer',
  'e2scrub_all.timer',
  'e2scrub_reap.service',
  'fstrim.timer',
  'getty-static.service',
  'getty.target',
  'getty@.service',
  'systemd-firstboot.service',
  'systemd-logind.service',
  'systemd-networkd-wait-online.service',
  'systemd-pstore.service',
  'systemd-tmpfiles-clean.timer',
  'systemd-update-utmp-runlevel.service',
  'systemd-update-utmp.service',
]

/** Runs inside the tree, after debootstrap. */
const recipe = `
set -eu
export DEBIAN_FRONTEND=noninteractive

# The repository first, while the tree still knows the internet. One transaction: apt leaves out what the tree has.
apt-get clean
apt-get -qq update
apt-get -qq install --download-only --no-install-recommends -y ${offered.join(' ')}
mkdir -p /srv/debian
mv /var/cache/apt/archives/*.deb /srv/debian/
cd /srv/debian
apt-ftparchive packages . > Packages
apt-ftparchive release . > Release
echo 'deb [trusted=yes] file:/srv/debian ./' > /etc/apt/sources.list
rm -rf /var/lib/apt/lists/* /etc/resolv.conf
apt-get -qq update

# A crash of the machine below may cost a lab its disks; it is not worth a sync for each unpacked file.
echo force-unsafe-io > /etc/dpkg/dpkg.cfg.d/lab

useradd --create-home --shell /bin/bash --uid 1000 admin
install -d -m 700 -o admin -g admin /home/admin/.ssh

printf '%s\\n' 'PasswordAuthentication no' 'KbdInteractiveAuthentication no' 'PermitRootLogin no' > /etc/ssh/sshd_config.d/lab.conf

# These are what makes a host itself: each gets its own when it is made.
rm -f /etc/ssh/ssh_host_* /etc/hostname /etc/machine-id /var/lib/dbus/machine-id

for unit in ${masked.join(' ')}; do ln -sf /dev/null "/etc/systemd/system/$unit"; done
`

const mirror = (): string => process.env.UNDERSTUDY_LAB_MIRROR ?? 'http://deb.debian.org/debian'

/** Another recipe is another tree. The mirror is not part of it: it brings the same packages. */
const stamp = createHash('sha256')
  .update(JSON.stringify([release, installed, recipe]))
  .digest('hex')
  .slice(0, 12)

/** The directory of the golden tree of this recipe; it may not be built yet. */
export const goldenTree = (): string => join(labDirectory(), `golden-${release}-${stamp}`)

/** Builds the golden tree unless it is there: about a minute, with the internet. Returns its directory. */
export async function ensureGoldenTree(log: (line: string) => void): Promise<string> {
  const tree = goldenTree()
  if (existsSync(tree)) return tree
  await ensurePackages(log)
  await withLock('golden', async () => {
    if (existsSync(tree)) return
    await removeOldTrees()
    log(`building the golden tree ${tree} (about a minute, once)`)
    const started = Date.now()
    // A tree under its final name is a whole one: an interrupted build never counts.
    const unfinished = `${tree}.unfinished`
    await mkdir(labDirectory(), { recursive: true })
    await contained([
      'debootstrap',
      '--variant=minbase',
      `--include=${installed.join(',')}`,
      release,
      unfinished,
      mirror(),
    ])
    await contained(['chroot', unfinished, 'sh', '-c', recipe])
    await rename(unfinished, tree)
    log(`built the golden tree in ${Math.round((Date.now() - started) / 1000)} s`)
  })
  return tree
}

/**
 * Runs a step of the build so that it ends with this process, and so that what it mounts (debootstrap mounts /proc and /sys in the tree)
 * goes away with it: removing an unfinished tree must never reach through such a mount.
 */
async function contained(argv: string[]): Promise<void> {
  const own = ['unshare', '--mount', '--propagation', 'private', '--pid', '--fork', '--kill-child', '--mount-proc']
  await command(['setpriv', '--pdeathsig', 'KILL', ...own, ...argv], {
    timeoutMs: 1_200_000,
    env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' },
  })
}

/** Trees of older recipes that no lab stands on, and what an interrupted build left. */
async function removeOldTrees(): Promise<void> {
  const inUse = new Set<string>()
  const labs = join(labDirectory(), 'labs')
  for (const lab of existsSync(labs) ? await readdir(labs) : []) {
    const record = await readFile(join(labs, lab, 'lab.json'), 'utf8').catch(() => '{}')
    inUse.add((JSON.parse(record) as { golden?: string }).golden ?? '')
  }
  for (const name of existsSync(labDirectory()) ? await readdir(labDirectory()) : []) {
    const tree = join(labDirectory(), name)
    if (name.startsWith('golden-') && !inUse.has(tree)) await rm(tree, { recursive: true, force: true })
  }
}
