import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs'
import t from 'tap'
import type { Command } from '../../src/host/command.js'
import { CommandFailed, CommandTimedOut, ConnectionLost, HostUnreachable, SudoRefused } from '../../src/host/errors.js'
import { openHostPool } from '../../src/host/host.js'
import { checkSudo } from '../../src/host/system.js'
import { OperationCancelled } from '../../src/operations/errors.js'
import { createUser, processesWith, startSshd, until } from '../fixtures/sshd.js'

const login = (...argv: string[]): Command => ({ argv, as: 'login', timeoutMs: 20_000 })

async function errorOf(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    value => new Error(`no error, but ${JSON.stringify(value)}`),
    error => error,
  )
}

/** A word that stands in no other process, to find a remote one by. */
let count = 0
const marker = () => `understudy-marker-${process.pid}-${++count}`

t.test('commands', async t => {
  const sshd = await startSshd()
  const pool = openHostPool({ identity: { privateKey: sshd.privateKey } })
  t.teardown(async () => {
    await pool.close()
    await sshd.stop()
  })
  const host = pool.host(sshd.address())

  await t.test('exit statuses', async t => {
    const script = 'echo out; echo err >&2; exit 3'
    const error = await errorOf(host.run(login('sh', '-c', script)))
    t.ok(error instanceof CommandFailed, String(error))
    t.match(error, { exitCode: 3, outcome: 'failed_partial', result: { stdout: 'out\n', stderr: 'err\n' } })
    t.match((error as CommandFailed).output?.split('\n').sort(), ['err', 'out'])
    const accepted = await host.run(login('sh', '-c', script), { acceptExit: [0, 3] })
    t.match(accepted, { exitCode: 3, stdout: 'out\n', stderr: 'err\n', truncated: false })
    t.match(await errorOf(host.run(login('true'), { acceptExit: [3] })), { exitCode: 0 }, '0 only where it is accepted')
    t.match(await errorOf(host.run(login('sh', '-c', 'kill -9 $$'))), { exitCode: 137 }, 'SIGKILL')
    t.match(await errorOf(host.run(login('sh', '-c', 'exit 124'))), { code: 'command-failed', exitCode: 124 })
    const missing = await errorOf(host.run(login('no-such-program-here')))
    t.match(missing, { code: 'command-failed', exitCode: 127, outcome: 'not_started' })
    const nowhere = await errorOf(host.run({ ...login('true'), cwd: '/nonexistent' }))
    t.match(nowhere, { code: 'command-failed', outcome: 'not_started' })
  })

  await t.test('who runs it, where, and with what', async t => {
    const show = ['sh', '-c', 'id -un; pwd; echo "$LC_ALL $COLOUR"; echo "$HOME"']
    const env = { COLOUR: 'red and green' }
    const asPostgres = await host.run({ argv: show, as: 'postgres', env, timeoutMs: 10_000 })
    t.equal(asPostgres.stdout, 'postgres\n/\nC.UTF-8 red and green\n/var/lib/postgresql\n')
    t.equal(asPostgres.stderr, '')
    const asRoot = await host.run({ argv: show, as: 'root', cwd: '/tmp', env, timeoutMs: 10_000 })
    t.equal(asRoot.stdout, 'root\n/tmp\nC.UTF-8 red and green\n/root\n')
  })

  await t.test('arguments arrive as they are', async t => {
    const words = ['', ' ', "it's", '$HOME', 'a\nb', '*', '\\', '"', 'ünïcode', '-n', '!']
    const { stdout } = await host.run(login('printf', '[%s]\\n', ...words))
    t.equal(stdout, words.map(word => `[${word}]\n`).join(''))
  })

  await t.test('14 at once: all run, and never more than four', async t => {
    const directory = `/tmp/${marker()}`
    mkdirSync(directory)
    t.teardown(() => rmSync(directory, { recursive: true }))
    // Each waits until four are there, but not for ever; a fifth would be seen by the one that it came to.
    const script =
      'touch "$1/$2"; i=0; while [ $(ls "$1" | wc -l) -lt 4 ] && [ $i -lt 20 ]; do i=$((i+1)); sleep 0.05; done; ' +
      'sleep 0.1; ls "$1" | wc -l; rm "$1/$2"'
    const results = await Promise.all(
      Array.from({ length: 14 }, (_, index) => host.run(login('sh', '-c', script, 'x', directory, String(index)))),
    )
    const atOnce = results.map(result => Number(result.stdout))
    t.equal(atOnce.length, 14)
    t.equal(Math.max(...atOnce), 4)
  })

  await t.test('lines as they come, with their stream', async t => {
    const seen: string[] = []
    let resolveFirst = () => {}
    const first = new Promise<void>(resolve => {
      resolveFirst = resolve
    })
    const flag = `/tmp/${marker()}`
    t.teardown(() => rmSync(flag, { force: true }))
    const running = host.run(
      login('sh', '-c', `echo one; until [ -e ${flag} ]; do sleep 0.05; done; echo two >&2; printf rest`),
      {
        onLine: (line, stream) => {
          seen.push(`${stream} ${line}`)
          resolveFirst()
        },
      },
    )
    await first
    t.strictSame(seen, ['stdout one'], 'before the command has ended')
    await host.run(login('touch', flag))
    await running
    t.strictSame(seen.sort(), ['stderr two', 'stdout one', 'stdout rest'])
  })

  await t.test('an error in onLine fails the command, and not the process', async t => {
    const onLine = () => {
      throw new Error('from the listener')
    }
    t.match(await errorOf(host.run(login('echo', 'x'), { onLine })), { message: 'from the listener' })
    t.equal((await host.run(login('echo', 'x'))).stdout, 'x\n')
  })

  await t.test('10 MB of output are bounded, and every line was passed on', async t => {
    let lines = 0
    const result = await host.run(login('seq', '1', '1400000'), {
      onLine: () => {
        lines += 1
      },
    })
    t.ok(Buffer.byteLength(result.stdout) < 257 * 1024)
    t.ok(result.truncated)
    t.match(result.stdout, /^1\n2\n3\n/)
    t.match(result.stdout, /\n\[… \d+ bytes left out …\]\n/)
    t.match(result.stdout, /\n1399999\n1400000\n$/)
    t.equal(lines, 1_400_000)
  })

  await t.test('characters split between chunks', async t => {
    const script = "printf '\\303'; sleep 0.1; printf '\\251 \\360\\237'; sleep 0.1; printf '\\230\\200\\n'"
    t.equal((await host.run(login('sh', '-c', script))).stdout, 'é 😀\n')
  })

  await t.test(
    'a secret on stdin arrives, and shows neither in the output nor in ps nor in the environment',
    async t => {
      const secret = 'S3cret-höhle-9f2'
      const name = marker()
      const flag = `/tmp/${name}.flag`
      t.teardown(() => rmSync(flag, { force: true }))
      const seen: string[] = []
      const script = `read -r line; echo "got $line"; echo "$line" >&2; until [ -e ${flag} ]; do sleep 0.05; done; [ "$line" = "$(cat ${flag})" ]`
      const running = host.run(
        { argv: ['sh', '-c', script, name], as: 'root', stdin: `${secret}\n`, secrets: [secret], timeoutMs: 20_000 },
        { onLine: line => seen.push(line) },
      )
      await until(() => seen.length === 2)
      const everyProcess = await host.run(
        login('sh', '-c', 'cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ | tr "\\0" "\\n"; true'),
      )
      t.match(everyProcess.stdout, name, 'the command was running')
      t.notMatch(everyProcess.stdout, secret)
      await host.run({ ...login('sh', '-c', `cat >${flag}.new && mv ${flag}.new ${flag}`), stdin: secret })
      const result = await running
      t.equal(result.exitCode, 0, 'it had arrived')
      t.equal(result.stdout, 'got [redacted]\n')
      t.equal(result.stderr, '[redacted]\n')
      t.notMatch(JSON.stringify([seen, result]), secret)
    },
  )

  await t.test('what the host prints is redacted in errors too', async t => {
    const error = await errorOf(host.run(login('sh', '-c', 'echo "password=hunter22 hunter22x"; exit 1')))
    t.match(error, { output: 'password=[redacted] hunter22x' })
    t.notMatch((error as CommandFailed).message, 'password=hunter22')
    t.match((error as CommandFailed).result.stdout, 'password=[redacted]')
  })

  await t.test('a secret among the arguments is refused', async t => {
    const error = await errorOf(host.run({ ...login('echo', 'hunter22'), secrets: ['hunter22'] }))
    t.ok(error instanceof TypeError, String(error))
  })

  await t.test('input that the command does not read is no error', async t => {
    t.equal((await host.run({ ...login('true'), stdin: 'x'.repeat(3_000_000) })).exitCode, 0)
    const { stdout } = await host.run({ ...login('wc', '-c'), stdin: 'x'.repeat(3_000_000) })
    t.equal(stdout.trim(), '3000000')
  })

  await t.test('when its time is up, a command is ended on the host', async t => {
    const name = marker()
    const error = await errorOf(
      host.run({ argv: ['sh', '-c', 'echo begun; sleep 300; echo', name], as: 'root', timeoutMs: 400 }),
    )
    t.ok(error instanceof CommandTimedOut, String(error))
    t.match(error, { outcome: 'unknown', output: 'begun', message: /longer than 400 ms, and was ended there/ })
    await until(() => processesWith(name).length === 0, 3000)
  })

  await t.test('also one that does not want to end, and its children', async t => {
    const name = marker()
    const script = `trap '' TERM; sh -c "trap '' TERM; sleep 300; :" ${name}-child; sleep 300`
    const startedMs = performance.now()
    const error = await errorOf(host.run({ argv: ['sh', '-c', script, name], as: 'root', timeoutMs: 400 }))
    t.ok(error instanceof CommandTimedOut, String(error))
    t.ok(performance.now() - startedMs < 3000, 'the caller does not wait for that')
    t.ok(processesWith(name).length > 0, 'it goes on for a while')
    await until(() => processesWith(name).length === 0, 10_000)
  })

  await t.test('abort', async t => {
    const name = marker()
    const controller = new AbortController()
    const running = errorOf(
      host.run({ ...login('sh', '-c', 'sleep 2; :', name), timeoutMs: 3000 }, { signal: controller.signal }),
    )
    await until(() => processesWith(name).length > 0)
    const startedMs = performance.now()
    controller.abort()
    const error = await running
    t.ok(error instanceof OperationCancelled, String(error))
    t.match((error as Error).message, /on 127\.0\.0\.1; that command is not called back, and ends within 8000 ms/)
    t.ok(performance.now() - startedMs < 1000)
    t.ok((await errorOf(host.run(login('true'), { signal: controller.signal }))) instanceof OperationCancelled)
    // One that waits for its turn is never started.
    const flag = `/tmp/${marker()}`
    const waiting = new AbortController()
    const others = Array.from({ length: 4 }, () => host.run(login('sleep', '0.3')))
    const queued = errorOf(host.run(login('touch', flag), { signal: waiting.signal }))
    waiting.abort()
    t.ok((await queued) instanceof OperationCancelled)
    await Promise.all(others)
    await host.run(login('true'))
    t.notOk(existsSync(flag))
  })

  await t.test('the host sees us from loopback', async t => {
    t.equal(await host.controllerAddress(), '127.0.0.1')
  })
})

