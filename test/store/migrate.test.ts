import { randomBytes } from 'node:crypto'
import t from 'tap'
import { migrate, StoreHalfRestored, StoreTooNew } from '../../src/store/migrate.js'
import { connectRedis } from '../../src/store/redis.js'
import { SCHEMA_VERSION } from '../../src/store/schema.js'
import { openStore } from '../../src/store/store.js'
import { eventually, startRedis } from '../fixtures/redis.js'

const ID = 'op_01KAR3QJ7ZC0V7W0M2E9T1X5YB'
const OPEN = 'op_01KAR3QJ7ZC0V7W0M2E9T1X5YC'
const TOKEN = 'und_01kar3p5r4qb6bmd2n3e4g5h6j_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA'

/** As the service wrote them before records carried a version: taken from a store of that time. */
const CLUSTER = {
  name: 'orders',
  postgresVersion: 15,
  port: 5432,
  nodes: [
    {
      name: 'pg1',
      host: '192.0.2.11',
      ssh: { user: 'admin', port: 22, hostKey: 'SHA256:kL4Sd0mNsCXzAVEoGUfOTlZeIkoQbBFNrHqJCrW9yZQ' },
      nodeId: 1,
      joinedAt: '2026-11-23T05:18:33.180Z',
    },
  ],
  nextNodeId: 2,
  createdAt: '2026-11-23T05:18:07.079Z',
  version: 2,
  systemIdentifier: '7575205301829416217',
  builtAt: '2026-11-23T05:18:33.180Z',
  controllers: ['192.0.2.1'],
}
const TOKEN_RECORD = {
  name: 'ci',
  role: 'admin',
  sha256: 'a3b8f5c1d6e94f0b8a7c6d5e4f3a2b1c0d9e8f7a6b5c4d3e2f1a0b9c8d7e6f5a',
  createdAt: '2026-11-23T05:17:59.000Z',
}
const base = (id: string) => ({
  id,
  type: 'bootstrap-cluster',
  cluster: 'orders',
  requestedBy: 'admin',
  createdAt: '2026-11-23T05:18:07.084Z',
})
const STEP = {
  id: 'pg1/packages',
  title: 'install postgresql-15 and postgresql-15-repmgr',
  stage: 'prepare the hosts',
  node: 'pg1',
  kind: 'change',
  state: 'changed',
  startedAt: '2026-11-23T05:18:07.583Z',
  endedAt: '2026-11-23T05:18:21.102Z',
}
const RESULT = { summary: 'Done.', changedSteps: 1, unchangedSteps: 0, verifiedSteps: 0 }

async function open(t: { teardown(close: () => unknown): unknown }) {
  const { url } = await startRedis(t)
  const connect = () => {
    const redis = connectRedis(url, { purpose: 'operations' })
    t.teardown(() => redis.disconnect())
    return redis
  }
  return { redis: connect(), connect }
}

async function writeVersionOne({ redis }: Awaited<ReturnType<typeof open>>) {
  const key = (name: string) => `{understudy}:${name}`
  await redis.hset(key('clusters'), 'orders', JSON.stringify(CLUSTER))
  await redis.hset(key('tokens'), TOKEN.split('_')[1] ?? '', JSON.stringify(TOKEN_RECORD))
  for (const [id, state] of [
    [ID, 'succeeded'],
    [OPEN, 'queued'],
  ] as const) {
    await redis.hset(key(`operation:${id}`), {
      base: JSON.stringify(base(id)),
      input: '{}',
      state,
      epoch: '1',
      turns: '1',
    })
    await redis.zadd(key('operations'), 0, id)
    await redis.zadd(key('cluster:orders:operations'), 0, id)
  }
  await redis.hset(key(`operation:${ID}`), {
    order: JSON.stringify([STEP.id]),
    startedAt: '2026-11-23T05:18:07.305Z',
    endedAt: '2026-11-23T05:18:33.184Z',
    result: JSON.stringify(RESULT),
  })
  await redis.hset(key(`operation:${ID}:steps`), STEP.id, JSON.stringify(STEP))
  await redis.xadd(key(`operation:${ID}:events`), '*', 'type', 'state', 'data', '{"state":"queued"}')
  await redis.sadd(key('operations:open'), OPEN)
  await redis.set(key('cluster:orders:active'), OPEN)
}

