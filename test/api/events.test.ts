import { once } from 'node:events'
import { get as httpGet } from 'node:http'
import { connect } from 'node:net'
import t from 'tap'
import { buildApp } from '../../src/api/app.js'
import type { Services } from '../../src/api/services.js'
import { type Changes, listenForChanges } from '../../src/store/changes.js'
import { connectRedis } from '../../src/store/redis.js'
import { startApp, type TestApp } from '../fixtures/app.js'
import { eventually } from '../fixtures/redis.js'
import { finish, problemOf, queued, told } from './fixtures/requests.js'
import { readEvents } from './fixtures/streams.js'

async function worker({ store }: TestApp, id: string) {
  const turn = await store.operations.take(id, 'test', 30_000)
  if (!turn) throw new Error(`${id} cannot be taken`)
  const journal = store.operations.journal(turn, error => {
    throw error
  })
  return {
    log: (line: string) => journal.log('step', line),
    finish: () => store.operations.finish(turn, { state: 'succeeded' }),
  }
}

t.test('events of an operation', async t => {
  const test = await startApp(t)
  const { app, headers, store, redis } = test
  const address = await app.listen({ host: '127.0.0.1', port: 0 })
  const follow = (id: string, more: Record<string, string> = {}) =>
    readEvents(`${address}/v1/operations/${id}/events`, { ...headers, ...more })

  t.test('from the beginning to the end', async t => {
    const { id } = await queued(test, 'orders')
    const reader = await follow(id)
    t.equal(reader.status, 200)
    t.match(reader.headers, {
      'content-type': 'text/event-stream',
      'cache-control': 'no-cache',
      'x-accel-buffering': 'no',
    })
    const { log, finish } = await worker(test, id)
    log('one\ntwo')
    log('ünï \u2028 code')
    await eventually(async () => reader.seen.length === 4, 5000)
    await finish()
    t.equal(await reader.ended, 'closed')
    t.same(
      reader.seen.map(({ event, data }) => [event, data]),
      [
        ['state', { state: 'queued' }],
        ['state', { state: 'running' }],
        ['log', { step: 'step', line: 'one\ntwo' }],
        ['log', { step: 'step', line: 'ünï \u2028 code' }],
        ['state', { state: 'succeeded' }],
        ['end', { state: 'succeeded' }],
      ],
    )
    t.equal(reader.seen.at(-1)?.id, undefined, 'the end is none of the events, and cannot be resumed from')

    const late = await follow(id)
    t.equal(await late.ended, 'closed')
    t.same(late.seen, reader.seen, 'who comes late sees the same')
  })

  t.test('Last-Event-ID goes on without a gap and without a repetition', async t => {
    const { id } = await queued(test, 'accounts')
    const { log, finish } = await worker(test, id)
    const lines = Array.from({ length: 1500 }, (_, at) => `line ${at}`)
    let written = 0
    const writing = (async () => {
      for (const line of lines) {
        log(line)
        written += 1
        if (written % 50 === 0) await new Promise(resolve => setTimeout(resolve, 10))
      }
      await finish()
    })()
    const seen: string[] = []
    const ids: string[] = []
    for (let last: string | undefined, visits = 1; ; visits += 1) {
      const reader = await follow(id, last === undefined ? {} : { 'last-event-id': last })
      // Goes away after a while, at any place; comes back with what it saw last.
      const ended = await Promise.race([
        reader.ended,
        eventually(async () => reader.seen.length >= 70 + visits, 10_000).then(() => undefined),
      ])
      reader.leave()
      for (const { id: eventId, event, data } of reader.seen) {
        if (eventId !== undefined) ids.push(eventId)
        if (event === 'log') seen.push((data as { line: string }).line)
      }
      last = ids.at(-1)
      if (ended === 'closed' && reader.seen.at(-1)?.event === 'end') break
      if (visits > 100) throw new Error('it never ends')
    }
    await writing
    t.same(seen, lines)
    t.equal(new Set(ids).size, ids.length)
  })

  t.test('from behind the last event: nothing but the end', async t => {
    const { id } = await queued(test, 'ended')
    await (await worker(test, id)).finish()
    const all = await follow(id)
    await all.ended
    const none = await follow(id, { 'last-event-id': all.seen.at(-2)?.id ?? '' })
    t.equal(await none.ended, 'closed')
    t.same(none.seen, [{ event: 'end', data: { state: 'succeeded' } }])
  })

  t.test('an id that is none: 400, before anything is sent', async t => {
    const { id } = await queued(test, 'ids')
    for (const last of ['x', '5', '5-', '-1-0', '1-1-1', '1'.repeat(40), '1-1; drop']) {
      const response = await app.inject({
        url: `/v1/operations/${id}/events`,
        headers: { ...headers, 'last-event-id': last },
      })
      t.match(told(response), problemOf(400, 'bad-request'), last)
    }
    await finish(test, id)
    const empty = await follow(id, { 'last-event-id': '' })
    t.equal(await empty.ended, 'closed')
    t.equal(empty.seen.length, 4, 'an empty one is the beginning')
  })

  t.test('many followers of one operation', async t => {
    const { id } = await queued(test, 'popular')
    const readers = await Promise.all(Array.from({ length: 50 }, () => follow(id)))
    await finish(test, id)
    for (const reader of readers) {
      if ((await reader.ended) !== 'closed') t.fail('cut off')
      if (reader.seen.length !== 4) t.fail(`${reader.seen.length} events`)
    }
    t.equal(readers.length, 50)
  })

  t.test('the store goes away in the middle: the stream is cut off, and the reader comes back', async t => {
    const { id } = await queued(test, 'outage')
    const reader = await follow(id)
    await eventually(async () => reader.seen.length === 1)
    await redis.kill()
    t.equal(await reader.ended, 'closed')
    t.not(reader.seen.at(-1)?.event, 'end', 'not taken for the end')
    await redis.start()
    await eventually(async () => (await app.inject('/readyz')).statusCode === 200)
    const again = await follow(id, { 'last-event-id': reader.seen.at(-1)?.id ?? '' })
    t.equal(again.status, 200, 'it is connected before anything happens')
    await finish(test, id)
    t.equal(await again.ended, 'closed')
    t.same(
      again.seen.map(({ event }) => event),
      ['state', 'state', 'end'],
    )
    t.equal(await store.operations.activeOn('outage'), undefined)
  })
})

