import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import type { Operation } from '../../src/operations/operation.js'
import { startApp } from '../fixtures/app.js'
import { failure, finish, problemOf, queued, told } from './fixtures/requests.js'

const UNKNOWN = 'op_01KAR3QJ7ZC0V7W0M2E9T1X5YB'

t.test('operations', async t => {
  const test = await startApp(t)
  const { app, headers, store } = test
  const get = (url: string, more: Record<string, string> = {}) => app.inject({ url, headers: { ...headers, ...more } })

  t.test('none yet', async t => {
    t.same((await get('/v1/operations')).json(), { items: [] })
    t.equal((await get('/v1/operations', { accept: 'text/plain' })).body, 'No operations yet.\n')
  })

  t.test('the list goes by pages, newest first, and misses none', async t => {
    const made: string[] = []
    for (let at = 0; at < 23; at += 1) {
      // Two of one millisecond have no order between them.
      await sleep(2)
      made.unshift((await queued(test, `c${at % 2 === 0 ? 'even' : 'odd'}-${at}`)).id)
    }
    const walk = async (query: string) => {
      const seen: string[] = []
      for (let cursor: string | undefined = ''; cursor !== undefined; ) {
        const page: { items: Operation[]; nextCursor?: string } = (
          await get(`/v1/operations?${query}${cursor === '' ? '' : `&cursor=${cursor}`}`)
        ).json()
        seen.push(...page.items.map(({ id }) => id))
        cursor = page.nextCursor
      }
      return seen
    }
    t.same(await walk('limit=5'), made)
    t.same(await walk('limit=23'), made, 'a full last page has no next one')
    t.same(await walk(''), made, '20 a page by default')
    t.same(await walk('cluster=ceven-4'), [made[18]])
    t.same(await walk('cluster=nobody'), [])

    const first = (await get('/v1/operations?limit=5')).json()
    await queued(test, 'later')
    const second = (await get(`/v1/operations?limit=5&cursor=${first.nextCursor}`)).json()
    t.same(
      second.items.map(({ id }: Operation) => id),
      made.slice(5, 10),
      'what comes in between moves no page',
    )
    const text = (await get('/v1/operations?limit=2', { accept: 'text/plain' })).body
    t.match(text, /^OPERATION +TYPE +CLUSTER +NODE +STATE +CREATED +BY\nop_/)
    t.match(text, /\nMore: \/v1\/operations\?cursor=op_[0-9A-Z]{26}\n$/)
    for (const cursor of ['x', 'op_', `${UNKNOWN}x`, UNKNOWN.toLowerCase()])
      t.match(told(await get(`/v1/operations?cursor=${cursor}`)), problemOf(400, 'bad-request'), cursor)
  })

  t.test('an unknown one', async t => {
    for (const path of ['', '?wait=5', '/events', '/log']) {
      const started = performance.now()
      const response = await get(`/v1/operations/${UNKNOWN}${path}`)
      t.match(told(response), problemOf(404, 'not-found'), path)
      t.match(response.json().detail, /GET \/v1\/operations lists them/)
      t.ok(performance.now() - started < 1000, 'at once')
      t.match(told(await get(`/v1/operations/op_1${path}`)), problemOf(400, 'bad-request'), 'no id at all')
    }
  })

  t.test('wait holds the answer, and gives it as soon as there is one', async t => {
    const timed = async (url: string, more?: Record<string, string>) => {
      const started = performance.now()
      const response = await get(url, more)
      return { response, ms: performance.now() - started }
    }
    const { id } = await queued(test, 'waits')
    const full = await timed(`/v1/operations/${id}?wait=1`)
    t.equal(full.response.json().state, 'queued')
    t.equal(full.response.headers['retry-after'], '2')
    t.ok(full.ms >= 990 && full.ms < 10_000, `${full.ms} ms`)
    t.ok((await timed(`/v1/operations/${id}?wait=0`)).ms < 5000)
    t.ok((await timed(`/v1/operations/${id}`)).ms < 5000, 'not held unless asked')
    t.ok((await timed(`/v1/operations/${id}?wait=0`, { prefer: 'wait=30' })).ms < 5000, '?wait= goes before Prefer')

    const early = timed(`/v1/operations/${id}?wait=30`)
    const preferred = timed(`/v1/operations/${id}`, { prefer: 'respond-async, wait=30' })
    const many = Promise.all(Array.from({ length: 200 }, () => timed(`/v1/operations/${id}?wait=30`)))
    await sleep(300)
    await finish(test, id)
    for (const { response, ms } of [await early, await preferred, ...(await many)]) {
      if (response.json().state !== 'succeeded' || ms > 10_000) t.fail(`${response.json().state} after ${ms} ms`)
    }
    t.equal((await early).response.headers['retry-after'], undefined, 'nothing to come back for')
    t.equal((await preferred).response.headers['preference-applied'], 'wait=30')
    t.ok((await timed(`/v1/operations/${id}?wait=30`)).ms < 5000, 'what has ended is not waited for')

    for (const wait of ['61', '-1', 'x', '1.5', '', '60s', '1e1000', 'null'])
      t.match(told(await get(`/v1/operations/${id}?wait=${wait}`)), problemOf(400, 'bad-request'), `wait=${wait}`)
    for (const prefer of ['wait=x', 'wait', 'await=5', 'wait=-1', '', 'wait=99999999999']) {
      const answer = await get(`/v1/operations/${id}`, { prefer })
      t.equal(answer.statusCode, 200, `Prefer: ${prefer} may be ignored`)
      t.equal(answer.headers['preference-applied'], undefined)
    }
    t.equal((await get(`/v1/operations/${id}`, { prefer: 'wait="3600"' })).headers['preference-applied'], 'wait=60')
  })

  t.test('a failed one is read with 200, and says what to do', async t => {
    const { id } = await queued(test, 'fails')
    const turn = await store.operations.take(id, 'test', 30_000)
    if (!turn) throw new Error('not taken')
    const journal = store.operations.journal(turn, error => t.fail(String(error)))
    const step = { id: 'pg1/packages', title: 'install', stage: 'prepare', node: 'pg1', kind: 'change' } as const
    await journal.planned([
      { ...step, state: 'pending' },
      { id: 'proof', title: 'prove it', stage: 'prove', kind: 'verify', state: 'pending' },
    ])
    await journal.step({ ...step, state: 'running', startedAt: new Date().toISOString() })
    journal.log('pg1/packages', 'Reading package lists…')
    journal.progress('pg1/packages', { doneBytes: 5_242_880, totalBytes: 10_485_760, percent: 50 })
    await journal.step({
      ...step,
      state: 'failed',
      startedAt: '2026-11-22T09:12:04.000Z',
      endedAt: '2026-11-22T09:12:05.500Z',
    })
    await store.operations.finish(turn, { state: 'failed', error: { ...failure, step: step.id, node: 'pg1' } })

    const response = await get(`/v1/operations/${id}`)
    t.equal(response.statusCode, 200)
    t.match(response.json(), { state: 'failed', error: { ...failure, step: 'pg1/packages' }, turns: 1 })
    const text = (await get(`/v1/operations/${id}`, { accept: 'text/plain' })).body
    t.match(text, /^bootstrap-cluster of fails: failed\.\n\/v1\/operations\/op_/)
    t.match(text, /failed +pg1 +install +1\.5 s +5\.0 MB of 10\.0 MB \(50%\)/)
    t.match(text, `Failed (command-failed, failed_partial): ${failure.detail}\nWhat to do: ${failure.remedy}`)

    const log = await get(`/v1/operations/${id}/log`)
    t.equal(log.headers['content-type'], 'text/plain; charset=utf-8')
    const lines = log.body.trimEnd().split('\n')
    t.ok(lines.every(line => /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z /.test(line)))
    t.same(
      lines.map(line => line.slice(25)),
      [
        'queued',
        'running',
        'pg1/packages running',
        'pg1/packages | Reading package lists…',
        'pg1/packages failed',
        `failed: ${failure.detail} ${failure.remedy}`,
      ],
    )
  })

  t.test('a long log comes whole', async t => {
    const { id } = await queued(test, 'talks')
    const turn = await store.operations.take(id, 'test', 30_000)
    if (!turn) throw new Error('not taken')
    const journal = store.operations.journal(turn, error => t.fail(String(error)))
    for (let at = 0; at < 1203; at += 1) journal.log('s', `line ${at}`)
    await store.operations.finish(turn, { state: 'succeeded' })
    const lines = (await get(`/v1/operations/${id}/log`)).body.trimEnd().split('\n')
    t.equal(lines.length, 1203 + 3)
    t.match(lines.at(-2), /s \| line 1202$/)
  })
})
