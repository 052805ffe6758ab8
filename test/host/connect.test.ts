import { createServer, type Socket } from 'node:net'
import t from 'tap'
import type { Command } from '../../src/host/command.js'
import { AuthenticationFailed, HostKeyMismatch, HostUnreachable } from '../../src/host/errors.js'
import { openHostPool } from '../../src/host/host.js'
import { generateIdentity } from '../../src/host/identity.js'
import { scanHostKeys } from '../../src/host/scan.js'
import { freePort, startSshd, until } from '../fixtures/sshd.js'

const echo: Command = { argv: ['echo', 'here'], as: 'login', timeoutMs: 10_000 }

/** What a promise rejects with. */
async function errorOf(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    value => new Error(`no error, but ${JSON.stringify(value)}`),
    error => error,
  )
}

t.test('host keys', async t => {
  const sshd = await startSshd()
  const pool = openHostPool({ identity: { privateKey: sshd.privateKey } })
  t.teardown(async () => {
    await pool.close()
    await sshd.stop()
  })

  await t.test('a pin of any of its keys', async t => {
    for (const type of ['ed25519', 'ecdsa', 'rsa'] as const) {
      const host = pool.host(sshd.address({ hostKey: sshd.fingerprints[type] }))
      t.equal((await host.run(echo)).stdout, 'here\n', type)
    }
  })

  await t.test('another key: nothing is sent, and the error shows both', async t => {
    const pin = `SHA256:${'A'.repeat(43)}`
    const error = await errorOf(pool.host(sshd.address({ hostKey: pin })).run(echo))
    t.ok(error instanceof HostKeyMismatch, String(error))
    t.match(error, { outcome: 'not_started', pinned: pin, offered: [{ fingerprint: sshd.fingerprints.ed25519 }] })
    t.match((error as Error).message, pin)
    t.match((error as Error).message, sshd.fingerprints.ed25519)
    t.match((error as HostKeyMismatch).offered.length, 3, 'all its keys were looked at')
  })

  await t.test('a pin that is no fingerprint matches nothing', async t => {
    for (const hostKey of ['', 'SHA256:', 'MD5:aa:bb', sshd.fingerprints.ed25519.slice(0, -2)]) {
      t.ok((await errorOf(pool.host(sshd.address({ hostKey })).run(echo))) instanceof HostKeyMismatch, hostKey)
    }
  })

  await t.test('the pin is checked again when the connection is made again', async t => {
    const host = pool.host(sshd.address())
    await host.run(echo)
    const impostor = pool.host(sshd.address({ hostKey: `SHA256:${'B'.repeat(43)}` }))
    t.ok((await errorOf(impostor.run(echo))) instanceof HostKeyMismatch, 'no warm connection under another pin')
    sshd.killSessions()
    await until(() => sshd.sessions() === 0)
    // The end of the old connection may not have been heard of yet.
    await until(async () => (await host.run(echo).catch(() => undefined))?.stdout === 'here\n')
  })

  await t.test('scan', async t => {
    t.strictSame(await scanHostKeys('127.0.0.1', sshd.port, { timeoutMs: 5000 }), [
      { type: 'ssh-ed25519', fingerprint: sshd.fingerprints.ed25519 },
      { type: 'ecdsa-sha2-nistp256', fingerprint: sshd.fingerprints.ecdsa },
      { type: 'ssh-rsa', fingerprint: sshd.fingerprints.rsa },
    ])
  })
})

