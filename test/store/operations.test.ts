import t, { type Test } from 'tap'
import type { StepRecord } from '../../src/operations/operation.js'
import { keys } from '../../src/store/keys.js'
import { type OperationStore, openOperationStore, type Turn } from '../../src/store/operations.js'
import { connectRedis } from '../../src/store/redis.js'
import { eventually, startRedis, type TestRedis } from '../fixtures/redis.js'

const LEASE_MS = 10_000
const request = { type: 'bootstrap-cluster', input: {}, requestedBy: 'test' } as const
const record = (id: string, change: Partial<StepRecord> = {}): StepRecord => ({
  ...{ id, title: `title of ${id}`, stage: 's', kind: 'change', state: 'pending' },
  ...change,
})

interface Bed {
  server: TestRedis
  store: OperationStore
  redis: ReturnType<typeof connectRedis>
  /** As another process sees it. */
  another(): OperationStore
  create(cluster: string): Promise<string>
  take(id: string, worker?: string, leaseMs?: number): Promise<Turn>
}

async function open(t: Test): Promise<Bed> {
  const server = await startRedis(t)
  const connect = () => {
    const redis = connectRedis(server.url, { purpose: 'operations' })
    t.teardown(() => redis.disconnect())
    return redis
  }
  const redis = connect()
  const store = openOperationStore(redis)
  return {
    server,
    store,
    redis,
    another: () => openOperationStore(connect()),
    async create(cluster) {
      const outcome = await store.create({ ...request, cluster })
      if ('conflict' in outcome) throw new Error(`conflict with ${outcome.conflict}`)
      return outcome.created.id
    },
    async take(id, worker = 'worker', leaseMs = LEASE_MS) {
      const turn = await store.take(id, worker, leaseMs)
      if (!turn) throw new Error('no turn')
      return turn
    },
  }
}

const noError = (error: unknown) => {
  throw error
}

t.test('asking for operations', async t => {
  const { store, another, create, take } = await open(t)

  await t.test('fifty at once on one cluster: one is made, and the others are told which', async t => {
    const stores = [store, another(), another()]
    const outcomes = await Promise.all(
      Array.from({ length: 50 }, (_, index) =>
        (stores[index % 3] ?? store).create({ ...request, cluster: 'crowded', requestedBy: `caller ${index}` }),
      ),
    )
    const made = outcomes.flatMap(outcome => ('created' in outcome ? [outcome.created.id] : []))
    const conflicts = outcomes.flatMap(outcome => ('conflict' in outcome ? [outcome.conflict] : []))
    t.equal(made.length, 1)
    t.equal(conflicts.length, 49)
    t.strictSame([...new Set(conflicts)], made)
    t.equal(await store.activeOn('crowded'), made[0])
    t.equal((await store.list({ cluster: 'crowded', limit: 100 })).items.length, 1, 'the others have left nothing')
    t.strictSame(await store.openIds(), made)
  })

  await t.test('the record of a new one', async t => {
    const input = { node: { name: 'pg4', host: '10.0.0.4' } }
    const outcome = await store.create({
      type: 'add-standby',
      cluster: 'orders',
      node: 'pg4',
      input,
      requestedBy: 'ci',
    })
    if (!('created' in outcome)) throw new Error('conflict')
    const { created } = outcome
    t.match(created, {
      type: 'add-standby',
      cluster: 'orders',
      node: 'pg4',
      requestedBy: 'ci',
      state: 'queued',
      turns: 0,
    })
    t.match(created.id, /^op_[0-9A-HJKMNP-TV-Z]{26}$/)
    t.strictSame(await store.get(created.id), created, 'what the caller is told is what is kept')
    t.strictSame(await store.input(created.id), input)
    t.strictSame(
      (await store.events(created.id, '0-0', 10)).map(({ type, data }) => [type, data]),
      [['state', { state: 'queued' }]],
    )
    t.equal(await store.get('op_nothing'), undefined)
    t.equal(await store.input('op_nothing'), null)
    t.equal(await store.activeOn('nobody'), undefined)
  })

  await t.test('listing, page by page', async t => {
    const ids: string[] = []
    for (let index = 0; index < 23; index += 1) {
      const id = await create(index % 2 === 0 ? 'even' : 'odd')
      ids.push(id)
      await store.finish(await take(id), { state: 'succeeded' })
    }
    const seen: string[] = []
    let before: string | undefined
    let pages = 0
    do {
      const page = await store.list({ limit: 10, ...(before === undefined ? {} : { before }) })
      seen.push(...page.items.map(({ id }) => id))
      before = page.nextCursor
      pages += 1
    } while (before !== undefined)
    t.equal(pages, 3)
    t.equal(seen.length, 25, 'each once')
    t.strictSame(seen, [...seen].sort().reverse(), 'the newest first')
    t.ok(ids.every(id => seen.includes(id)))

    const even = await store.list({ cluster: 'even', limit: 12 })
    t.equal(even.items.length, 12)
    t.ok(even.items.every(({ cluster }) => cluster === 'even'))
    t.notOk('nextCursor' in even, 'a full page that is the last one says so')
    t.ok('nextCursor' in (await store.list({ cluster: 'even', limit: 11 })))
    t.strictSame(await store.list({ cluster: 'nobody', limit: 10 }), { items: [] })
  })
})