t.test('a connection lost during a command', async t => {
  const sshd = await startSshd()
  const pool = openHostPool({ identity: { privateKey: sshd.privateKey } })
  t.teardown(async () => {
    await pool.close()
    await sshd.stop()
  })
  const host = pool.host(sshd.address())
  const lines: string[] = []
  const running = Array.from({ length: 3 }, () =>
    errorOf(host.run(login('sh', '-c', 'echo begun; sleep 3; echo ended'), { onLine: line => lines.push(line) })),
  )
  await until(() => lines.length === 3)
  await sshd.kill()
  for (const error of await Promise.all(running)) {
    t.ok(error instanceof ConnectionLost, String(error))
    t.match(error, { outcome: 'unknown', output: 'begun', remedy: /127\.0\.0\.1/ })
  }
  t.match(await errorOf(host.run(login('true'))), { code: 'host-unreachable' })
  await sshd.start()
  t.equal((await host.run(login('echo', 'again'))).stdout, 'again\n')
})

t.test('commands that hold every session and do not end', async t => {
  const sshd = await startSshd()
  const pool = openHostPool({ identity: { privateKey: sshd.privateKey } })
  const host = pool.host(sshd.address())
  const name = marker()
  t.teardown(async () => {
    await pool.close()
    await sshd.stop()
    for (const pid of processesWith(name)) process.kill(pid, 'SIGKILL')
  })
  // In a session of its own nothing signals it, and with its output open sshd does not close the channel.
  const stuck = { ...login('sh', '-c', `setsid sh -c 'sleep 120; :' ${name} & wait`), timeoutMs: 300 }
  const errors = await Promise.all(Array.from({ length: 4 }, () => errorOf(host.run(stuck))))
  for (const error of errors) t.ok(error instanceof CommandTimedOut, String(error))

  const flag = `/tmp/${marker()}`
  const startedMs = performance.now()
  const patient = host.run(login('echo', 'here'))
  const error = await errorOf(host.run({ ...login('touch', flag), timeoutMs: 300 }))
  t.ok(error instanceof HostUnreachable, String(error))
  t.match(error, { outcome: 'not_started', message: /no session became free within 300 ms/ })
  t.ok(performance.now() - startedMs < 4000, 'the limit counts while it waits')

  t.equal((await patient).stdout, 'here\n', 'the connection is given up for a new one')
  t.ok(performance.now() - startedMs < 15_000)
  await host.run(login('true'))
  t.notOk(existsSync(flag), 'what was given up is not started later')
})

