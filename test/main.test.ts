/** The process as a whole: what it says at its start, and what is left of it at its end. */
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { execa } from 'execa'
import t from 'tap'
import { eventually, startRedis } from './fixtures/redis.js'

const environment = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => name !== 'REDIS_URL' && !name.startsWith('UNDERSTUDY_')),
)

const launch = (env: Record<string, string>, ...args: string[]) =>
  execa(process.execPath, ['dist/src/main.js', ...args], {
    env: { ...environment, ...env },
    extendEnv: false,
    reject: false,
    stdin: 'ignore',
    // A start that should have failed and did not must not hang the test.
    timeout: 300_000,
    killSignal: 'SIGKILL',
  })

async function directory(t: { teardown(close: () => unknown): unknown }): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'understudy-main-'))
  t.teardown(() => rm(path, { recursive: true, force: true }))
  return path
}

t.test('with nothing set: a Redis of its own, a token shown once, a clean end', async t => {
  const state = await directory(t)
  const env = { UNDERSTUDY_STATE_DIR: state, UNDERSTUDY_SOCKET: `${state}/api.sock` }
  const ask = (path: string, token = '') =>
    execa('curl', [
      '-sS',
      '--unix-socket',
      `${state}/api.sock`,
      `http://service${path}`,
      '-H',
      `Authorization: Bearer ${token}`,
    ])

  const first = launch(env)
  t.teardown(() => first.kill('SIGKILL'))
  await eventually(async () => (await ask('/readyz').catch(() => undefined))?.stdout.includes('ok'), 120_000)
  const token = (await readFile(`${state}/admin-token`, 'utf8')).trim()
  t.equal((await stat(`${state}/admin-token`)).mode & 0o777, 0o600)
  t.match(JSON.parse((await ask('/v1/clusters', token)).stdout), { items: [] })
  const redis = Number(
    /process_id:(\d+)/.exec(
      (await execa('redis-cli', ['-s', `${state}/redis/redis.sock`, 'info', 'server'])).stdout,
    )?.[1],
  )
  t.ok(redis > 0)

  await t.test('a second service on the same state directory is refused', async t => {
    const second = await launch({ ...env, UNDERSTUDY_SOCKET: `${state}/second.sock` })
    t.equal(second.exitCode, 1)
    t.match(second.stderr, /is in use by process \d+.*UNDERSTUDY_STATE_DIR/s)
    t.match((await ask('/readyz')).stdout, /ok/, 'the first does not mind')
  })

  first.kill('SIGTERM')
  const ended = await first
  t.equal(ended.exitCode, 0)
  t.equal(ended.stderr.split(token).length - 1, 1, 'the token was shown once')
  t.notOk(ended.stdout.includes(token), 'and is in no log')
  for (const line of ended.stdout.split('\n')) t.doesNotThrow(() => JSON.parse(line), 'every line of the log is JSON')
  t.throws(() => process.kill(redis, 0), 'its Redis has ended with it')

  const again = launch(env)
  t.teardown(() => again.kill('SIGKILL'))
  await eventually(
    async () => (await ask('/v1/clusters', token).catch(() => undefined))?.stdout.includes('items'),
    30_000,
  )
  again.kill('SIGTERM')
  t.notOk((await again).stderr.includes(token), 'a later start does not show it again')
})