t.test('an empty store is of this version from the beginning', async t => {
  const { redis } = await open(t)
  t.same(await migrate(redis), [])
  t.equal(await redis.get('{understudy}:schema'), String(SCHEMA_VERSION))
  const store = openStore(redis, randomBytes(32))
  await store.tokens.create('ci')
  t.same(await migrate(redis), [])
})

t.test('records without a version become those of this one, and say the same', async t => {
  const bed = await open(t)
  const { redis } = bed
  await writeVersionOne(bed)
  t.same(await migrate(redis), [2])
  t.equal(await redis.get('{understudy}:schema'), '2')
  t.equal(await redis.exists('{understudy}:migrating'), 0)
  const raw = async (hash: string) => JSON.parse((await redis.hvals(`{understudy}:${hash}`))[0] ?? 'null')
  t.same(await raw('clusters'), { schema: 2, ...CLUSTER })
  t.same(await raw('tokens'), { schema: 2, ...TOKEN_RECORD })
  t.match(await redis.hgetall(`{understudy}:operation:${ID}`), { schema: '2', origin: '{"name":"admin"}' })

  const store = openStore(redis, randomBytes(32))
  t.same(await store.clusters.get('orders'), CLUSTER, 'nothing of the version is seen')
  t.same(await store.operations.get(ID), {
    ...base(ID),
    state: 'succeeded',
    turns: 1,
    startedAt: '2026-11-23T05:18:07.305Z',
    endedAt: '2026-11-23T05:18:33.184Z',
    steps: [STEP],
    result: RESULT,
  })
  const turn = await store.operations.take(OPEN, 'worker', 1000)
  t.ok(turn, 'what was queued is taken up')
  t.match((await store.events.list({ limit: 1 })).items, [{ operation: OPEN, who: { name: 'admin' } }])
  t.same(await migrate(redis), [], 'a second time there is nothing to do')
  const changed = await store.clusters.update('orders', cluster => ({ ...cluster, port: 6000 }))
  t.same(changed, { ...CLUSTER, port: 6000, version: 3 })
  t.equal((await raw('clusters')).schema, 2, 'and what is written later carries it')
})

t.test('cut short in its middle, the next start goes on', async t => {
  const bed = await open(t)
  const { redis } = bed
  await writeVersionOne(bed)
  // What a start that was killed leaves: some records done, its lock about to run out.
  await redis.hset('{understudy}:clusters', 'orders', JSON.stringify({ schema: 2, ...CLUSTER }))
  await redis.set('{understudy}:migrating', 'dead', 'PX', 500)
  t.same(await migrate(redis), [2])
  t.match(await redis.hgetall(`{understudy}:operation:${OPEN}`), { schema: '2' })
})

t.test('many processes that start at once: one of them does it', async t => {
  const bed = await open(t)
  await writeVersionOne(bed)
  const done = await Promise.all(Array.from({ length: 8 }, () => migrate(bed.connect())))
  t.same(
    done.filter(steps => steps.length > 0),
    [[2]],
  )
})

t.test('a store of a newer version, or half of one, is not touched', async t => {
  const { redis } = await open(t)
  await redis.set('{understudy}:schema', '3')
  await t.rejects(migrate(redis), new StoreTooNew(3))
  await t.rejects(migrate(redis), { message: /written by a newer version .* version 3, this one knows 2\. Start that/ })
  await redis.set('{understudy}:schema', '2')
  await redis.set('{understudy}:restoring', '1')
  await t.rejects(migrate(redis), new StoreHalfRestored())
  await redis.del('{understudy}:restoring')
  t.same(await eventually(() => migrate(redis)), [])
})