t.test('a host with an RSA key only', async t => {
  const sshd = await startSshd({ config: ['HostKeyAlgorithms rsa-sha2-512'] })
  const pool = openHostPool({ identity: { privateKey: sshd.privateKey } })
  t.teardown(async () => {
    await pool.close()
    await sshd.stop()
  })
  const host = pool.host(sshd.address({ hostKey: sshd.fingerprints.rsa }))
  t.equal((await host.run(echo)).stdout, 'here\n')
  t.strictSame(await scanHostKeys('127.0.0.1', sshd.port, { timeoutMs: 5000 }), [
    { type: 'ssh-rsa', fingerprint: sshd.fingerprints.rsa },
  ])
  const error = await errorOf(pool.host(sshd.address()).run(echo))
  t.ok(error instanceof HostKeyMismatch, String(error))
  t.match(error, { offered: [{ fingerprint: sshd.fingerprints.rsa }] })
})

t.test('a host whose only key is of a kind that is not taken is asked once', async t => {
  const sshd = await startSshd({ config: ['HostKeyAlgorithms ssh-rsa'] })
  const pool = openHostPool({ identity: { privateKey: sshd.privateKey } })
  t.teardown(async () => {
    await pool.close()
    await sshd.stop()
  })
  const error = await errorOf(pool.host(sshd.address({ hostKey: sshd.fingerprints.rsa })).run(echo))
  t.ok(error instanceof HostUnreachable, String(error))
  t.match(error, { outcome: 'not_started', message: /no host key of a type that is accepted: ed25519, ecdsa, rsa/ })
  t.match(await errorOf(scanHostKeys('127.0.0.1', sshd.port, { timeoutMs: 5000 })), { message: /ed25519, ecdsa, rsa/ })
})

t.test('our key is not accepted', async t => {
  const sshd = await startSshd()
  const wrong = openHostPool({ identity: { privateKey: generateIdentity('stranger').privateKey } })
  const broken = openHostPool({ identity: { privateKey: 'no key at all' } })
  const noAgent = openHostPool({ identity: { agent: '/nonexistent/agent.sock' } })
  t.teardown(async () => {
    await Promise.all([wrong.close(), broken.close(), noAgent.close()])
    await sshd.stop()
  })
  for (const pool of [wrong, broken, noAgent]) {
    const error = await errorOf(pool.host(sshd.address()).run(echo))
    t.ok(error instanceof AuthenticationFailed, String(error))
    t.match(error, { outcome: 'not_started', message: /user root/, remedy: /authorized_keys on 127\.0\.0\.1/ })
  }
})

t.test('nobody there', async t => {
  const pool = openHostPool({ identity: { privateKey: generateIdentity('x').privateKey }, connectTimeoutMs: 300 })
  t.teardown(() => pool.close())
  const pin = `SHA256:${'A'.repeat(43)}`

  await t.test('refused', async t => {
    const port = await freePort()
    const error = await errorOf(pool.host({ host: '127.0.0.1', port, user: 'root', hostKey: pin }).run(echo))
    t.ok(error instanceof HostUnreachable, String(error))
    t.match(error, { outcome: 'not_started', message: /refused/ })
    t.ok((await errorOf(scanHostKeys('127.0.0.1', port, { timeoutMs: 300 }))) instanceof HostUnreachable)
  })

  await t.test('no such name', async t => {
    const host = pool.host({ host: 'no-such-host.invalid', port: 22, user: 'root', hostKey: pin })
    const error = await errorOf(host.run(echo))
    t.ok(error instanceof HostUnreachable, String(error))
    t.match(error, { message: /no-such-host\.invalid/ })
  })

  await t.test(
    'a port that takes connections and never answers, one that closes them, one that is not SSH',
    async t => {
      const behaviours: Record<string, [(socket: Socket) => void, RegExp]> = {
        silent: [() => {}, /no answer within 300 ms/],
        closing: [socket => socket.end(), /closed the connection|before handshake/],
        chatting: [socket => socket.write('220 mail.example ESMTP\r\n'.repeat(2000)), /cannot be reached/],
      }
      for (const [name, [behave, message]] of Object.entries(behaviours)) {
        const sockets = new Set<Socket>()
        const server = createServer(socket => {
          sockets.add(socket.on('error', () => {}))
          behave(socket)
        })
        await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
        const { port } = server.address() as { port: number }
        const startedMs = performance.now()
        const error = await errorOf(pool.host({ host: '127.0.0.1', port, user: 'root', hostKey: pin }).run(echo))
        t.ok(error instanceof HostUnreachable, `${name}: ${error}`)
        t.match((error as Error).message, message, name)
        t.ok(performance.now() - startedMs < 3000, name)
        for (const socket of sockets) socket.destroy()
        await new Promise(resolve => server.close(resolve))
      }
    },
  )
})

