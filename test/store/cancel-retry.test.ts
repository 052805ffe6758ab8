import t, { type Test } from 'tap'
import { newCluster } from '../../src/cluster/model.js'
import type { StepRecord } from '../../src/operations/operation.js'
import { keys } from '../../src/store/keys.js'
import { KeyReused } from '../../src/store/once.js'
import {
  type OperationRequest,
  type OperationStore,
  openOperationStore,
  RecordChanged,
} from '../../src/store/operations.js'
import { connectRedis, untilReady } from '../../src/store/redis.js'
import { openStore } from '../../src/store/store.js'
import { startRedis } from '../fixtures/redis.js'

const by = { at: '2026-11-22T09:12:04.310Z', by: 'ops', reference: 'CHG-1' }
const request = { type: 'bootstrap-cluster', input: {}, requestedBy: 'test' } as const
const failed = { code: 'disk-full', detail: 'full', outcome: 'failed_partial', remedy: 'free some' } as const
const key = (name: string, fingerprint = 'same') => ({ key: `key-${name}`, fingerprint })

async function open(t: Test) {
  const server = await startRedis(t)
  const redis = connectRedis(server.url, { purpose: 'operations' })
  t.teardown(() => redis.disconnect())
  const store = openOperationStore(redis)
  return {
    server,
    redis,
    store,
    async create(cluster: string) {
      const outcome = await store.create({ ...request, cluster })
      if ('conflict' in outcome) throw new Error('conflict')
      return outcome.created.id
    },
    async take(id: string, worker = 'w') {
      const turn = await store.take(id, worker, 10_000)
      if (!turn) throw new Error('no turn')
      return turn
    },
  }
}

const states = async (store: OperationStore, id: string) =>
  (await store.events(id, '0-0', 100)).filter(({ type }) => type === 'state').map(({ data }) => data.state)

t.test('cancel', async t => {
  const { store, redis, create, take } = await open(t)

  await t.test('one that nobody has begun ends at once, and frees its cluster', async t => {
    const id = await create('queued')
    t.equal(await store.cancel(id, by), 'cancelled')
    t.match(await store.get(id), {
      ...{ state: 'cancelled', endedAt: by.at, cancelRequest: by, turns: 0 },
      error: { code: 'cancelled', outcome: 'not_started', detail: /cancelled by ops/ },
    })
    t.equal(await store.activeOn('queued'), undefined)
    t.notOk((await store.openIds()).includes(id))
    t.equal(await store.take(id, 'late', 1000), undefined, 'a worker that comes too late gets nothing')
    t.strictSame(await states(store, id), ['queued', 'cancelled'])
    t.equal(await store.cancel(id, by), 'ended')
  })

  await t.test('a running one is flagged, once', async t => {
    const id = await create('running')
    const turn = await take(id)
    t.equal(await store.cancelRequest(id), undefined)
    t.equal(await store.cancel(id, by), 'asked')
    t.equal(await store.cancel(id, { ...by, by: 'somebody else' }), 'asked')
    t.match(await store.get(id), { state: 'running', cancelRequest: by }, 'who was first stays')
    t.strictSame(await store.cancelRequest(id), by)
    t.equal(await store.activeOn('running'), id, 'the cluster is not free before it has ended')
    t.equal(await store.renew(turn, 10_000), true)
    await store.finish(turn, { state: 'cancelled' })
    t.equal(await store.cancel(id, by), 'ended')
    t.strictSame(await states(store, id), ['queued', 'running', 'running', 'cancelled'])
  })

  await t.test('an interrupted one, and one that is queued again, wait for a worker', async t => {
    const id = await create('interrupted')
    await store.release(await take(id))
    t.equal(await store.cancel(id, by), 'asked')
    t.match(await store.get(id), { state: 'interrupted' })
    const turn = await take(id, 'next')
    t.match(await store.get(id), { state: 'running', cancelRequest: by }, 'the next worker sees it')
    await store.finish(turn, { state: 'cancelled' })
    t.strictSame(await store.retry(id, by), { outcome: 'queued' })
    t.equal(await store.cancel(id, by), 'asked', 'what a turn before may have left on the hosts is for a worker')
    t.match(await store.get(id), { state: 'queued' })
  })

  await t.test('against a worker that takes it: either ends it at once, or flags it', async t => {
    for (let round = 0; round < 20; round += 1) {
      const id = await create(`race-${round}`)
      const [turn, outcome] = await Promise.all([store.take(id, 'w', 10_000), store.cancel(id, by)])
      t.equal(outcome, turn ? 'asked' : 'cancelled')
    }
  })

  t.equal(await store.cancel('op_nothing', by), undefined)
  t.equal(await store.retry('op_nothing', by), undefined)
  t.equal(await redis.exists('{understudy}:once:none'), 0, 'nothing is kept of requests without a key')
})