t.test('a host that falls silent is noticed by its missing keepalives', async t => {
  const sshd = await startSshd()
  const pool = openHostPool({
    identity: { privateKey: sshd.privateKey },
    keepaliveIntervalMs: 100,
    keepaliveCountMax: 3,
  })
  t.teardown(async () => {
    await pool.close()
    await sshd.stop()
  })
  const host = pool.host(sshd.address())
  const lines: string[] = []
  const running = errorOf(host.run(login('sh', '-c', 'echo begun; sleep 3'), { onLine: line => lines.push(line) }))
  await until(() => lines.length === 1)
  const thaw = sshd.freezeSessions()
  const error = await running
  thaw()
  t.ok(error instanceof ConnectionLost, String(error))
  t.equal((await host.run(login('echo', 'again'))).stdout, 'again\n')
})

t.test('login users other than root', async t => {
  const sshd = await startSshd()
  const pool = openHostPool({ identity: { privateKey: sshd.privateKey } })
  const allowed = createUser({ sudo: true })
  const plain = createUser({ sudo: false })
  t.teardown(async () => {
    await pool.close()
    await sshd.stop()
    allowed.remove()
    plain.remove()
  })
  const withSudo = pool.host(sshd.address({ user: allowed.name }))
  const without = pool.host(sshd.address({ user: plain.name }))

  await t.test('with sudo', async t => {
    const whoami = async (as: Command['as']) =>
      (await withSudo.run({ argv: ['id', '-un'], as, timeoutMs: 10_000 })).stdout
    t.equal(await whoami('login'), `${allowed.name}\n`)
    t.equal(await whoami('root'), 'root\n')
    t.equal(await whoami('postgres'), 'postgres\n')
    await checkSudo(withSudo)
  })

  await t.test('what sudo runs is ended in time as well', async t => {
    for (const as of ['root', 'postgres'] as const) {
      const name = marker()
      const error = await errorOf(withSudo.run({ argv: ['sh', '-c', 'sleep 300; :', name], as, timeoutMs: 400 }))
      t.match(error, { code: 'command-timed-out', message: /was ended there/ })
      await until(() => processesWith(name).length === 0, 3000)
    }
  })

  await t.test('stdin reaches the command behind sudo, and its output comes back whole', async t => {
    const input = `${'x'.repeat(99)}\n`.repeat(1000)
    const { stdout } = await withSudo.run({ argv: ['cat'], as: 'root', stdin: input, timeoutMs: 10_000 })
    t.equal(stdout, input)
  })

  await t.test('without sudo', async t => {
    t.equal((await without.run(login('id', '-un'))).stdout, `${plain.name}\n`)
    for (const as of ['root', 'postgres'] as const) {
      const error = await errorOf(without.run({ argv: ['id'], as, timeoutMs: 10_000 }))
      t.ok(error instanceof SudoRefused, String(error))
      t.match(error, { outcome: 'not_started', message: plain.name, remedy: new RegExp(`${plain.name} ALL=.*visudo`) })
    }
    t.ok((await errorOf(checkSudo(without))) instanceof SudoRefused)
  })

  await t.test('a command that is itself refused by sudo did run', async t => {
    const nested = 'touch "$1"; echo "sudo: a password is required" >&2; exit 1'
    const flag = `/tmp/${marker()}`
    const error = await errorOf(withSudo.run({ argv: ['sh', '-c', nested, 'x', flag], as: 'root', timeoutMs: 10_000 }))
    t.ok(error instanceof CommandFailed, String(error))
    t.match(error, { outcome: 'failed_partial' })
    t.ok(existsSync(flag))
    rmSync(flag)
  })

  await t.test('sudo is not installed', async t => {
    // The login shell's PATH leads to a directory without sudo.
    const home = readFileSync('/etc/passwd', 'utf8')
      .split('\n')
      .find(line => line.startsWith(`${plain.name}:`))
      ?.split(':')[5]
    await without.run({ ...login('sh', '-c', 'cat >.bashrc'), cwd: home ?? '/', stdin: 'PATH=/nonexistent\n' })
    const error = await errorOf(without.run({ argv: ['id'], as: 'root', timeoutMs: 10_000 }))
    t.ok(error instanceof SudoRefused, String(error))
    t.match(error, { remedy: /install sudo/ })
  })
})
