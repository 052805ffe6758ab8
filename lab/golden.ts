/** The golden trees: a bare Debian each, built once, the lower layers of the lab hosts. */
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, readdir, rename, rm, stat, utimes } from 'node:fs/promises'
import { join } from 'node:path'
import { command } from './command.js'
import { withLock } from './lock.js'
import { ensurePackages } from './packages.js'
import { labDirectory } from './paths.js'
import { labNames, readHosts, readLab } from './state.js'

/** The releases that a host can have, and the PostgreSQL that each brings. */
export const suites = {
  bullseye: { debian: 11, postgres: 13 },
  bookworm: { debian: 12, postgres: 15 },
  trixie: { debian: 13, postgres: 17 },
} as const

export type Suite = keyof typeof suites

export const defaultSuite: Suite = 'bookworm'

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
const offered = (postgres: number) => [
  `postgresql-${postgres}`,
  `postgresql-client-${postgres}`,
  'postgresql-common',
  `postgresql-${postgres}-repmgr`,
  'repmgr',
  'repmgr-common',
  'rsync',
  'nftables',
  'ufw',
  'firewalld',
  'netbase',
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

/** 2 GiB. */
const MEMORY_KIB = 2_097_152

/** Runs inside the tree, after debootstrap. */
const recipe = (suite: Suite) => `
set -eu
export DEBIAN_FRONTEND=noninteractive

# The repository first, while the tree still knows the internet. One transaction: apt leaves out what the tree has.
apt-get clean
apt-get -qq update
apt-get -qq install --download-only --no-install-recommends -y ${offered(suites[suite].postgres).join(' ')}
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

# What a host of this size would say. All hosts share the machine below, and a database is set up for the memory that it sees.
cat > /etc/systemd/system/lab-memory.service <<'END'
[Unit]
DefaultDependencies=no
Before=sysinit.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -ec 'sed -E "s/^(MemTotal|MemFree|MemAvailable): .*/\\\\1: ${MEMORY_KIB} kB/" /proc/meminfo >/run/lab-meminfo; mount --bind /run/lab-meminfo /proc/meminfo'
END
mkdir -p /etc/systemd/system/sysinit.target.wants
ln -s ../lab-memory.service /etc/systemd/system/sysinit.target.wants/lab-memory.service
`

/** Runs in a copy of the tree: the packages that provisioning would install, and no server of theirs. */
const withPostgres = (suite: Suite) => `
set -eu
export DEBIAN_FRONTEND=noninteractive
mkdir -p /etc/postgresql-common/createcluster.d
echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.d/lab.conf
apt-get -q -y install postgresql-${suites[suite].postgres} postgresql-${suites[suite].postgres}-repmgr
rm /etc/postgresql-common/createcluster.d/lab.conf
# What the installation made that a host makes for itself.
rm -f /etc/machine-id /var/lib/dbus/machine-id
`

const mirror = (): string => process.env.UNDERSTUDY_LAB_MIRROR ?? 'http://deb.debian.org/debian'

/** Another recipe is another tree. The mirror is not part of it: it brings the same packages. */
const stamp = (suite: Suite) =>
  createHash('sha256')
    .update(JSON.stringify([suite, installed, recipe(suite)]))
    .digest('hex')
    .slice(0, 12)

/** The directory of the golden tree of this recipe; it may not be built yet. */
export const goldenTree = (suite: Suite): string => join(labDirectory(), `golden-${suite}-${stamp(suite)}`)

/** The same with PostgreSQL and repmgr installed: for hosts on which that is not what is looked at. */
export const postgresTree = (suite: Suite): string =>
  `${goldenTree(suite)}-${createHash('sha256').update(withPostgres(suite)).digest('hex').slice(0, 8)}`

/** Builds the golden tree of a suite unless it is there: about a minute, with the internet. Returns its directory. */
export async function ensureGoldenTree(suite: Suite, log: (line: string) => void): Promise<string> {
  return ensureTree(goldenTree(suite), log, async unfinished => {
    await contained([
      'debootstrap',
      '--variant=minbase',
      `--include=${installed.join(',')}`,
      suite,
      unfinished,
      mirror(),
    ])
    await contained(['chroot', unfinished, 'sh', '-c', recipe(suite)])
  })
}

/** The same of the tree with PostgreSQL: half a minute more. */
export async function ensurePostgresTree(suite: Suite, log: (line: string) => void): Promise<string> {
  const bare = await ensureGoldenTree(suite, log)
  return ensureTree(postgresTree(suite), log, async unfinished => {
    await contained(['cp', '-a', '--reflink=auto', bare, unfinished])
    await contained(['chroot', unfinished, 'sh', '-c', withPostgres(suite)])
  })
}

async function ensureTree(
  tree: string,
  log: (line: string) => void,
  build: (unfinished: string) => Promise<void>,
): Promise<string> {
  if (existsSync(tree)) {
    await touch(tree)
    return tree
  }
  await ensurePackages(log)
  await withLock('golden', async () => {
    if (existsSync(tree)) return
    await removeOldTrees()
    log(`building the golden tree ${tree} (about a minute, once)`)
    const started = Date.now()
    // A tree under its final name is a whole one: an interrupted build never counts.
    const unfinished = `${tree}.unfinished`
    await mkdir(labDirectory(), { recursive: true })
    await build(unfinished)
    await rename(unfinished, tree)
    await touch(tree)
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

const touch = (tree: string) => utimes(tree, new Date(), new Date())

/** Asked for within a day: somebody else's lab, of another checkout, may be about to stand on it. */
const isFresh = async (tree: string) =>
  !tree.endsWith('.unfinished') && Date.now() - (await stat(tree)).mtimeMs < 86_400_000

/** Trees of older recipes that no lab stands on, and what an interrupted build left. */
async function removeOldTrees(): Promise<void> {
  const kept = new Set((Object.keys(suites) as Suite[]).flatMap(suite => [goldenTree(suite), postgresTree(suite)]))
  for (const lab of await labNames()) {
    const record = await readLab(lab)
    if (record) kept.add(record.golden)
    for (const { golden } of await readHosts(lab)) if (golden) kept.add(golden)
  }
  for (const name of existsSync(labDirectory()) ? await readdir(labDirectory()) : []) {
    const tree = join(labDirectory(), name)
    if (name.startsWith('golden-') && !kept.has(tree) && !(await isFresh(tree)))
      await rm(tree, { recursive: true, force: true })
  }
}