t.test('turns', async t => {
  const { server, store, redis, another, create, take } = await open(t)

  await t.test('of many workers one has it', async t => {
    const id = await create('many')
    const stores = [store, another(), another()]
    const turns = await Promise.all(
      Array.from({ length: 50 }, (_, index) => (stores[index % 3] ?? store).take(id, `worker ${index}`, LEASE_MS)),
    )
    const [winner, ...others] = turns.filter(turn => turn !== undefined)
    t.strictSame(others, [])
    t.equal(await redis.get(keys.lease(id)), winner?.worker)
    t.match(await store.get(id), { state: 'running', turns: 1, startedAt: /^20/ })
    t.equal(await store.hasWorker(id), true)
    t.equal(await store.take('op_nothing', 'w', LEASE_MS), undefined)
  })

  await t.test('a lease that ran out: another one takes it, with a larger epoch', async t => {
    const id = await create('expiring')
    const first = await take(id, 'first', 500)
    t.equal(await store.take(id, 'second', LEASE_MS), undefined, 'not before')
    await eventually(async () => !(await store.hasWorker(id)))
    const second = await take(id, 'second')
    t.ok(second.epoch > first.epoch)
    t.match(await store.get(id), { state: 'running', turns: 2 })
    t.equal(await store.renew(first, LEASE_MS), false, 'the first is told that it is over')
    t.equal(await store.renew(second, LEASE_MS), true)
    t.equal(await redis.get(keys.lease(id)), 'second', 'and has not taken the lease')
  })

  await t.test('a lease that ran out and that nobody took is taken up again', async t => {
    const id = await create('slow')
    const turn = await take(id, 'slow', 50)
    await eventually(async () => !(await store.hasWorker(id)))
    t.equal(await store.renew(turn, LEASE_MS), true)
    t.equal(await store.hasWorker(id), true)
    t.equal(await store.take(id, 'other', LEASE_MS), undefined)
  })

  await t.test('renewing makes it last', async t => {
    const id = await create('lasting')
    const turn = await take(id, 'w', 5000)
    t.equal(await store.renew(turn, 60_000), true)
    t.ok((await redis.pttl(keys.lease(id))) > 50_000)
    t.equal(await store.renew({ ...turn, epoch: turn.epoch - 1 }, LEASE_MS), false)
    t.equal(await store.renew({ ...turn, worker: 'impostor' }, LEASE_MS), false)
  })

  await t.test('a restart of Redis takes nothing from anybody', async t => {
    const id = await create('restarted')
    const turn = await take(id)
    const journal = store.journal(turn, noError)
    await journal.planned([record('a')])
    await server.kill()
    const waiting = [store.renew(turn, LEASE_MS), journal.step(record('a', { state: 'running' }))] as const
    await server.start()
    t.equal(await waiting[0], true)
    await waiting[1]
    t.match(await store.get(id), { state: 'running', turns: 1, steps: [{ id: 'a', state: 'running' }] })
    t.equal(await store.activeOn('restarted'), id)
  })

  await t.test('epochs grow from one operation of a cluster to the next, whatever the clock says', async t => {
    let last = 0
    for (let round = 0; round < 10; round += 1) {
      const id = await create('growing')
      const turn = await take(id)
      t.ok(turn.epoch > last)
      last = turn.epoch
      await store.finish(turn, { state: 'succeeded' })
      if (round === 5) {
        // As if the clock of Redis had been an hour ahead until now.
        last += 3_600_000
        await redis.set(keys.clusterEpoch('growing'), String(last))
      }
    }
    t.ok(Number.isSafeInteger(last))
  })

  await t.test('what has ended is not taken', async t => {
    for (const state of ['succeeded', 'failed', 'cancelled'] as const) {
      const id = await create(`over-${state}`)
      await store.finish(await take(id), { state })
      t.equal(await store.take(id, 'late', LEASE_MS), undefined, state)
    }
  })

  await t.test('one that was given back is free at once, and its worker has nothing more to say', async t => {
    const id = await create('released')
    const turn = await take(id)
    const journal = store.journal(turn, noError)
    await journal.planned([record('a')])
    await store.release(turn)
    t.match(await store.get(id), { state: 'interrupted' })
    t.equal(await store.hasWorker(id), false)
    t.equal(await store.activeOn('released'), id, 'the cluster stays taken')
    // A renewal may be under way when it is given back.
    t.equal(await store.renew(turn, LEASE_MS), false)
    t.equal(await store.hasWorker(id), false)
    await t.rejects(journal.step(record('a', { state: 'failed' })), { name: 'TurnLost' })
    const next = await take(id, 'next')
    t.ok(next.epoch > turn.epoch)
    await store.release(turn)
    t.equal(await store.hasWorker(id), true, 'giving it back twice takes it from nobody')
    t.match(await store.get(id), { state: 'running' })
  })

  await t.test('a renewal after the end brings nothing back', async t => {
    const id = await create('ended')
    const turn = await take(id)
    await store.finish(turn, { state: 'succeeded' })
    t.equal(await store.renew(turn, LEASE_MS), false)
    t.equal(await store.hasWorker(id), false)
    t.match(await store.get(id), { state: 'succeeded' })
  })
})