t.test('retry', async t => {
  const { store, create, take } = await open(t)
  const step: StepRecord = { id: 'a', title: 'a', stage: 's', kind: 'change', state: 'changed' }

  await t.test('the same operation, with its journal', async t => {
    const id = await create('orders')
    const first = await take(id)
    const journal = store.journal(first, error => t.fail(String(error)))
    await journal.planned([{ ...step, state: 'pending' }])
    await journal.step(step)
    t.strictSame(await store.retry(id, by), { outcome: 'refused', state: 'running' })
    await store.finish(first, { state: 'failed', error: failed })
    t.strictSame(await store.retry(id, by), { outcome: 'queued' })
    const again = await store.get(id)
    t.match(again, { state: 'queued', turns: 1, retries: 1, lastRetry: by, steps: [step] })
    for (const gone of ['error', 'endedAt', 'result', 'cancelRequest']) t.notOk(gone in (again ?? {}), gone)
    t.equal(await store.activeOn('orders'), id)
    t.ok((await store.openIds()).includes(id))
    t.strictSame(await store.retry(id, by), { outcome: 'refused', state: 'queued' })
    await t.rejects(store.finish(first, { state: 'succeeded' }), { name: 'TurnLost' }, 'the first turn is over')
    const second = await take(id, 'second')
    t.ok(second.epoch > first.epoch)
    await store.finish(second, { state: 'failed', error: failed })
    await store.retry(id, { at: by.at, by: 'ci' })
    t.match(await store.get(id), { turns: 2, retries: 2, lastRetry: { by: 'ci' } })
    await store.finish(await take(id), { state: 'succeeded' })
    t.strictSame(await store.retry(id, by), { outcome: 'refused', state: 'succeeded' })
    t.strictSame(await states(store, id), [
      ...['queued', 'running', 'failed'],
      ...['queued', 'running', 'failed'],
      ...['queued', 'running', 'succeeded'],
    ])
  })

  await t.test('not while the cluster is another operation’s', async t => {
    const id = await create('taken')
    await store.finish(await take(id), { state: 'cancelled' })
    const other = await create('taken')
    t.strictSame(await store.retry(id, by), { outcome: 'conflict', operation: other })
    t.match(await store.get(id), { state: 'cancelled' })
    await store.cancel(other, by)
    const retries = await Promise.all(Array.from({ length: 20 }, () => store.retry(id, by)))
    t.equal(retries.filter(answer => answer?.outcome === 'queued').length, 1, 'of many at once one does it')
  })
})

t.test('a retry of what is out of date', async t => {
  const { redis, take } = await open(t)
  const { clusters, operations } = openStore(redis, Buffer.alloc(32))
  const node = { name: 'pg1', host: '127.0.0.1', ssh: { user: 'admin', hostKey: `SHA256:${'A'.repeat(43)}` } }
  const describe = (name: string, at = by.at) =>
    clusters.create(newCluster({ name, postgresVersion: 15, nodes: [node] }, at))
  const ask = async (cluster: string, type: OperationRequest['type'] = 'change-access') => {
    const outcome = await operations.create({ ...request, type, cluster })
    if ('conflict' in outcome) throw new Error('conflict')
    return outcome.created.id
  }
  const fail = async (id: string) => operations.finish(await take(id), { state: 'failed', error: failed })
  const succeed = async (id: string) => operations.finish(await take(id), { state: 'succeeded' })
  const failing = async (cluster: string, type?: OperationRequest['type']) => {
    const id = await ask(cluster, type)
    await fail(id)
    return id
  }

  await t.test('not on another cluster that has the name now', async t => {
    await describe('reused')
    const id = await failing('reused', 'destroy-cluster')
    t.equal(await operations.clusterCreatedAt(id), by.at)
    await clusters.forget('reused')
    await describe('reused', '2026-11-22T10:00:00.000Z')
    t.strictSame(await operations.retry(id, by), { outcome: 'replaced' })
    t.match(await operations.get(id), { state: 'failed' })
    t.equal(await operations.activeOn('reused'), undefined, 'the new cluster is free')
    await redis.hdel(keys.operation(id), 'clusterCreatedAt')
    await clusters.forget('reused')
    await describe('reused', '2999-01-01T00:00:00.000Z')
    t.strictSame(await operations.retry(id, by), { outcome: 'replaced' }, 'nor one of before this was kept')
  })

  await t.test('not over what a later operation has done', async t => {
    await describe('overtaken')
    const id = await failing('overtaken')
    await failing('overtaken')
    const proof = await ask('overtaken', 'verify-replication')
    await succeed(proof)
    t.strictSame(await operations.retry(id, by), { outcome: 'queued' }, 'what failed, and a proof, overtake nobody')
    await fail(id)
    const later = await ask('overtaken')
    await succeed(later)
    t.strictSame(await operations.retry(id, by), { outcome: 'overtaken', operation: later })
    t.match(await operations.get(id), { state: 'failed', retries: 1 })
  })

  await t.test('not over what a later one has written into the record before it failed', async t => {
    await describe('rewritten')
    const id = await ask('rewritten')
    await clusters.update('rewritten', cluster => cluster)
    await fail(id)
    t.strictSame(await operations.retry(id, by), { outcome: 'queued' }, 'its own changes do not count')
    await fail(id)
    const later = await ask('rewritten')
    await clusters.update('rewritten', cluster => cluster)
    await fail(later)
    t.strictSame(await operations.retry(id, by), { outcome: 'overtaken' })
    t.strictSame(await operations.retry(later, by), { outcome: 'queued' }, 'the later one may be')
  })
})

