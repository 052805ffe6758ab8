import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import type { Command } from '../../src/host/command.js'
import {
  cancelDetached,
  type DetachedCommand,
  followDetached,
  forgetDetached,
  inspectDetached,
  startDetached,
} from '../../src/host/detached.js'
import { STATE, UNDECIDED } from '../../src/host/detached-scripts.js'
import {
  CommandFailed,
  CommandTimedOut,
  DetachedCommandLost,
  DetachedCommandUnwatched,
  GuardBusy,
  Superseded,
} from '../../src/host/errors.js'
import { guarded } from '../../src/host/guard.js'
import { type Host, openHostPool } from '../../src/host/host.js'
import { OperationCancelled } from '../../src/operations/errors.js'
import { createUser, processesWith, startSshd, until } from '../fixtures/sshd.js'

const JOBS = '/var/lib/understudy/jobs'
const scope = `test-${process.pid}-jobs`

let count = 0
const newId = () => `test-${process.pid}-${++count}`
const job = (id: string, script: string, ...words: string[]): DetachedCommand => ({
  id,
  command: { argv: ['sh', '-c', script, id, ...words], as: 'root', timeoutMs: 1 },
})
/** Holds a job until the file is removed. */
const whileThere = (flag: string) => `while [ -e ${flag} ]; do sleep 0.05; done`

/** Every process of a job, by what it has in its environment. */
function processesNamed(id: string): number[] {
  return readdirSync('/proc')
    .filter(name => /^\d+$/.test(name))
    .map(Number)
    .filter(pid => {
      try {
        return readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0').includes(`UNDERSTUDY_JOB=${id}`)
      } catch {
        return false
      }
    })
}

async function errorOf(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    value => new Error(`no error, but ${JSON.stringify(value)}`),
    error => error,
  )
}