t.test('a worker that is gone', async t => {
  const { store, create, take, redis } = await open(t)

  await t.test('is seen by its missing lease alone', async t => {
    const id = await create('orders')
    t.equal(await store.markInterrupted(id), false, 'queued is not interrupted')
    const turn = await take(id, 'w', LEASE_MS)
    t.equal(await store.markInterrupted(id), false)
    await redis.del(keys.lease(id))
    const marked = await Promise.all(Array.from({ length: 10 }, () => store.markInterrupted(id)))
    t.equal(marked.filter(Boolean).length, 1, 'by one')
    t.match(await store.get(id), { state: 'interrupted' })

    t.equal(await store.renew(turn, LEASE_MS), true, 'it was not gone after all')
    t.match(await store.get(id), { state: 'running' }, 'and the record does not say so any longer')
    t.strictSame(
      (await store.events(id, '0-0', 100)).map(({ data }) => data.state),
      ['queued', 'running', 'interrupted', 'running'],
    )
    await store.finish(turn, { state: 'succeeded' })
    t.equal(await store.markInterrupted(id), false)
    t.equal(await store.markInterrupted('op_nothing'), false)
  })

  await t.test('its operation is queued again by one', async t => {
    const id = await create('orders')
    const may = await Promise.all(Array.from({ length: 10 }, () => store.mayRequeue(id, 200)))
    t.equal(may.filter(Boolean).length, 1)
    await eventually(async () => store.mayRequeue(id, 200))
  })
})

