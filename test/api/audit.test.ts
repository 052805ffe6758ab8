import t from 'tap'
import { startApp } from '../fixtures/app.js'
import { eventually } from '../fixtures/redis.js'
import { failure, finish, problemOf, queued, spec, told } from './fixtures/requests.js'
import { readEvents } from './fixtures/streams.js'

t.test('the audit trail', async t => {
  const test = await startApp(t)
  const { app, headers, store, redis } = test
  const address = await app.listen({ host: '127.0.0.1', port: 0 })
  const read = async (query = '', more: Record<string, string> = {}) =>
    app.inject({ url: `/v1/events${query}`, headers: { ...headers, ...more } })
  const page = async (query = '') =>
    (await read(query)).json() as { items: Record<string, unknown>[]; nextCursor?: string }
  const types = async (query = '') => (await page(query)).items.map(({ type }) => type)

  await t.test('who described, who asked, and how it went', async t => {
    const created = await app.inject({ method: 'POST', url: '/v1/clusters', headers, payload: spec('orders') })
    t.equal(created.statusCode, 201)
    const asked = await app.inject({
      method: 'POST',
      url: '/v1/clusters',
      headers,
      payload: { ...spec('orders'), bootstrap: true },
    })
    t.equal(asked.statusCode, 202)
    const { id } = asked.json()
    await finish(test, id, failure)
    const { items, nextCursor } = await page('?cluster=orders')
    t.equal(nextCursor, undefined)
    const { output: _output, ...error } = failure
    const who = { name: 'test', tokenId: /^[0-9a-z]{26}$/, address: '127.0.0.1' }
    const about = { cluster: 'orders', operation: id, operationType: 'bootstrap-cluster', who }
    t.match(items, [
      { type: 'operation-failed', ...about, error, summary: /failed: apt-get on 127\.0\.0\.1/ },
      { type: 'operation-started', ...about },
      { type: 'operation-created', ...about },
      { type: 'cluster-described', cluster: 'orders', who },
    ])
    t.notOk(JSON.stringify(items).includes(failure.output ?? '?'), 'what the host printed stays with the operation')
    t.match(await page('?type=token-created'), {
      items: [{ summary: 'The token test was made.', who: { name: 'understudy' } }],
    })
    const text = await read('?cluster=orders', { accept: 'text/plain' })
    t.match(
      text.body,
      /^TIME +CLUSTER +EVENT +WHO +OPERATION +WHAT\n\S+ +orders +operation-failed +test \(127\.0\.0\.1\) +op_/,
    )
  })

  await t.test('a change of the record is told once, with what changed', async t => {
    const change = () =>
      store.clusters.update('orders', cluster => ({ ...cluster, builtAt: '2026-11-22T09:14:51.204Z' }))
    await change()
    await change()
    t.match(await page('?type=cluster-changed'), {
      items: [{ cluster: 'orders', who: { name: 'understudy' }, summary: 'The record of orders changed: builtAt.' }],
    })
    t.equal((await page('?type=cluster-changed')).items.length, 1)
  })

  await t.test('by cluster, type and time, page by page', async t => {
    const ids: string[] = []
    for (let at = 0; at < 12; at += 1) {
      const { id } = await queued(test, 'many')
      await finish(test, id)
      ids.push(id)
      await finish(test, (await queued(test, 'others')).id)
    }
    const seen: unknown[] = []
    let cursor: string | undefined
    do {
      const got = await page(
        `?cluster=many&type=operation-succeeded&limit=5${cursor === undefined ? '' : `&cursor=${cursor}`}`,
      )
      t.ok(got.items.length <= 5)
      seen.push(...got.items.map(({ operation }) => operation))
      cursor = got.nextCursor
    } while (cursor !== undefined)
    t.same(seen, ids.toReversed(), 'each once, newest first')

    const { items } = await page('?cluster=many&limit=100')
    const [newest, oldest] = [items[0]?.time, items.at(-1)?.time]
    t.same(
      (await page(`?cluster=many&limit=100&since=${oldest}&until=${newest}`)).items,
      items,
      'both ends are included',
    )
    const middle = String(items[17]?.time)
    const later = (await page(`?cluster=many&limit=100&since=${middle}`)).items
    const earlier = (await page(`?cluster=many&limit=100&until=${middle}`)).items
    t.ok(later.length < items.length && later.every(({ time }) => String(time) >= middle))
    t.ok(earlier.length < items.length && earlier.every(({ time }) => String(time) <= middle))
    t.same(await types('?since=9000-01-01T00:00:00Z'), [])
    t.same(await types('?until=1971-01-01T00:00:00%2B01:00'), [])
    t.same(await types('?cluster=nobody'), [])
    t.equal((await read('?cluster=nobody', { accept: 'text/plain' })).body, 'No events here.\n')
  })

  await t.test('interrupted, and taken up again', async t => {
    const { id } = await queued(test, 'twice')
    const turn = await store.operations.take(id, 'one', 30_000)
    if (!turn) throw new Error('it cannot be taken')
    await store.operations.release(turn)
    await finish(test, id)
    t.same(await types('?cluster=twice'), [
      'operation-succeeded',
      'operation-started',
      'operation-interrupted',
      'operation-started',
      'operation-created',
    ])
    t.match((await page('?cluster=twice&limit=2')).items[1], { summary: /went on with .* turn 2/ })
  })

  const follow = (query: string, more: Record<string, string> = {}) =>
    readEvents(`${address}/v1/events${query}`, { ...headers, accept: 'text/event-stream', ...more })

  await t.test('live: from now on, filtered, and on from Last-Event-ID without a gap', async t => {
    const all = await follow('')
    const one = await follow('?cluster=live&type=operation-succeeded')
    t.match(all.headers, { 'content-type': 'text/event-stream', 'x-accel-buffering': 'no' })
    for (let at = 0; at < 3; at += 1) {
      await finish(test, (await queued(test, 'live')).id)
      await finish(test, (await queued(test, 'elsewhere')).id)
    }
    await eventually(async () => all.seen.length === 18 && one.seen.length === 3)
    t.same(
      one.seen.map(({ event }) => event),
      Array(3).fill('operation-succeeded'),
    )
    t.match(one.seen[0], { id: /^\d+-\d+$/, data: { cluster: 'live', id: one.seen[0]?.id } })
    const [first] = all.seen
    t.match(first, { event: 'operation-created', data: { cluster: 'live' } }, 'nothing of what was before')
    all.leave()
    one.leave()
    await finish(test, (await queued(test, 'live')).id)
    const again = await follow('', { 'last-event-id': all.seen[9]?.id ?? '' })
    await eventually(async () => again.seen.length === 11)
    t.same(again.seen.slice(0, 8), all.seen.slice(10))
    again.leave()
    const time = String((first?.data as { time?: string } | undefined)?.time)
    const since = await follow(`?cluster=live&since=${time}`)
    await eventually(async () => since.seen.length === 12)
    since.leave()
  })

  await t.test('a follower that is behind gets everything, in order', async t => {
    const from = await store.events.newest()
    const ids: string[] = []
    for (let at = 0; at < 400; at += 1) {
      const { id } = await queued(test, 'busy')
      await finish(test, id)
      ids.push(id)
    }
    const reader = await follow('?type=operation-created', { 'last-event-id': from })
    await eventually(async () => reader.seen.length === 400)
    t.same(
      reader.seen.map(({ data }) => (data as { operation: string }).operation),
      ids,
    )
    reader.leave()
  })

  await t.test('what makes no sense is refused', async t => {
    const stream = { accept: 'text/event-stream' }
    for (const query of ['?limit=3', '?cursor=1-1', '?until=2026-11-22T09:00:00Z'])
      t.match(told(await read(query, stream)), problemOf(400, 'bad-request'), query)
    t.match(told(await read('', { ...stream, 'last-event-id': 'x' })), problemOf(400, 'bad-request'))
    for (const query of [
      '?cursor=x',
      '?since=yesterday',
      '?since=2026-11-22',
      '?type=nothing',
      '?limit=0',
      '?cluser=x',
    ])
      t.match(told(await read(query)), problemOf(400, 'bad-request'), query)
    t.match(told(await app.inject('/v1/events')), problemOf(401, 'unauthorized'))
    t.equal((await read('?since=2016-12-31T23:59:60Z&limit=1')).statusCode, 200, 'a leap second is a time')
  })

  await t.test('the store goes away: the stream is cut off, and its reader comes back', async t => {
    const reader = await follow('')
    await finish(test, (await queued(test, 'outage')).id)
    await eventually(async () => reader.seen.length === 3)
    await redis.kill()
    await reader.ended
    await redis.start()
    await eventually(async () => (await app.inject('/readyz')).statusCode === 200)
    const again = await follow('', { 'last-event-id': reader.seen.at(-1)?.id ?? '' })
    await finish(test, (await queued(test, 'outage')).id)
    await eventually(async () => again.seen.length === 3)
    again.leave()
    t.pass()
  })
})
