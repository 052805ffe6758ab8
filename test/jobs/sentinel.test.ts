/** Redis by Sentinel: the master is lost while an operation runs. */
import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import type { planOperation } from '../../jobs/plan-operation.js'
import { openQueue } from '../../jobs/queue.js'
import { startWorker } from '../../jobs/worker.js'
import { newCluster } from '../../src/cluster/model.js'
import { openHostPool } from '../../src/host/host.js'
import { generateIdentity } from '../../src/host/identity.js'
import { makeLogger } from '../../src/logging.js'
import { isFinal } from '../../src/operations/operation.js'
import { type ChangeStep, stage } from '../../src/operations/step.js'
import { migrate } from '../../src/store/migrate.js'
import { checkRedis, connectRedis, RedisUnfit, untilReady } from '../../src/store/redis.js'
import { openStore } from '../../src/store/store.js'
import { eventually } from '../fixtures/redis.js'
import { startSentinels } from '../fixtures/sentinel.js'

for (const [signal, what] of [
  ['SIGKILL', 'is killed'],
  ['SIGSTOP', 'hangs'],
] as const) {
  t.test(`the master ${what} during an operation: it goes on, and succeeds once`, async t => {
    const sentinels = await startSentinels(t)
    const connect = async (purpose: 'requests' | 'operations') => {
      const redis = connectRedis(sentinels.url, { purpose })
      t.teardown(() => redis.disconnect())
      await untilReady(redis, 20_000)
      return redis
    }
    const requests = await connect('requests')
    await checkRedis(requests)
    await migrate(requests)
    const operations = await connect('operations')
    const masterKey = randomBytes(32)
    const store = openStore(operations, masterKey)
    const queue = openQueue(operations)
    const pool = openHostPool({ identity: generateIdentity('test') })

    // What would be hosts: a set of what was done, and a count of how often.
    const STEPS = 30
    const done = new Set<number>()
    const times = new Map<number, number>()
    const step = (index: number): ChangeStep => ({
      id: `pg1/step-${index}`,
      kind: 'change',
      title: `step ${index}`,
      node: 'pg1',
      actions: [
        {
          description: { kind: 'command', text: `true ${index}` },
          async perform(context) {
            times.set(index, (times.get(index) ?? 0) + 1)
            context.log(`doing ${index}`)
            await sleep(100)
            done.add(index)
          },
        },
      ],
      check: async () => (done.has(index) ? { done: true } : { done: false, reason: 'not yet' }),
    })
    const steps = Array.from({ length: STEPS }, (_, index) => step(index))
    const plan = (async () => ({
      plan: [stage('work', steps)],
      begin: async () => undefined,
      complete: async () => undefined,
    })) as unknown as typeof planOperation
    const worker = startWorker({
      ...{ store, queue, pool, connection: operations, concurrency: 2, leaseMs: 10_000, plan },
      logger: makeLogger('silent'),
    })
    t.teardown(async () => {
      await worker.close(0)
      await queue.close()
      await pool.close()
    })

    const ssh = { user: 'admin', hostKey: `SHA256:${'A'.repeat(43)}` }
    const spec = { name: 'orders', postgresVersion: 15, nodes: [{ name: 'pg1', host: '127.0.0.1', ssh }] }
    await store.clusters.create(newCluster(spec, new Date().toISOString()))
    const outcome = await store.operations.create({
      ...{ type: 'bootstrap-cluster', cluster: 'orders', input: {}, requestedBy: 'test' },
    })
    if ('conflict' in outcome) throw new Error('conflict')
    const { id } = outcome.created
    await queue.add(id)
    await eventually(async () => done.size >= 5, 60_000)
    const [first, second] = sentinels.servers
    t.equal(await sentinels.master(), first)
    sentinels.signal(first, signal)

    const operation = await eventually(async () => {
      const now = await store.operations.get(id)
      return now && isFinal(now.state) ? now : undefined
    }, 120_000)
    t.equal(await sentinels.master(), second, 'the replica is the master now')
    t.match(operation, { state: 'succeeded', result: { changedSteps: STEPS } })
    t.equal(done.size, STEPS)
    t.same(
      [...times.values()].filter(count => count !== 1),
      [],
      'no step was carried out twice',
    )
    const states = (await store.operations.events(id, '0-0', 10_000)).filter(({ type }) => type === 'state')
    t.equal(states.filter(({ data }) => data.state === 'succeeded').length, 1, 'it succeeded once')
    t.equal((await store.events.list({ type: 'operation-succeeded', limit: 10 })).items.length, 1)

    await t.test('and requests are answered again, and the next operation runs', async t => {
      t.equal(await eventually(() => requests.ping().catch(() => undefined), 30_000), 'PONG')
      await checkRedis(requests)
      const next = await store.operations.create({
        ...{ type: 'bootstrap-cluster', cluster: 'orders', input: {}, requestedBy: 'test' },
      })
      if ('conflict' in next) throw new Error('conflict')
      await queue.add(next.created.id)
      await eventually(async () => (await store.operations.get(next.created.id))?.state === 'succeeded', 60_000)
      t.pass()
    })
  })
}

t.test('the master of now is what is checked, and a replica may come to be it', async t => {
  const sentinels = await startSentinels(t, { replicaArgs: ['--appendonly', 'no'] })
  const redis = connectRedis(sentinels.url, { purpose: 'operations' })
  t.teardown(() => redis.disconnect())
  await checkRedis(redis)
  sentinels.signal(sentinels.servers[0], 'SIGKILL')
  await eventually(async () => (await sentinels.master()) === sentinels.servers[1], 60_000)
  await t.rejects(checkRedis(redis), RedisUnfit)
  await t.rejects(checkRedis(redis), { message: /append-only file/ })
})