t.test('the journal', async t => {
  const { store, redis, create, take } = await open(t)

  await t.test('a superseded worker writes nothing', async t => {
    const id = await create('superseded')
    const old = await take(id, 'old', 50)
    const errors: unknown[] = []
    const journal = store.journal(old, error => errors.push(error))
    await journal.planned([record('a')])
    await journal.step(record('a', { state: 'running' }))
    await eventually(async () => !(await store.hasWorker(id)))
    const turn = await take(id, 'new')
    const before = await store.get(id)
    const events = await store.events(id, '0-0', 100)

    await t.rejects(journal.step(record('a', { state: 'failed' })), { name: 'TurnLost' })
    await t.rejects(journal.planned([record('b')]), { name: 'TurnLost' })
    await t.rejects(store.finish(old, { state: 'failed' }), { name: 'TurnLost' })
    await store.release(old)
    journal.log('a', 'line')
    journal.progress('a', { doneBytes: 1 })
    await eventually(async () => errors.length === 2)
    t.match(errors, [{ name: 'TurnLost' }, { name: 'TurnLost' }])

    t.strictSame(await store.get(id), before)
    t.strictSame(await store.events(id, '0-0', 100), events)
    t.equal(await store.activeOn('superseded'), id)
    t.equal(await store.hasWorker(id), true)
    await store.journal(turn, noError).step(record('a', { state: 'changed' }))
    t.match((await store.get(id))?.steps, [{ id: 'a', state: 'changed' }])
  })

  await t.test('steps come in the order of the plan; what an earlier turn wrote stays', async t => {
    const id = await create('resumed')
    const first = await take(id)
    const journal = store.journal(first, noError)
    await journal.planned(['z', 'm', 'a'].map(step => record(step)))
    await journal.step(record('z', { state: 'changed', note: 'done' }))
    await store.release(first)
    const second = store.journal(await take(id, 'second'), noError)
    await second.planned(['z', 'new', 'm', 'a'].map(step => record(step)))
    t.match(
      (await store.get(id))?.steps.map(({ id, state }) => [id, state]),
      [
        ['z', 'changed'],
        ['new', 'pending'],
        ['m', 'pending'],
        ['a', 'pending'],
      ],
    )
    t.strictSame(await second.read('z'), record('z', { state: 'changed', note: 'done' }))
    t.equal(await second.read('nothing'), undefined)
    await second.planned([record('a')])
    t.strictSame(
      (await store.get(id))?.steps.map(({ id, state }) => [id, state]),
      [
        ['z', 'changed'],
        ['a', 'pending'],
      ],
      'what was done stays in the record of a plan that does not have it any more; what was only planned does not',
    )
  })

  await t.test('progress does not bring an older state back, and the last of it is what is shown', async t => {
    const id = await create('copying')
    const journal = store.journal(await take(id), noError)
    await journal.planned([record('clone'), record('next')])
    await journal.step(record('clone', { state: 'running' }))
    journal.progress('clone', { doneBytes: 10, totalBytes: 100, percent: 10 })
    await eventually(async () => (await store.get(id))?.steps[0]?.progress?.percent === 10)
    t.match((await store.get(id))?.steps[0], { state: 'running' })

    // Too soon after the one before: it is not written by itself.
    journal.progress('clone', { doneBytes: 90, totalBytes: 100, percent: 90 })
    const last = { doneBytes: 100, totalBytes: 100, percent: 100 }
    await journal.step(record('clone', { state: 'changed', progress: last }))
    t.match((await store.get(id))?.steps[0], { state: 'changed', progress: last })
    t.notOk('progress' in ((await store.get(id))?.steps[1] ?? {}))
    const events = (await store.events(id, '0-0', 100)).filter(({ type }) => type === 'progress')
    t.strictSame(
      events.map(({ data }) => data),
      [{ step: 'clone', doneBytes: 10, totalBytes: 100, percent: 10 }],
      'at most one a second',
    )
  })

  await t.test('events are in order, and one can go on after any of them', async t => {
    const id = await create('followed')
    const turn = await take(id)
    const journal = store.journal(turn, noError)
    await journal.planned([record('a')])
    await journal.step(record('a', { state: 'running' }))
    for (let line = 0; line < 50; line += 1) journal.log('a', `line ${line}`)
    await journal.step(record('a', { state: 'changed' }))
    const result = { summary: 'done', changedSteps: 1, unchangedSteps: 0, verifiedSteps: 0 }
    await store.finish(turn, { state: 'succeeded', result })

    const all = await store.events(id, '0-0', 1000)
    t.strictSame(
      all.map(({ type, data }) => [type, data.state ?? data.line]),
      [
        ['state', 'queued'],
        ['state', 'running'],
        ['step', 'running'],
        ...Array.from({ length: 50 }, (_, line) => ['log', `line ${line}`]),
        ['step', 'changed'],
        ['state', 'succeeded'],
      ],
    )
    t.strictSame(all.at(-1)?.data, { state: 'succeeded', result })
    t.ok(all.every(({ id }) => /^\d+-\d+$/.test(id)))
    for (const at of [0, 10, all.length - 1]) {
      t.strictSame(await store.events(id, all[at]?.id ?? '', 1000), all.slice(at + 1), `after event ${at}`)
    }
    t.strictSame(await store.events(id, '0-0', 7), all.slice(0, 7))
    t.strictSame(await store.events('op_nothing', '0-0', 7), [])
  })

  await t.test('lines of any kind come back as they were', async t => {
    const id = await create('lines')
    const journal = store.journal(await take(id), noError)
    const lines = ['', '"quoted"', '{"json":true}', 'a\tb', 'naïve → ✓', '\u0000', 'x'.repeat(2000)]
    for (const line of [...lines, 'y'.repeat(10_000)]) journal.log('a', line)
    await journal.planned([])
    const events = (await store.events(id, '0-0', 100)).filter(({ type }) => type === 'log')
    t.strictSame(
      events.slice(0, -1).map(({ data }) => data.line),
      lines,
    )
    t.match(events.at(-1)?.data.line, /^y{1900,2000}[^y]/, 'a long one is cut, and says so')
  })

  await t.test('an end frees the cluster, and says how it went', async t => {
    const id = await create('ending')
    const error = { code: 'disk-full', detail: 'full', outcome: 'failed_partial', remedy: 'free some' } as const
    await store.finish(await take(id), { state: 'failed', error })
    t.match(await store.get(id), { state: 'failed', error, endedAt: /^20/ })
    t.equal(await store.activeOn('ending'), undefined)
    t.equal(await store.hasWorker(id), false)
    t.notOk((await store.openIds()).includes(id))
    const next = await create('ending')
    t.not(next, id)
    t.equal(await store.activeOn('ending'), next)
  })

  await t.test('an end does not free a cluster that has become another operation’s', async t => {
    const id = await create('reassigned')
    const turn = await take(id)
    await redis.set(keys.activeOperation('reassigned'), 'op_another')
    await store.finish(turn, { state: 'succeeded' })
    t.equal(await store.activeOn('reassigned'), 'op_another')
  })
})