t.test('who goes away is waited for no longer', async t => {
  const test = await startApp(t)
  const { headers, store, redis } = test
  const real = await listenForChanges(connectRedis(redis.url, { purpose: 'operations' }))
  let waiting = 0
  const changes: Changes = {
    ...real,
    async next(...args) {
      waiting += 1
      await real.next(...args)
      waiting -= 1
    },
  }
  const app = await buildApp({ services: { store, changes } as Services })
  t.teardown(async () => {
    await app.close()
    await real.close()
  })
  const address = await app.listen({ host: '127.0.0.1', port: 0 })
  const { id } = await queued(test, 'orders')

  const readers = await Promise.all(
    Array.from({ length: 20 }, () => readEvents(`${address}/v1/operations/${id}/events`, headers)),
  )
  const held = Array.from({ length: 20 }, () => {
    const request = httpGet(`${address}/v1/operations/${id}?wait=60`, { headers, agent: false })
    request.on('error', () => undefined)
    return request
  })
  await eventually(async () => waiting === 40, 5000)
  for (const reader of readers) reader.leave()
  for (const request of held) request.destroy()
  await eventually(async () => waiting === 0, 2000)
  t.equal(waiting, 0)
})

t.test('many requests on one connection leave nothing behind on it', async t => {
  const { app, headers, ...test } = await startApp(t)
  const { id } = await queued({ app, headers, ...test }, 'orders')
  const address = await app.listen({ host: '127.0.0.1', port: 0 })
  const warnings: Error[] = []
  const note = (warning: Error) => warnings.push(warning)
  process.on('warning', note)
  t.teardown(() => process.off('warning', note))
  const socket = connect(Number(new URL(address).port), '127.0.0.1')
  await once(socket, 'connect')
  let answers = 0
  socket.setEncoding('utf8').on('data', (text: string) => {
    answers += text.split('HTTP/1.1 200').length - 1
  })
  for (let at = 1; at <= 40; at += 1) {
    socket.write(
      `GET /v1/operations/${id} HTTP/1.1\r\nHost: localhost\r\nAuthorization: ${headers.authorization}\r\n\r\n`,
    )
    await eventually(async () => answers === at, 5000)
  }
  socket.destroy()
  t.equal(answers, 40)
  t.same(warnings, [])
})
