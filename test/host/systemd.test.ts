/**
 * What differs on a host with systemd, seen on a lab host: units, their control groups, a power cut. The test needs to
 * be in the lab's network, so it makes the lab and then runs itself again in there.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { bringUpLab, openLab, takeLabDown, whatIsMissing } from '../../lab/lab.js'
import {
  cancelDetached,
  type DetachedCommand,
  followDetached,
  forgetDetached,
  inspectDetached,
  startDetached,
} from '../../src/host/detached.js'
import { CommandTimedOut, DetachedCommandLost, GuardBusy, Superseded } from '../../src/host/errors.js'
import { guarded } from '../../src/host/guard.js'
import { type Host, openHostPool } from '../../src/host/host.js'
import { generateIdentity } from '../../src/host/identity.js'
import { readSystemFacts } from '../../src/host/system.js'
import { until } from '../fixtures/sshd.js'

// The first run on a machine builds the golden tree as well.
t.setTimeout(600_000)

const [lab, directory] = [process.env.UNDERSTUDY_TEST_LAB, process.env.UNDERSTUDY_TEST_DIRECTORY]
if (lab === undefined || directory === undefined) await outside()
else await inside(lab, directory)

async function outside(): Promise<void> {
  const missing = await whatIsMissing()
  t.test('on a lab host', async t => {
    if (missing) throw new Error(missing)
    const name = `h${process.pid}`
    const directory = mkdtempSync(join(tmpdir(), 'understudy-systemd-'))
    t.teardown(async () => {
      await takeLabDown(name)
      rmSync(directory, { recursive: true })
    })
    const identity = generateIdentity('understudy test')
    writeFileSync(join(directory, 'key'), identity.privateKey, { mode: 0o600 })
    const up = await bringUpLab({ name, publicKeys: [identity.publicKey], log: line => t.comment(line) })
    await up.addHost('h1')
    const env = { ...process.env, UNDERSTUDY_TEST_LAB: name, UNDERSTUDY_TEST_DIRECTORY: directory }
    const file = fileURLToPath(import.meta.url)
    // Not `ip netns exec`: it hides /sys, and with it the control groups by which the lab ends its machines.
    const argv = [`--net=/run/netns/${up.namespace}`, process.execPath, ...process.execArgv, file]
    await t.spawn('nsenter', argv, { env, name: 'in its network' })
  })
}

async function inside(labName: string, directory: string): Promise<void> {
  const opened = await openLab(labName)
  const [labHost] = (await opened?.hosts()) ?? []
  if (!opened || !labHost) throw new Error(`there is no host in the lab ${labName}`)
  const lab = opened
  const { address, sshPort, loginUser, hostKey } = labHost
  const pool = openHostPool({
    identity: { privateKey: readFileSync(join(directory, 'key'), 'utf8') },
    keepaliveIntervalMs: 1000,
    connectTimeoutMs: 2000,
  })
  t.teardown(() => pool.close())
  const host = pool.host({ host: address, port: sshPort, user: loginUser, hostKey })
  const follow = { pollMs: 100, timeoutMs: 60_000 }
  const job = (id: string, script: string): DetachedCommand => ({
    id,
    command: { argv: ['sh', '-c', script, id], as: 'root', timeoutMs: 1 },
  })
  const ask = async (...argv: string[]) =>
    (await host.run({ argv, as: 'root', timeoutMs: 20_000 }, { acceptExit: [0, 1, 3] })).stdout.trim()
  const logOf = (id: string) => ask('cat', `/var/lib/understudy/jobs/${id}/log`)
  const sleepers = () => ask('pgrep', '-c', '-x', 'sleep')

  t.test('it is one', async t => {
    t.match(await readSystemFacts(host), {
      systemd: true,
      osId: 'debian',
      hostname: 'h1',
      controllerAddress: lab.gateway,
    })
  })

  t.test('a job is a unit with its own control group', async t => {
    const script = `echo "$HOME \${x:-unset} 100%"; cat /proc/self/cgroup; while [ ! -e /tmp/go ]; do sleep 0.05; done; exit 4`
    t.equal(await startDetached(host, job('unit', script)), 'started')
    t.strictSame(await inspectDetached(host, 'unit'), { state: 'running' })
    t.equal(await ask('systemctl', 'is-active', 'understudy-unit'), 'active')
    t.equal(await ask('systemctl', 'show', '--value', '-p', 'Type', 'understudy-unit'), 'exec')
    await ask('touch', '/tmp/go')
    const { exitCode, tail } = await followDetached(host, 'unit', follow)
    t.equal(exitCode, 4)
    t.match(tail, /^\/root unset 100%\n/)
    t.match(tail, 'system.slice/understudy-unit.service')
    t.equal(await startDetached(host, job('unit', 'true')), 'attached')
    t.equal(
      await ask('systemctl', 'list-units', '--all', '--plain', '--no-legend', 'understudy-*'),
      '',
      'none is left over',
    )
    await forgetDetached(host, 'unit')
    t.strictSame(await inspectDetached(host, 'unit'), { state: 'absent' })
  })

  t.test('started many times at once, it runs once', async t => {
    const answers = await Promise.all(Array.from({ length: 8 }, () => startDetached(host, job('once', 'echo ran'))))
    t.equal(answers.filter(answer => answer === 'started').length, 1)
    t.strictSame(await followDetached(host, 'once', follow), { exitCode: 0, tail: 'ran' })
  })

  t.test('the login user in a job, and a user that is not there', async t => {
    const guard = { scope: 'users', epoch: 1, waitMs: 5000 }
    await startDetached(host, { id: 'login', command: { argv: ['id', '-un'], as: 'login', timeoutMs: 1 }, guard })
    t.strictSame(await followDetached(host, 'login', follow), { exitCode: 0, tail: loginUser })
    await startDetached(host, { id: 'nobody', command: { argv: ['id'], as: 'postgres', timeoutMs: 1 } })
    t.match(await followDetached(host, 'nobody', follow), { exitCode: 1, tail: /there is no user postgres/ })
  })

  t.test('cancel empties the control group', async t => {
    await startDetached(host, job('cancel', 'sh -c "sleep 300 & sleep 300; :" & setsid sleep 300 & echo up; wait'))
    await until(async () => (await sleepers()) === '3')
    await cancelDetached(host, 'cancel')
    t.equal(await sleepers(), '0')
    t.strictSame(await inspectDetached(host, 'cancel'), { state: 'exited', exitCode: 143 })
  })

  t.test('a job whose first process is killed takes the others with it, and is lost', async t => {
    await startDetached(host, job('killed', 'echo up; sleep 300; :'))
    await until(async () => (await logOf('killed')) === 'up')
    await ask('systemctl', 'kill', '--kill-who=main', '-s', 'KILL', 'understudy-killed')
    await t.rejects(followDetached(host, 'killed', follow), DetachedCommandLost)
    t.equal(await sleepers(), '0')
  })

  t.test('the guard holds for as long as the job', async t => {
    const guard = { scope: 'main', epoch: 2, waitMs: 0 }
    await startDetached(host, { ...job('guard', 'echo up; while [ ! -e /tmp/end ]; do sleep 0.05; done'), guard })
    await until(async () => (await logOf('guard')) === 'up')
    const quick = { argv: ['true'], as: 'root', timeoutMs: 5000 } as const
    await t.rejects(host.run(guarded(quick, guard)), GuardBusy)
    await ask('touch', '/tmp/end')
    t.match(await followDetached(host, 'guard', follow), { exitCode: 0 })
    await t.rejects(host.run(guarded(quick, { ...guard, epoch: 1 })), Superseded)
  })

  t.test('a command behind sudo is ended when its time is up', async t => {
    const sleeping = host.run({ argv: ['sh', '-c', 'sleep 300; :'], as: 'root', timeoutMs: 500 })
    await t.rejects(sleeping, CommandTimedOut)
    t.equal(await sleepers(), '0')
  })

  t.test('a cable that is pulled for a while', async t => {
    await startDetached(host, job('cable', 'i=0; while [ $i -lt 80 ]; do i=$((i+1)); echo "line $i"; sleep 0.1; done'))
    const lines: string[] = []
    const followed = followDetached(host, 'cable', { ...follow, onLine: line => lines.push(line) })
    await until(() => lines.length > 5)
    await lab.linkDown(labHost.name)
    // The connection is given up once its keepalives have gone unanswered.
    await until(() => lostContact(host))
    await lab.linkUp(labHost.name)
    t.match(await followed, { exitCode: 0 })
    t.strictSame(
      lines,
      Array.from({ length: 80 }, (_, index) => `line ${index + 1}`),
    )
  })

  t.test('a power cut loses the job, and not what it was', async t => {
    await startDetached(host, job('power', 'while :; do date; sleep 0.1; done'))
    let lines = 0
    const followed = followDetached(host, 'power', {
      ...follow,
      onLine: () => {
        lines += 1
      },
    })
    await until(() => lines > 3)
    const lost = t.rejects(followed, DetachedCommandLost)
    await lab.powerOff(labHost.name)
    await lab.powerOn(labHost.name)
    await lost
    t.equal(await startDetached(host, job('power', 'true')), 'attached', 'it is not run a second time')
  })
}

async function lostContact(host: Host): Promise<boolean> {
  const error = await host.run({ argv: ['true'], as: 'login', timeoutMs: 10_000 }).then(
    () => undefined,
    (thrown: { code: string }) => thrown.code,
  )
  return error === 'host-unreachable' || error === 'connection-lost'
}
