import { existsSync, mkdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import t from 'tap'
import { type Command, render } from '../../src/host/command.js'
import { CommandFailed, CommandTimedOut, ConnectionLost, GuardBusy, Superseded } from '../../src/host/errors.js'
import { type Guard, guarded } from '../../src/host/guard.js'
import { openHostPool } from '../../src/host/host.js'
import { createUser, processesWith, startSshd, until } from '../fixtures/sshd.js'

const DIRECTORY = '/var/lib/understudy'
const scope = `test-${process.pid}`
const epochFile = `${DIRECTORY}/${scope}.epoch`

const guard = (epoch: number, waitMs = 10_000): Guard => ({ scope, epoch, waitMs })
const root = (...argv: string[]): Command => ({ argv, as: 'root', timeoutMs: 10_000 })
const sh = (script: string, ...words: string[]) => root('sh', '-c', script, 'x', ...words)

let count = 0
const scratch = () => `/tmp/understudy-guard-${process.pid}-${++count}`

async function errorOf(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    value => new Error(`no error, but ${JSON.stringify(value)}`),
    error => error,
  )
}

t.test('guard', async t => {
  const sshd = await startSshd()
  const pool = openHostPool({ identity: { privateKey: sshd.privateKey } })
  const user = createUser({ sudo: true })
  t.teardown(async () => {
    await pool.close()
    await sshd.stop()
    user.remove()
    for (const end of ['lock', 'epoch', 'epoch.new']) rmSync(`${DIRECTORY}/${scope}.${end}`, { force: true })
  })
  const host = pool.host(sshd.address())

  await t.test('the command runs as who it says, with its environment, directory, input and status', async t => {
    const argv = ['sh', '-c', 'id -un; echo "$HOME $COLOUR"; pwd; cat; exit 7', "it's $x"]
    const command: Command = {
      argv,
      as: 'postgres',
      env: { COLOUR: 'a b' },
      cwd: '/tmp',
      stdin: 'input',
      timeoutMs: 10_000,
    }
    const result = await host.run(guarded(command, guard(1)), { acceptExit: [7] })
    t.equal(result.stdout, 'postgres\n/var/lib/postgresql a b\n/tmp\ninput')
    t.equal(result.stderr, '')
    t.equal(readFileSync(epochFile, 'utf8'), '1\n')
    t.equal(statSync(`${DIRECTORY}/${scope}.lock`).mode & 0o777, 0o600, 'nobody else can hold the lock')
    const umask = await host.run(guarded(root('sh', '-c', 'umask'), guard(1)))
    t.equal(umask.stdout, (await host.run(root('sh', '-c', 'umask'))).stdout)
    t.equal(render(guarded(command, guard(1))), render(command), 'a plan shows the command and not the guard')
    const failed = await errorOf(host.run(guarded(root('sh', '-c', 'exit 75'), guard(1))))
    t.ok(failed instanceof CommandFailed, 'a 75 of the command itself')
    const asLogin = pool.host(sshd.address({ user: user.name }))
    const login: Command = { argv: ['id', '-un'], as: 'login', timeoutMs: 10_000 }
    t.equal((await asLogin.run(guarded(login, guard(1)))).stdout, `${user.name}\n`)
    t.equal((await asLogin.run(guarded({ ...login, as: 'postgres' }, guard(1)))).stdout, 'postgres\n')
  })

  await t.test('two at once run one after the other', async t => {
    const log = scratch()
    t.teardown(() => rmSync(log, { force: true }))
    const script = 'echo "begin $2" >>"$1"; sleep 0.3; echo "end $2" >>"$1"'
    await Promise.all(['a', 'b', 'c'].map(name => host.run(guarded(sh(script, log, name), guard(1)))))
    const lines = readFileSync(log, 'utf8').trim().split('\n')
    t.equal(lines.length, 6)
    for (let at = 0; at < 6; at += 2) t.equal(lines[at + 1], lines[at]?.replace('begin', 'end'))
  })

  await t.test('busy', async t => {
    const flag = scratch()
    const untouched = scratch()
    t.teardown(() => rmSync(flag, { force: true }))
    const holder = host.run(guarded(sh('touch "$1"; while [ -e "$1" ]; do sleep 0.05; done', flag), guard(1)))
    await until(() => existsSync(flag))
    const startedMs = performance.now()
    const error = await errorOf(host.run(guarded(root('touch', untouched), guard(1, 300))))
    t.ok(error instanceof GuardBusy, String(error))
    t.match(error, { outcome: 'not_started', message: scope })
    t.ok(performance.now() - startedMs >= 300)
    t.ok((await errorOf(host.run(guarded(root('true'), guard(1, 0))))) instanceof GuardBusy, 'without waiting')
    t.notOk(existsSync(untouched))
    const other = { ...guard(1, 0), scope: `${scope}-other` }
    t.teardown(() => {
      for (const end of ['lock', 'epoch']) rmSync(`${DIRECTORY}/${other.scope}.${end}`, { force: true })
    })
    t.equal((await host.run(guarded(root('echo', 'x'), other))).stdout, 'x\n', 'another cluster is not held up')
    rmSync(flag)
    await holder
  })

  await t.test('an older epoch does nothing', async t => {
    const untouched = scratch()
    await host.run(guarded(root('true'), guard(9)))
    t.equal(readFileSync(epochFile, 'utf8'), '9\n')
    const error = await errorOf(host.run(guarded(root('touch', untouched), guard(8))))
    t.ok(error instanceof Superseded, String(error))
    t.match(error, { outcome: 'not_started', message: /epoch 9, ours is 8/ })
    t.notOk(existsSync(untouched))
    t.equal((await host.run(guarded(root('echo', 'x'), guard(9)))).stdout, 'x\n')
    t.equal((await host.run(guarded(root('echo', 'x'), guard(10)))).stdout, 'x\n', 'a number and no text')
    t.ok((await errorOf(host.run(guarded(root('true'), guard(9))))) instanceof Superseded)
  })

  await t.test('one that waited for the lock is refused when a newer one had it meanwhile', async t => {
    const flag = scratch()
    const untouched = scratch()
    const holder = host.run(guarded(sh('touch "$1"; while [ -e "$1" ]; do sleep 0.05; done', flag), guard(20)))
    await until(() => existsSync(flag))
    const older = errorOf(host.run(guarded(root('touch', untouched), guard(19))))
    await until(() => processesWith(`flock -w 10 9`).length > 0)
    rmSync(flag)
    await holder
    t.ok((await older) instanceof Superseded)
    t.notOk(existsSync(untouched))
  })

  await t.test('the lock is held until the command ends, also when SSH drops', async t => {
    const flag = scratch()
    t.teardown(() => rmSync(flag, { force: true }))
    const lost = errorOf(
      host.run(guarded(sh('touch "$1"; while [ -e "$1" ]; do sleep 0.05; done; touch "$1.ended"', flag), guard(20))),
    )
    await until(() => existsSync(flag))
    sshd.killSessions()
    t.ok((await lost) instanceof ConnectionLost)
    t.ok((await errorOf(host.run(guarded(root('true'), guard(20, 200))))) instanceof GuardBusy)
    rmSync(flag)
    await host.run(guarded(root('true'), guard(20)))
    t.ok(existsSync(`${flag}.ended`))
    rmSync(`${flag}.ended`)
  })

  await t.test('the lock is held while a command whose time is up refuses to end', async t => {
    const name = scratch()
    const stubborn: Command = { argv: ['sh', '-c', "trap '' TERM; sleep 300; :", name], as: 'postgres', timeoutMs: 300 }
    t.ok((await errorOf(host.run(guarded(stubborn, guard(20, 0))))) instanceof CommandTimedOut)
    t.ok(processesWith(name).length > 0, 'it still runs')
    t.ok((await errorOf(host.run(guarded(root('true'), guard(20, 0))))) instanceof GuardBusy)
    await host.run(guarded(root('true'), guard(20)))
    t.equal(processesWith(name).length, 0, 'and is gone before the next one has the lock')
  })

  await t.test('a server that a command leaves behind does not hold the lock', async t => {
    const name = scratch()
    await host.run(guarded(sh('setsid sh -c "sleep 5; :" "$1" >/dev/null 2>&1 </dev/null &', name), guard(20)))
    t.ok(processesWith(name).length > 0)
    t.equal((await host.run(guarded(root('echo', 'x'), guard(20, 0)))).stdout, 'x\n')
    for (const pid of processesWith(name)) process.kill(pid, 'SIGKILL')
  })

  await t.test('an epoch that cannot be read or written stops the command', async t => {
    const untouched = scratch()
    for (const spoil of ['echo not a number', 'echo "1 2"', 'echo -1']) {
      await host.run(sh(`${spoil} >"$1"`, epochFile))
      const error = await errorOf(host.run(guarded(root('touch', untouched), guard(21))))
      t.ok(error instanceof CommandFailed, String(error))
      t.match(error, { output: /holds no number/ })
    }
    rmSync(epochFile)
    mkdirSync(epochFile)
    t.ok((await errorOf(host.run(guarded(root('touch', untouched), guard(21))))) instanceof CommandFailed)
    rmSync(epochFile, { recursive: true })
    t.notOk(existsSync(untouched))
  })

  t.test('what is no scope and no epoch', async t => {
    for (const bad of ['', 'a/b', 'A', '..', 'x y'])
      t.throws(() => guarded(root('true'), { ...guard(1), scope: bad }), TypeError)
    for (const bad of [-1, 1.5, Number.NaN]) t.throws(() => guarded(root('true'), guard(bad)), TypeError)
  })
})
