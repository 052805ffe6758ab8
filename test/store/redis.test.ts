import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import {
  asStoreError,
  checkRedis,
  connectRedis,
  RedisUnfit,
  StoreUnavailable,
  untilReady,
} from '../../src/store/redis.js'
import { freePort } from '../fixtures/postgres.js'
import { eventually, startRedis } from '../fixtures/redis.js'

t.test('what is not fit to be the store is refused, with what to set', async t => {
  const unfit: [string, string[], RegExp][] = [
    ['no append-only file', ['--appendonly', 'no'], /append-only file.*Set "appendonly yes"\./],
    ['evicts', ['--maxmemory-policy', 'allkeys-lru'], /allkeys-lru.*Set "maxmemory-policy noeviction"\./],
    ['replica', ['--replicaof', '127.0.0.1', String(await freePort())], /read-only replica.*REDIS_URL at the master\./],
  ]
  for (const [what, args, message] of unfit) {
    const redis = connectRedis((await startRedis(t, { args })).url, { purpose: 'operations' })
    t.teardown(() => redis.disconnect())
    const error = await checkRedis(redis).catch((error: unknown) => error)
    t.ok(error instanceof RedisUnfit, what)
    t.match((error as Error).message, message)
  }
  const fit = connectRedis((await startRedis(t)).url, { purpose: 'operations' })
  t.teardown(() => fit.disconnect())
  await checkRedis(fit)
})

t.test('a connection for requests', async t => {
  const server = await startRedis(t)
  const redis = connectRedis(server.url, { purpose: 'requests' })
  t.teardown(() => redis.disconnect())
  await untilReady(redis, 5000)
  await redis.set('kept', 'yes')
  const failed = async () => {
    const begun = performance.now()
    const error = await redis.get('kept').then(
      value => value,
      (error: unknown) => asStoreError(error),
    )
    return { unavailable: error instanceof StoreUnavailable, answered: error, ms: performance.now() - begun }
  }

  await t.test('fails within about two seconds when Redis hangs, and goes on when it is back', async t => {
    server.signal('SIGSTOP')
    const { unavailable, ms } = await failed()
    t.ok(unavailable)
    t.ok(ms < 3000, `${ms} ms`)
    server.signal('SIGCONT')
    t.equal(await eventually(async () => redis.get('kept').catch(() => undefined)), 'yes')
  })

  await t.test('fails at once when Redis is gone, and goes on when it is back', async t => {
    await server.kill()
    await eventually(async () => redis.status !== 'ready')
    const { unavailable, ms } = await failed()
    t.ok(unavailable)
    t.ok(ms < 1000, `${ms} ms`)
    await server.start()
    t.equal(await eventually(async () => redis.get('kept').catch(() => undefined)), 'yes')
  })

  await t.test('a command under way when Redis dies fails too', async t => {
    server.signal('SIGSTOP')
    const waiting = failed()
    await server.kill()
    const { unavailable, ms } = await waiting
    t.ok(unavailable)
    t.ok(ms < 3000, `${ms} ms`)
    await server.start()
    await eventually(async () => redis.get('kept').catch(() => undefined))
  })
})

t.test('a connection for operations waits, and goes on after a restart', async t => {
  const server = await startRedis(t)
  const errors: Error[] = []
  const redis = connectRedis(server.url, { purpose: 'operations', onError: error => errors.push(error) })
  t.teardown(() => redis.disconnect())
  await redis.set('n', 1)
  await server.kill()
  const waiting = [redis.incr('n'), redis.incr('n')]
  await eventually(async () => errors.length > 0)
  const settled = await Promise.race([...waiting.map(one => one.then(() => true)), Promise.resolve(false)])
  t.equal(settled, false, 'it neither fails nor pretends')
  await server.start()
  t.strictSame((await Promise.all(waiting)).sort(), [2, 3], 'nothing is lost and nothing is done twice')

  server.signal('SIGSTOP')
  const asked = redis.get('n')
  server.signal('SIGCONT')
  t.equal(await asked, '3')
})

t.test('waiting for a connection has a limit, and says what was last heard', async t => {
  const directory = await mkdtemp(join(tmpdir(), 'understudy-redis-'))
  t.teardown(() => rm(directory, { recursive: true }))
  const redis = connectRedis(`unix:${directory}/nothing.sock`, { purpose: 'requests' })
  t.teardown(() => redis.disconnect())
  const error = await untilReady(redis, 200).catch((error: unknown) => error)
  t.ok(error instanceof StoreUnavailable)
  t.match((error as Error).cause, { code: 'ENOENT' })
  const redisUrl = connectRedis(`redis://127.0.0.1:${await freePort()}`, { purpose: 'requests' })
  t.teardown(() => redisUrl.disconnect())
  await t.rejects(untilReady(redisUrl, 200), StoreUnavailable)
})

t.test('only a lost connection is one', async t => {
  const ours = new TypeError('x is undefined')
  t.equal(asStoreError(ours), ours)
  t.equal(asStoreError('text'), 'text')
  const server = await startRedis(t)
  const redis = connectRedis(server.url, { purpose: 'operations' })
  t.teardown(() => redis.disconnect())
  await redis.set('text', 'x')
  const wrongType = await redis.incr('text').catch((error: unknown) => error)
  t.equal(asStoreError(wrongType), wrongType, 'a command that Redis refuses is a fault of ours')
})
