import { randomBytes } from 'node:crypto'
import t from 'tap'
import { decodeTime, encodeTime } from 'ulid'
import { makeLogger } from '../../src/logging.js'
import { keysOfOperation } from '../../src/store/keys.js'
import { connectRedis } from '../../src/store/redis.js'
import { startSweeping, sweep } from '../../src/store/retention.js'
import { openStore } from '../../src/store/store.js'
import { eventually, startRedis } from '../fixtures/redis.js'

const DAY_MS = 86_400_000
const NOW = Date.now()
const RETENTION = { operationDays: 90, eventDays: 400 }

t.test('what is old is dropped', async t => {
  const { url } = await startRedis(t)
  const redis = connectRedis(url, { purpose: 'operations' })
  t.teardown(() => redis.disconnect())
  const store = openStore(redis, randomBytes(32))

  /** An operation of that age, made by the store itself and then moved into the past. */
  async function operation(cluster: string, ageDays: number, state: 'succeeded' | 'failed' | 'running' | 'queued') {
    const outcome = await store.operations.create({
      type: 'bootstrap-cluster',
      cluster,
      input: {},
      requestedBy: 'test',
    })
    if ('conflict' in outcome) throw new Error('conflict')
    const { id } = outcome.created
    if (state !== 'queued') {
      const turn = await store.operations.take(id, 'worker', 60_000)
      if (!turn) throw new Error('it cannot be taken')
      const journal = store.operations.journal(turn, () => undefined)
      await journal.step({ id: 'a', title: 'a', stage: 'a', kind: 'change', state: 'changed' })
      if (state !== 'running') await store.operations.finish(turn, { state })
    }
    const at = NOW - ageDays * DAY_MS
    const old = `op_${encodeTime(at, 10)}${id.slice(-16)}`
    for (const [from, to] of keysOfOperation(id).map((key, index) => [key, keysOfOperation(old)[index] ?? '']))
      if (from && to && (await redis.exists(from))) await redis.rename(from, to)
    const record = { ...outcome.created, id: old }
    const { state: _state, turns: _turns, steps: _steps, ...base } = record
    await redis.hset(`{understudy}:operation:${old}`, 'base', JSON.stringify(base))
    if (state === 'succeeded' || state === 'failed')
      await redis.hset(`{understudy}:operation:${old}`, 'endedAt', new Date(at).toISOString())
    for (const set of ['{understudy}:operations', `{understudy}:cluster:${cluster}:operations`]) {
      await redis.zrem(set, id)
      await redis.zadd(set, 0, old)
    }
    if (await redis.srem('{understudy}:operations:open', id)) await redis.sadd('{understudy}:operations:open', old)
    if ((await redis.get(`{understudy}:cluster:${cluster}:active`)) === id)
      await redis.set(`{understudy}:cluster:${cluster}:active`, old)
    return old
  }

  const ancient = await operation('a', 900, 'failed')
  const old = await operation('a', 91, 'succeeded')
  const young = await operation('a', 89, 'succeeded')
  const running = await operation('b', 200, 'running')
  const waiting = await operation('c', 200, 'queued')
  const retried = await operation('d', 200, 'failed')
  await redis.hset(`{understudy}:operation:${retried}`, 'endedAt', new Date(NOW - DAY_MS).toISOString())
  t.equal(decodeTime(old.slice(3)), NOW - 91 * DAY_MS)

  await redis.del('{understudy}:events')
  for (const days of [401, 399, 1])
    await redis.xadd('{understudy}:events', `${NOW - days * DAY_MS}-0`, 'v', '1', 'type', 'x')

  t.same(await sweep(redis, RETENTION, NOW), { operations: 2, events: 1 })
  for (const id of [ancient, old]) {
    t.equal(await store.operations.get(id), undefined)
    t.same(await redis.keys(`*${id}*`), [], 'no key of it is left')
    t.notOk(JSON.stringify(await redis.zrange('{understudy}:cluster:a:operations', '0', '-1')).includes(id))
  }
  const { items } = await store.operations.list({ limit: 10 })
  t.same(items.map(({ id }) => id).sort(), [young, running, waiting, retried].sort())
  t.match(await store.operations.get(running), { state: 'running', steps: [] })
  t.equal(await store.operations.activeOn('b'), running)
  t.equal(await redis.xlen('{understudy}:events'), 2)
  t.same(await sweep(redis, RETENTION, NOW), { operations: 0, events: 0 })

  await t.test('many of them', async t => {
    const many: string[] = []
    for (let at = 0; at < 450; at += 1)
      many.push(`op_${encodeTime(NOW - 95 * DAY_MS, 10)}${String(at).padStart(16, '0')}`)
    for (const id of many) {
      await redis.zadd('{understudy}:operations', 0, id)
      const record = {
        base: JSON.stringify({ id, cluster: 'a' }),
        state: 'failed',
        endedAt: '2020-01-01T00:00:00.000Z',
      }
      await redis.hset(`{understudy}:operation:${id}`, record)
    }
    t.match(await sweep(redis, RETENTION, NOW), { operations: 450 })
    t.equal(await redis.zcard('{understudy}:operations'), 4)
  })

  await t.test('once an hour, by one process', async t => {
    const gone = async () => (await redis.xlen('{understudy}:events')) === 0
    const stops = [1, 2, 3].map(() => startSweeping(redis, { ...RETENTION, eventDays: 0 }, makeLogger('silent')))
    await eventually(gone)
    await redis.xadd('{understudy}:events', `${NOW + 1}-0`, 'v', '1', 'type', 'x')
    await Promise.all(stops.map(stop => stop()))
    const stop = startSweeping(redis, { ...RETENTION, eventDays: 0 }, makeLogger('silent'))
    await stop()
    t.equal(await redis.xlen('{understudy}:events'), 1, 'it has been done within this hour')
    const ttl = await redis.pttl('{understudy}:swept')
    t.ok(ttl > 3_000_000 && ttl < 3_600_000)
  })
})
