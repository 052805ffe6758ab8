/** A lab host as a machine: an overlay on the golden tree, booted by systemd-nspawn in its own network namespace. */
import { type ChildProcess, spawn } from 'node:child_process'
import { open, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { endGroup, groupOf, isPopulated, makeGroup, processesIn } from './cgroup.js'
import { type CommandOptions, type CommandResult, command, LabError } from './command.js'
import { filesOfHost, namespaceFile, namespaceOfHost, namespaceOfLab } from './paths.js'

const machineName = (lab: string, host: string) => `${lab}.${host}`

/**
 * The overlay is mounted in a mount namespace that ends with the machine: whatever kills it, no mount is left behind.
 * So is what systemd-nspawn keeps in /run: it cannot clean up there where /run is on a disk, and leaves files when it is killed.
 */
const mountScript = `
for procs in $KEEPER_GROUP; do echo $$ > "$procs"; done
exec unshare --mount --propagation private sh -e -c "$KEEP" sh "$@"`

/**
 * Told to keep its unit, systemd-nspawn leaves a reboot to the unit: it ends with 133. The unit is this loop. It stays in a group
 * below the machine's, because systemd-nspawn makes its own groups in the one that it is started in, which has to hold nothing else.
 */
const keepScript = `
mount -t overlay understudy-lab -o "lowerdir=$GOLDEN,upperdir=$UPPER,workdir=$WORK" "$ROOT"
mkdir -p /run/systemd/nspawn
mount -t tmpfs -o mode=0755 understudy-lab /run/systemd/nspawn
status=133
while [ $status = 133 ]; do
  status=0
  sh -e -c "$BOOT" sh "$@" || status=$?
done
exit $status`

const bootScript = `
for procs in $MACHINE_GROUP; do echo $$ > "$procs"; done
exec systemd-nspawn "$@"`

/** Starts a machine; it outlives this process. Its console goes to a file. */
export async function startMachine(
  lab: string,
  host: string,
  options: { golden: string; smallDisk: boolean },
): Promise<ChildProcess> {
  const files = filesOfHost(lab, host)
  const machineGroup = await makeGroup(groupOf(lab, host))
  const keeperGroup = await makeGroup(join(groupOf(lab, host), 'keeper'))
  const nspawn = [
    '--quiet',
    '--boot',
    '--settings=no',
    // There may be no systemd below to register with, and no unit to ask for.
    '--register=no',
    '--keep-unit',
    `--directory=${files.root}`,
    `--machine=${machineName(lab, host)}`,
    `--hostname=${host}`,
    `--network-namespace-path=${namespaceFile(namespaceOfHost(lab, host))}`,
    // Its own network is its own to change: firewall, a second address.
    '--capability=CAP_NET_ADMIN',
    '--resolv-conf=off',
    '--timezone=off',
    '--link-journal=no',
    '--console=read-only',
    ...(options.smallDisk ? [`--bind=${files.smallDisk}:/var/lib/postgresql`] : []),
  ]
  const log = await open(files.console, 'a')
  try {
    const machine = spawn('sh', ['-e', '-c', mountScript, 'sh', ...nspawn], {
      detached: true,
      stdio: ['ignore', log.fd, log.fd],
      env: {
        PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
        // From Debian 12 on it knows version 2 of the control groups only, whatever the system below has.
        SYSTEMD_NSPAWN_UNIFIED_HIERARCHY: '1',
        KEEP: keepScript,
        BOOT: bootScript,
        MACHINE_GROUP: machineGroup.join(' '),
        KEEPER_GROUP: keeperGroup.join(' '),
        GOLDEN: options.golden,
        UPPER: files.upper,
        WORK: files.work,
        ROOT: files.root,
      },
    })
    machine.unref()
    return machine
  } finally {
    await log.close()
  }
}

/** Ends a machine as a power cut would: nothing in it gets a word. Its disk stays. */
export async function killMachine(lab: string, host: string): Promise<void> {
  await endGroup(groupOf(lab, host))
}

/** Whether anything of the machine runs. */
export const machineRuns = (lab: string, host: string): Promise<boolean> => isPopulated(groupOf(lab, host))

/** The machine's init, as a process of the system below; undefined if it is off or only just starting. */
export async function initOf(lab: string, host: string): Promise<number | undefined> {
  const payload = join(groupOf(lab, host), 'payload')
  for (const pid of [...(await processesIn(join(payload, 'init.scope'))), ...(await processesIn(payload))]) {
    const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '')
    if (/^NSpid:.*\t1$/m.test(status)) return pid
  }
  return undefined
}

/** How to run a command inside a machine. */
export interface ExecOptions extends CommandOptions {
  /** Default root. */
  user?: string
}

/** The command line that runs `argv` inside a machine. */
export async function enter(lab: string, host: string, argv: readonly string[], user?: string): Promise<string[]> {
  const init = await initOf(lab, host)
  if (init === undefined) throw new LabError(`${host} is not running: power it on first`)
  const namespaces = ['--mount', '--uts', '--ipc', '--net', '--pid', '--cgroup']
  const as = user ? [`--reuid=${user}`, `--regid=${user}`, '--init-groups'] : []
  // pdeathsig: a command whose time is up ends inside the machine as well, not only its nsenter out here.
  const inside = [
    'setpriv',
    ...as,
    '--reset-env',
    '--pdeathsig=KILL',
    '--',
    'env',
    'LC_ALL=C.UTF-8',
    'DEBIAN_FRONTEND=noninteractive',
  ]
  return ['nsenter', `--target=${init}`, ...namespaces, '--', ...inside, ...argv]
}

/** Runs a command inside a machine, without SSH. */
export async function execInside(
  lab: string,
  host: string,
  argv: readonly string[],
  options: ExecOptions = {},
): Promise<CommandResult> {
  const { user, ...rest } = options
  return command(await enter(lab, host, argv, user), { shownAs: `${host}: ${argv.join(' ')}`, ...rest })
}

/** Connects from the parent namespace, where the service will. */
const greeting = `
until (exec 3<>"/dev/tcp/$1/22" && IFS= read -r -t 2 line <&3 && [[ $line == SSH-* ]]) 2>/dev/null; do sleep 0.05; done`

/** Waits until a host's sshd answers; fails early when the machine given ends. */
export async function waitForSshd(lab: string, host: string, address: string, machine?: ChildProcess): Promise<void> {
  const namespace = namespaceFile(namespaceOfLab(lab))
  const stop = new AbortController()
  const greeted = command(['nsenter', `--net=${namespace}`, 'bash', '-c', greeting, 'bash', address], {
    timeoutMs: 60_000,
    signal: stop.signal,
  })
  const ended = new Promise<never>((_, reject) => {
    machine?.once('exit', () => reject(new LabError('the machine ended')))
    machine?.once('error', reject)
  })
  try {
    await Promise.race([greeted, ended])
  } catch (cause) {
    greeted.catch(() => {})
    stop.abort()
    const console = await readFile(filesOfHost(lab, host).console, 'utf8').catch(() => '')
    const last = console.trim().split('\n').slice(-5).join('\n')
    throw new LabError(`${host} does not answer on ${address}:22. Its console says:\n${last}`, { cause })
  }
}

/** Waits until a machine has another init than before: it has rebooted. */
export async function waitForOtherInit(lab: string, host: string, before: number | undefined): Promise<void> {
  const deadline = Date.now() + 60_000
  for (;;) {
    const now = await initOf(lab, host)
    if (now !== undefined && now !== before) return
    if (Date.now() > deadline) throw new LabError(`${host} did not reboot within 60 s`)
    await sleep(50)
  }
}