t.test('detached', async t => {
  const sshd = await startSshd()
  const options = { identity: { privateKey: sshd.privateKey }, connectTimeoutMs: 3000 }
  const pool = openHostPool(options)
  const user = createUser({ sudo: true })
  const host = pool.host(sshd.address())
  const follow = { pollMs: 50, timeoutMs: 30_000 }
  const ids: string[] = []
  const fresh = () => {
    const id = newId()
    ids.push(id)
    return id
  }
  const flagOf = (id: string) => {
    const flag = `/tmp/understudy-${id}.flag`
    writeFileSync(flag, '')
    return flag
  }
  t.teardown(async () => {
    for (const id of ids) {
      rmSync(`/tmp/understudy-${id}.flag`, { force: true })
      await cancelDetached(host, id)
      await forgetDetached(host, id)
    }
    await pool.close()
    await sshd.stop()
    user.remove()
    for (const end of ['lock', 'epoch']) rmSync(`/var/lib/understudy/${scope}.${end}`, { force: true })
  })

  await t.test('from start to end', async t => {
    const id = fresh()
    const flag = flagOf(id)
    t.strictSame(await inspectDetached(host, id), { state: 'absent' })
    const script = `id -un; pwd; echo "$HOME"; echo to stderr >&2; ${whileThere(flag)}; echo last; exit 3`
    const command: Command = { argv: ['sh', '-c', script], as: 'postgres', cwd: '/tmp', timeoutMs: 1 }
    t.equal(await startDetached(host, { id, command }), 'started')
    t.strictSame(await inspectDetached(host, id), { state: 'running' })
    const lines: string[] = []
    const followed = followDetached(host, id, { ...follow, onLine: line => lines.push(line) })
    await until(() => lines.length === 4)
    t.strictSame(lines, ['postgres', '/tmp', '/var/lib/postgresql', 'to stderr'], 'while it runs')
    rmSync(flag)
    t.strictSame(await followed, { exitCode: 3, tail: 'postgres\n/tmp\n/var/lib/postgresql\nto stderr\nlast' })
    t.strictSame(await inspectDetached(host, id), { state: 'exited', exitCode: 3 })
    t.equal(readFileSync(`${JOBS}/${id}/exit`, 'utf8'), '3\n')
    t.equal(statSync(JOBS).mode & 0o777, 0o700, 'a log may hold anything')
    t.equal(await startDetached(host, { id, command }), 'attached', 'one that has ended is not started again')
    t.match(await followDetached(host, id, follow), { exitCode: 3 })
    await forgetDetached(host, id)
    t.strictSame(await inspectDetached(host, id), { state: 'absent' })
    t.notOk(existsSync(`${JOBS}/${id}`))
    await forgetDetached(host, id)
  })

  await t.test('started many times at once, also over several connections, it runs once', async t => {
    const id = fresh()
    const flag = flagOf(id)
    const pools = [openHostPool(options), openHostPool(options), openHostPool(options)]
    t.teardown(() => Promise.all(pools.map(other => other.close())))
    const hosts = [host, ...pools.map(other => other.host(sshd.address()))]
    const answers = await Promise.all(
      [...hosts, ...hosts].map(each => startDetached(each, job(id, `echo ran; ${whileThere(flag)}`))),
    )
    t.equal(answers.filter(answer => answer === 'started').length, 1, answers.join())
    t.equal(answers.length, 8)
    rmSync(flag)
    t.strictSame(await followDetached(host, id, follow), { exitCode: 0, tail: 'ran' })
  })

  await t.test('a start waits while another start of the same job is not done', async t => {
    const id = fresh()
    const flag = flagOf(id)
    const holding = host.run({
      argv: ['flock', `${JOBS}/${id}.lock`, 'sh', '-c', whileThere(flag)],
      as: 'root',
      timeoutMs: 20_000,
    })
    await until(() => existsSync(`${JOBS}/${id}.lock`) && processesWith(whileThere(flag)).length > 1)
    const starting = startDetached(host, job(id, 'echo ran'))
    await until(() => processesWith('flock -w 50 8').length > 0)
    t.notOk(existsSync(`${JOBS}/${id}`))
    rmSync(flag)
    await holding
    t.equal(await starting, 'started')
    t.strictSame(await followDetached(host, id, follow), { exitCode: 0, tail: 'ran' })
  })

  await t.test('by a login user through sudo, as each user', async t => {
    const other = pool.host(sshd.address({ user: user.name }))
    for (const [as, name] of [
      ['login', user.name],
      ['postgres', 'postgres'],
      ['root', 'root'],
    ] as const) {
      for (const guard of [undefined, { scope, epoch: 1, waitMs: 5000 }]) {
        const id = fresh()
        const command: Command = { argv: ['id', '-un'], as, timeoutMs: 1 }
        await startDetached(other, { id, command, ...(guard && { guard }) })
        t.strictSame(await followDetached(other, id, follow), { exitCode: 0, tail: name })
      }
    }
  })

  await t.test('it goes on without us, and is followed through a restart of sshd', async t => {
    const id = fresh()
    const flag = flagOf(id)
    const script = `i=0; while [ -e ${flag} ]; do i=$((i+1)); echo "line $i"; sleep 0.02; done; echo "total $i"`
    await startDetached(host, job(id, script))
    const lines: string[] = []
    const followed = followDetached(host, id, { ...follow, onLine: line => lines.push(line) })
    await until(() => lines.length > 3)
    await sshd.kill()
    const before = lines.length
    // The log grows while nobody can look.
    const logBytes = () => statSync(`${JOBS}/${id}/log`).size
    const bytes = logBytes()
    await until(() => logBytes() > bytes + 100)
    await sshd.start()
    await until(() => lines.length > before + 10)
    rmSync(flag)
    const { exitCode } = await followed
    t.equal(exitCode, 0)
    const total = lines.length - 1
    t.strictSame(lines, [...Array.from({ length: total }, (_, index) => `line ${index + 1}`), `total ${total}`])
  })

  await t.test('following gives up when the host is away for too long', async t => {
    const id = fresh()
    const flag = flagOf(id)
    await startDetached(host, job(id, whileThere(flag)))
    const followed = errorOf(followDetached(host, id, { ...follow, reconnectMs: 400 }))
    await sshd.kill()
    const error = await followed
    // Not in touch even once: the command was started all the same.
    const never = await errorOf(followDetached(host, id, { ...follow, reconnectMs: 0 }))
    await sshd.start()
    for (const each of [error, never]) {
      t.ok(each instanceof DetachedCommandUnwatched, String(each))
      t.match(each, { code: 'connection-lost', outcome: 'unknown', remedy: /goes on without us.* repeat of the call/ })
    }
    t.strictSame(await inspectDetached(host, id), { state: 'running' })
  })

  await t.test('a host that shows another key is not asked again, and the job may go on all the same', async t => {
    const id = fresh()
    await startDetached(host, job(id, 'true'))
    const impostor = pool.host(sshd.address({ hostKey: `SHA256:${'A'.repeat(43)}` }))
    const error = await errorOf(followDetached(impostor, id, follow))
    t.match(error, { code: 'host-key-mismatch', outcome: 'unknown', remedy: /goes on without us.*attack/ })
  })

  await t.test('cancel ends children and grandchildren, also those that left the session', async t => {
    const id = fresh()
    const script = `sh -c 'sh -c "sleep 300; :" ${id}-grandchild & sleep 300; :' ${id}-child & setsid sh -c "sleep 300; :" ${id}-away & echo up; wait`
    await startDetached(host, job(id, script))
    await until(() => ['grandchild', 'child', 'away'].every(name => processesWith(`${id}-${name}`).length > 0))
    await cancelDetached(host, id)
    t.strictSame(processesWith(id), [], 'when it returns, all are gone')
    t.match(await inspectDetached(host, id), { state: 'exited' })
    t.match(await followDetached(host, id, follow), { exitCode: 143, tail: /^up/ })
    await cancelDetached(host, id)
    await cancelDetached(host, newId())
  })

  await t.test('cancel ends what does not want to end', async t => {
    const id = fresh()
    await startDetached(host, job(id, "trap '' TERM; echo up; while :; do sleep 1; done"))
    await until(() => readFileSync(`${JOBS}/${id}/log`, 'utf8') === 'up\n')
    await cancelDetached(host, id)
    t.strictSame(processesWith(id), [])
    t.strictSame(await inspectDetached(host, id), { state: 'exited', exitCode: 137 })
  })

  await t.test('lost: killed without a word', async t => {
    const id = fresh()
    await startDetached(host, job(id, 'echo up; sleep 300; :'))
    await until(() => readFileSync(`${JOBS}/${id}/log`, 'utf8') === 'up\n')
    const followed = errorOf(followDetached(host, id, follow))
    // The one that would write the exit status first.
    const [leader] = readFileSync(`${JOBS}/${id}/began`, 'utf8').split(' ')
    process.kill(Number(leader), 'SIGKILL')
    for (const pid of processesNamed(id)) process.kill(pid, 'SIGKILL')
    const error = await followed
    t.ok(error instanceof DetachedCommandLost, String(error))
    t.match(error, { outcome: 'unknown', output: 'up' })
    t.strictSame(await inspectDetached(host, id), { state: 'lost' })
    t.equal(
      await startDetached(host, job(id, 'echo again')),
      'attached',
      'what may have done something is not repeated',
    )
  })

  await t.test('lost: the host was restarted, or the number belongs to another process now', async t => {
    const id = fresh()
    const flag = flagOf(id)
    await startDetached(host, job(id, whileThere(flag)))
    const began = `${JOBS}/${id}/began`
    const [pid, start, boot] = readFileSync(began, 'utf8').trim().split(' ')
    writeFileSync(began, `${pid} ${start} another-boot\n`)
    t.strictSame(await inspectDetached(host, id), { state: 'lost' })
    // Our own process, which must not be taken for the job, and must not be ended for it.
    const other = fresh()
    await startDetached(host, job(other, 'true'))
    await followDetached(host, other, follow)
    rmSync(`${JOBS}/${other}/exit`)
    writeFileSync(`${JOBS}/${other}/began`, `${process.pid} 1 ${boot}\n`)
    t.strictSame(await inspectDetached(host, other), { state: 'lost' })
    await cancelDetached(host, other)
    writeFileSync(began, `${pid} ${start} ${boot}\n`)
    t.strictSame(await inspectDetached(host, id), { state: 'running' })
  })

  await t.test('a start that was cut short before the command ran is made good', async t => {
    const id = fresh()
    await host.run({ argv: ['mkdir', '-p', `${JOBS}/${id}`], as: 'root', timeoutMs: 10_000 })
    t.strictSame(await inspectDetached(host, id), { state: 'lost' })
    t.equal(await startDetached(host, job(id, 'echo ran')), 'started')
    t.strictSame(await followDetached(host, id, follow), { exitCode: 0, tail: 'ran' })
  })

  await t.test('a program that is not there', async t => {
    const id = fresh()
    await startDetached(host, { id, command: { argv: ['no-such-program'], as: 'root', timeoutMs: 1 } })
    t.match(await followDetached(host, id, follow), { exitCode: 127, tail: /no-such-program/ })
  })

  await t.test('under a guard', async t => {
    const id = fresh()
    const flag = flagOf(id)
    const guard = { scope, epoch: 5, waitMs: 200 }
    await startDetached(host, { ...job(id, `echo up; ${whileThere(flag)}`), guard })
    await until(() => readFileSync(`${JOBS}/${id}/log`, 'utf8') === 'up\n')
    const quick: Command = { argv: ['true'], as: 'root', timeoutMs: 5000 }
    t.ok((await errorOf(host.run(guarded(quick, guard)))) instanceof GuardBusy, 'the job holds the lock')
    const second = fresh()
    await startDetached(host, { ...job(second, 'echo never'), guard })
    t.ok((await errorOf(followDetached(host, second, follow))) instanceof GuardBusy)
    t.strictSame(await inspectDetached(host, second), { state: 'absent' }, 'so that it can be tried again')
    rmSync(flag)
    t.match(await followDetached(host, id, follow), { exitCode: 0 })
    t.equal(await startDetached(host, { ...job(second, 'echo now'), guard }), 'started')
    t.match(await followDetached(host, second, follow), { exitCode: 0, tail: 'now' })
    const older = fresh()
    await startDetached(host, { ...job(older, 'echo never'), guard: { ...guard, epoch: 4 } })
    t.ok((await errorOf(followDetached(host, older, follow))) instanceof Superseded)
  })

  await t.test('cancel gives the lock back', async t => {
    const id = fresh()
    const guard = { scope, epoch: 5, waitMs: 0 }
    await startDetached(host, { ...job(id, 'echo up; sleep 300; :'), guard })
    await until(() => readFileSync(`${JOBS}/${id}/log`, 'utf8') === 'up\n')
    await cancelDetached(host, id)
    t.match(await host.run(guarded({ argv: ['true'], as: 'root', timeoutMs: 5000 }, guard)), { exitCode: 0 })
  })

  await t.test('abort and time-out end the following and not the job', async t => {
    const id = fresh()
    const flag = flagOf(id)
    await startDetached(host, job(id, `echo up; ${whileThere(flag)}`))
    const controller = new AbortController()
    const followed = errorOf(
      followDetached(host, id, { ...follow, signal: controller.signal, onLine: () => controller.abort() }),
    )
    t.ok((await followed) instanceof OperationCancelled)
    const error = await errorOf(followDetached(host, id, { ...follow, timeoutMs: 200 }))
    t.ok(error instanceof CommandTimedOut, String(error))
    t.match(error, { outcome: 'unknown', output: 'up' })
    t.strictSame(await inspectDetached(host, id), { state: 'running' })
    t.ok((await errorOf(forgetDetached(host, id))) instanceof CommandFailed, 'a running one is not forgotten')
  })

  await t.test('a long log: every line of one that is followed, the end of one that is found', async t => {
    const id = fresh()
    const flag = flagOf(id)
    const body = 'é'.repeat(40)
    await startDetached(host, job(id, `seq -f '%.0f ${body}' 1 8000; ${whileThere(flag)}`))
    let lines = 0
    const followed = followDetached(host, id, {
      ...follow,
      onLine: () => {
        lines += 1
      },
    })
    await until(() => lines > 0)
    rmSync(flag)
    await followed
    await until(() => readFileSync(`${JOBS}/${id}/log`, 'utf8').endsWith(`8000 ${body}\n`))
    const found: string[] = []
    await followDetached(host, id, { ...follow, onLine: line => found.push(line) })
    t.match(found[0], /^\[… \d+ bytes left out …\]$/)
    t.ok(found.length > 2500 && found.length < 8000, `${found.length} lines`)
    t.equal(found.at(-1), `8000 ${body}`)
    t.notMatch(found.slice(2).join(''), '\ufffd')
  })

  await t.test('a command that prints for ever does not fill the disk, and leaves nothing behind', async t => {
    const id = fresh()
    const directory = `${JOBS}/${id}`
    const onDisk = () =>
      readdirSync(directory)
        // One may go in between.
        .map(name => lstatSync(join(directory, name), { throwIfNoEntry: false })?.size ?? 0)
        .reduce((sum, size) => sum + size, 0)
    await startDetached(host, job(id, 'exec yes "$1"', `a line of ${id}`))
    const stop = new AbortController()
    const lines: string[] = []
    const followed = errorOf(
      followDetached(host, id, {
        ...follow,
        signal: stop.signal,
        onLine: line => {
          lines.push(line)
          if (lines.length > 50_000) lines.splice(1, 40_000)
        },
      }),
    )
    let most = 0
    const printed = () => Number(readlinkSync(`${directory}/log`).replace('log.', ''))
    await until(() => {
      most = Math.max(most, onDisk())
      return printed() > 24 * 1_048_576
    }, 120_000)
    t.ok(most < 8 * 1_048_576, `${most} bytes on the disk of ${printed()}`)
    await until(() => lines.some(line => /bytes left out/.test(line)))
    stop.abort()
    await followed
    await cancelDetached(host, id)
    const { exitCode, tail } = await followDetached(host, id, follow)
    t.equal(exitCode, 143)
    t.equal(tail.split('\n').at(-2), `a line of ${id}`, 'the end is there')
    t.strictSame(processesWith(id), [], 'no process is left')
    t.strictSame(processesNamed(id), [])
    await forgetDetached(host, id)
    t.strictSame(
      readdirSync(JOBS).filter(name => name.startsWith(id)),
      [],
      'and no file',
    )
  })

  await t.test('what it leaves running does not keep it from ending', async t => {
    const id = fresh()
    const flag = flagOf(id)
    await startDetached(host, job(id, `echo up; (${whileThere(flag)}) & echo "$!"; exit 4`))
    const { exitCode, tail } = await followDetached(host, id, follow)
    t.equal(exitCode, 4)
    t.match(tail, /^up\n\d+$/)
    rmSync(flag)
    await forgetDetached(host, id)
    await until(() => processesNamed(id).length === 0)
    t.strictSame(
      readdirSync(JOBS).filter(name => name.startsWith(id)),
      [],
    )
  })

  await t.test('a job that was started by a version that kept its log otherwise is followed all the same', async t => {
    const id = fresh()
    const flag = flagOf(id)
    await startDetached(host, job(id, `echo new; ${whileThere(flag)}`))
    await until(() => readFileSync(`${JOBS}/${id}/log`, 'utf8') === 'new\n')
    rmSync(`${JOBS}/${id}/log`)
    writeFileSync(`${JOBS}/${id}/log`, 'as it was\n')
    rmSync(flag)
    t.match(await followDetached(host, id, follow), { exitCode: 0, tail: 'as it was' })
  })

  await t.test('secrets in a log stay there', async t => {
    const id = fresh()
    await startDetached(
      host,
      job(id, 'printf "password=hunt"; sleep 0.2; printf "er22 and special"; sleep 0.2; echo -value'),
    )
    const lines: string[] = []
    const { tail } = await followDetached(host, id, {
      ...follow,
      secrets: ['special-value'],
      onLine: line => lines.push(line),
    })
    t.equal(tail, 'password=[redacted] and [redacted]')
    t.strictSame(lines, [tail])
  })

  await t.test('what cannot be detached', async t => {
    const command: Command = { argv: ['cat'], as: 'root', stdin: 'x', timeoutMs: 1 }
    await t.rejects(startDetached(host, { id: newId(), command }), TypeError)
    for (const id of ['', '../x', 'A', 'a b', 'x.service']) await t.rejects(inspectDetached(host, id), TypeError)
  })
})