t.test('a request with a key', async t => {
  const { server, store, create, take, redis } = await open(t)

  await t.test('fifty at once create one operation, and all are told which', async t => {
    const outcomes = await Promise.all(
      Array.from({ length: 50 }, () => store.create({ ...request, cluster: 'orders' }, { once: key('many') })),
    )
    const ids = outcomes.map(outcome => ('created' in outcome ? outcome.created.id : 'conflict'))
    t.equal(new Set(ids).size, 1)
    t.equal(outcomes.filter(outcome => 'repeated' in outcome).length, 49)
    const [id = ''] = ids
    await store.finish(await take(id), { state: 'failed', error: failed })
    const late = await store.create({ ...request, cluster: 'orders' }, { once: key('many') })
    t.match(late, { repeated: true, created: { id, state: 'failed' } }, 'also once it has ended')
    await t.rejects(store.create({ ...request, cluster: 'orders' }, { once: key('many', 'other') }), KeyReused)
    t.ok((await redis.pttl('{understudy}:once:key-many')) > 24 * 3_600_000)
  })

  await t.test('a conflict does not use the key up', async t => {
    const id = await create('busy')
    t.match(await store.create({ ...request, cluster: 'busy' }, { once: key('later') }), { conflict: id })
    await store.cancel(id, by)
    t.notOk('repeated' in (await store.create({ ...request, cluster: 'busy' }, { once: key('later') })))
  })

  await t.test('retries and cancels once', async t => {
    const id = await create('retried')
    await store.finish(await take(id), { state: 'failed', error: failed })
    t.strictSame(await store.retry(id, by, { once: key('retry') }), { outcome: 'queued' })
    await store.finish(await take(id), { state: 'failed', error: failed })
    t.strictSame(
      await store.retry(id, by, { once: key('retry') }),
      { outcome: 'queued' },
      'is answered as the first time',
    )
    t.match(await store.get(id), { state: 'failed', retries: 1 }, 'and not done again')
    await t.rejects(store.retry(id, by, { once: key('retry', 'other') }), KeyReused)
    await store.retry(id, by)
    t.equal(await store.cancel(id, by, { once: key('cancel') }), 'asked')
    await store.finish(await take(id), { state: 'cancelled' })
    await store.retry(id, by)
    t.equal(await store.cancel(id, by, { once: key('cancel') }), 'asked')
    t.equal(await store.cancelRequest(id), undefined, 'an old cancel does not end the new try')
    await t.rejects(store.cancel(id, by, { once: key('cancel', 'other') }), KeyReused)
  })

  await t.test('an answer that is lost with its connection is had by asking again', async t => {
    const requests = connectRedis(server.url, { purpose: 'requests' })
    t.teardown(() => requests.disconnect())
    await untilReady(requests, 5000)
    const impatient = openOperationStore(requests)
    let lost = 0
    for (let round = 0; round < 30; round += 1) {
      const cluster = `lost-${round}`
      await untilReady(requests, 5000)
      const asked = impatient.create({ ...request, cluster }, { once: key(cluster) }).then(
        outcome => outcome,
        () => undefined,
      )
      // Whether the script has run by then is left to chance: both must come out right.
      await redis.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
      if ((await asked) === undefined) lost += 1
      const again = await store.create({ ...request, cluster }, { once: key(cluster) })
      if (!('created' in again)) throw new Error('a conflict with itself')
      t.equal(await store.activeOn(cluster), again.created.id)
      t.equal((await store.list({ cluster, limit: 10 })).items.length, 1, 'there is one')
    }
    t.comment(`${lost} of 30 answers were lost`)
  })
})

t.test('a record that has changed since it was read', async t => {
  const { redis } = await open(t)
  const store = openStore(redis, Buffer.alloc(32))
  const node = { name: 'pg1', host: '127.0.0.1', ssh: { user: 'admin', hostKey: `SHA256:${'A'.repeat(43)}` } }
  await store.clusters.create(newCluster({ name: 'orders', postgresVersion: 15, nodes: [node] }, by.at))
  const create = (clusterVersion: number) =>
    store.operations.create({ ...request, cluster: 'orders' }, { clusterVersion })
  await store.clusters.update('orders', cluster => cluster)
  await t.rejects(create(1), RecordChanged)
  t.equal(await store.operations.activeOn('orders'), undefined)
  t.ok('created' in (await create(2)))
  const elsewhere = { ...request, cluster: 'nowhere' }
  await t.rejects(store.operations.create(elsewhere, { clusterVersion: 1 }), RecordChanged)
})