t.test('one connection', async t => {
  const sshd = await startSshd()
  t.teardown(() => sshd.stop())

  await t.test('is shared by first uses at the same time, and stays', async t => {
    const pool = openHostPool({ identity: { privateKey: sshd.privateKey } })
    const ports = await Promise.all(
      Array.from({ length: 14 }, async () => {
        // The client's address and port are the same for all that go over one connection.
        const command: Command = { argv: ['printenv', 'SSH_CONNECTION'], as: 'login', timeoutMs: 10_000 }
        return (await pool.host(sshd.address()).run(command)).stdout
      }),
    )
    t.equal(ports.length, 14)
    t.equal(new Set(ports).size, 1)
    t.equal(sshd.sessions(), 1)
    await pool.close()
    await until(() => sshd.sessions() === 0)
    t.ok((await errorOf(pool.host(sshd.address()).run(echo))) instanceof HostUnreachable, 'closed is closed')
  })

  await t.test('is closed when it is not used, and made again when it is', async t => {
    const pool = openHostPool({ identity: { privateKey: sshd.privateKey }, idleMs: 100 })
    t.teardown(() => pool.close())
    const host = pool.host(sshd.address())
    await host.run({ argv: ['sleep', '0.4'], as: 'login', timeoutMs: 10_000 })
    t.equal(sshd.sessions(), 1, 'not while a command ran')
    await until(() => sshd.sessions() === 0)
    t.equal((await host.run(echo)).stdout, 'here\n')
  })

  await t.test('closing while it is being made', async t => {
    const pool = openHostPool({ identity: { privateKey: sshd.privateKey } })
    const running = errorOf(pool.host(sshd.address()).run(echo))
    await pool.close()
    t.ok((await running) instanceof Error)
    await until(() => sshd.sessions() === 0)
  })
})

t.test('a host that allows fewer sessions than we have channels', async t => {
  const sshd = await startSshd({ config: ['MaxSessions 1'] })
  const pool = openHostPool({ identity: { privateKey: sshd.privateKey } })
  t.teardown(async () => {
    await pool.close()
    await sshd.stop()
  })
  const host = pool.host(sshd.address())
  const results = await Promise.all(Array.from({ length: 3 }, () => host.run(echo)))
  t.strictSame(
    results.map(result => result.stdout),
    ['here\n', 'here\n', 'here\n'],
  )
})

t.test('an agent as the identity', async t => {
  const { execFileSync, spawn } = await import('node:child_process')
  const { mkdtempSync, rmSync } = await import('node:fs')
  const sshd = await startSshd()
  const directory = mkdtempSync('/tmp/understudy-agent-')
  const socket = `${directory}/agent.sock`
  const agent = spawn('ssh-agent', ['-D', '-a', socket], { stdio: 'ignore' })
  const env = { ...process.env, SSH_AUTH_SOCK: socket }
  const pool = openHostPool({ identity: { agent: socket } })
  t.teardown(async () => {
    await pool.close()
    agent.kill()
    await sshd.stop()
    rmSync(directory, { recursive: true })
  })
  await until(() => {
    try {
      execFileSync('ssh-add', ['-q', '-'], { env, input: sshd.privateKey, stdio: ['pipe', 'ignore', 'ignore'] })
      return true
    } catch {
      return false
    }
  })
  t.equal((await pool.host(sshd.address()).run(echo)).stdout, 'here\n')
})