t.test('what systemd says, and what it does not say', async t => {
  const directory = mkdtempSync('/tmp/understudy-systemctl-')
  t.teardown(() => rmSync(directory, { recursive: true }))
  mkdirSync(join(directory, 'job'))
  const look = (systemctl: string) => {
    writeFileSync(join(directory, 'systemctl'), `#!/bin/sh\n${systemctl}\n`)
    chmodSync(join(directory, 'systemctl'), 0o755)
    // This machine has no systemd of its own, or one that does not know the job.
    const text = `${STATE}\nsystemd() { true; }\njob=${directory}/job\nnow=$(state) || exit\necho "$now"`
    const env = { ...process.env, PATH: `${directory}:${process.env.PATH}` }
    return spawnSync('sh', ['-c', text, 'x', 'job'], { encoding: 'utf8', env })
  }
  for (const state of ['active', 'activating', 'deactivating', 'reloading']) {
    t.match(look(`echo ${state}`), { status: 0, stdout: 'running\n' }, state)
  }
  for (const state of ['inactive', 'failed', 'unknown']) {
    t.match(look(`echo ${state}; exit 3`), { status: 0, stdout: 'lost\n' }, state)
  }
  const silent = look('echo "Failed to connect to bus: Connection refused" >&2; exit 1')
  t.match(silent, { status: UNDECIDED, stdout: '', stderr: /connect to bus.*does not say whether .* runs: no answer/s })
  t.match(look('echo something-new'), { status: UNDECIDED, stdout: '', stderr: /runs: something-new/ })
})

t.test('where systemd does not say whether a job runs, it is asked again', async t => {
  const address = { host: 'db1.example', port: 22, user: 'deploy', hostKey: '' }
  const result = { stdout: '', stderr: '', truncated: false, durationMs: 1 }
  let looks = 0
  const answering = (from: number): Host => ({
    address,
    controllerAddress: async () => '',
    async run(command) {
      looks += 1
      if (looks > from) return { ...result, exitCode: 0, stdout: '0 0 exited 0\n' }
      throw new CommandFailed(address, command, { ...result, exitCode: UNDECIDED }, '')
    },
  })
  t.match(await followDetached(answering(3), 'job', { pollMs: 1, timeoutMs: 5000 }), { exitCode: 0 })
  t.equal(looks, 4)
  const never = answering(Number.POSITIVE_INFINITY)
  const error = await errorOf(followDetached(never, 'job', { pollMs: 1, timeoutMs: 5000, reconnectMs: 50 }))
  t.ok(error instanceof DetachedCommandUnwatched, String(error))
  t.match(error, { outcome: 'unknown' })
})