t.test('its state goes into a file, and from there into another place', async t => {
  const [old, place] = [await directory(t), await directory(t)]
  const file = `${await directory(t)}/state.backup`
  const env = (state: string) => ({
    UNDERSTUDY_STATE_DIR: state,
    UNDERSTUDY_SOCKET: `${state}/api.sock`,
    UNDERSTUDY_LOG_LEVEL: 'silent',
  })
  const serving = async (state: string) => {
    const service = launch(env(state))
    t.teardown(() => service.kill('SIGKILL'))
    const ask = async (path: string, ...more: string[]) => {
      const token = (await readFile(`${old}/admin-token`, 'utf8')).trim()
      const address = ['--unix-socket', `${state}/api.sock`, `http://service${path}`]
      return (await execa('curl', ['-sS', ...address, '-H', `Authorization: Bearer ${token}`, ...more])).stdout
    }
    await eventually(async () => (await ask('/readyz').catch(() => '')).includes('ok'), 120_000)
    const stop = async () => {
      service.kill('SIGTERM')
      await service
    }
    return { ask, stop }
  }
  const command = async (state: string, ...args: string[]) => {
    const { exitCode, stdout, stderr } = await launch(env(state), ...args)
    return { exitCode, said: `${stdout}${stderr}` }
  }

  await t.test('how to call it', async t => {
    t.match(await command(old, 'backup', file), { exitCode: 2, said: /Say --with-keys or --without-keys.*Usage:/s })
    t.match(await command(old, 'backup', '--with-keys'), { exitCode: 2, said: /backup takes one file/ })
    t.match(await command(old, 'restore', file, '--force'), { exitCode: 2, said: /--force.*Usage:/s })
    t.match(await command(old, 'explode'), { exitCode: 2, said: /There is no command explode/ })
    t.match(await command(old, '--help'), { exitCode: 0, said: /^Usage:/ })
    t.match(await command(old, 'restore', file), { exitCode: 1, said: /ENOENT/ })
  })

  const first = await serving(old)
  const host = { name: 'pg1', host: '192.0.2.11', ssh: { user: 'admin', hostKey: `SHA256:${'A'.repeat(43)}` } }
  const described = { name: 'orders', postgresVersion: 15, nodes: [host] }
  await first.ask('/v1/clusters', '--json', JSON.stringify(described))
  const cluster = JSON.parse(await first.ask('/v1/clusters/orders'))
  t.equal(cluster.name, 'orders')
  const { publicKey } = JSON.parse(await first.ask('/v1/ssh-key'))
  t.match(await command(old, 'backup', file, '--with-keys'), {
    exitCode: 0,
    said: /state\.backup \(0600\): 1 cluster, 0 operations, 2 events, 1 token, 0 secrets, master\.key and ssh-key\./,
  })
  t.match(
    await command(old, 'restore', file, '--replace'),
    { exitCode: 1, said: /in use by process/ },
    'not under a service',
  )
  t.match(await command(old, 'backup', file, '--with-keys'), { exitCode: 1, said: /EEXIST/ })
  await first.stop()
  t.match(
    await command(old, 'backup', `${file}-2`, '--without-keys'),
    { exitCode: 0, said: /no key files/ },
    'also when it is stopped',
  )

  const restored = await command(place, 'restore', file)
  t.match(restored, { exitCode: 0, said: /1 cluster,.*Wrote .*master\.key.*Wrote .*ssh-key/s })
  for (const name of ['master.key', 'ssh-key']) {
    t.equal(await readFile(`${place}/${name}`, 'utf8'), await readFile(`${old}/${name}`, 'utf8'))
    t.equal((await stat(`${place}/${name}`)).mode & 0o777, 0o600)
  }
  const second = await serving(place)
  t.same(
    JSON.parse(await second.ask('/v1/clusters/orders')),
    cluster,
    'the same cluster, asked for with the same token',
  )
  t.equal(JSON.parse(await second.ask('/v1/ssh-key')).publicKey, publicKey, 'hosts let it in')
  t.match(await second.ask('/v1/events'), /store-restored/)
  await second.stop()
  t.match(await command(place, 'restore', file), { exitCode: 1, said: /not empty/ })
  await writeFile(`${place}/master.key`, `${'0'.repeat(64)}\n`)
  t.match(await command(place, 'restore', file, '--replace'), { exitCode: 1, said: /master\.key is another key than/ })
})

t.test('what is wrong stops the start, and is named', async t => {
  const state = await directory(t)
  const fails = async (env: Record<string, string>, message: RegExp) => {
    const { exitCode, stderr } = await launch({ UNDERSTUDY_STATE_DIR: state, UNDERSTUDY_LOG_LEVEL: 'silent', ...env })
    t.equal(exitCode, 1)
    t.match(stderr, message)
  }
  await fails({ UNDERSTUDY_PORT: 'seven' }, /UNDERSTUDY_PORT: "seven"/)
  await fails({ UNDERSTUDY_PROT: '1' }, /UNDERSTUDY_PROT: no such setting/)
  await fails({ REDIS_URL: 'unix:/nowhere/redis.sock' }, /Redis.*does not answer/)
  const forgetful = await startRedis(t, { args: ['--appendonly', 'no'] })
  await fails({ REDIS_URL: forgetful.url }, /append-only file.*Set "appendonly yes"/)
  const evicting = await startRedis(t, { args: ['--maxmemory-policy', 'allkeys-lru'] })
  await fails({ REDIS_URL: evicting.url }, /maxmemory-policy is allkeys-lru/)
  await fails({ UNDERSTUDY_SSH_KEY_FILE: '/nowhere/key' }, /UNDERSTUDY_SSH_KEY_FILE/)
})
