import { once } from 'node:events'
import { get, type IncomingMessage } from 'node:http'
import t from 'tap'
import { startApp } from '../fixtures/app.js'
import { eventually } from '../fixtures/redis.js'
import { failure, problemOf, queued, told } from './fixtures/requests.js'

t.test('the log of an operation', async t => {
  const test = await startApp(t)
  const { app, headers, store, redis } = test
  const address = await app.listen({ host: '127.0.0.1', port: 0 })
  const read = async (id: string, query = '') =>
    (await app.inject({ url: `/v1/operations/${id}/log${query}`, headers })).body
  async function follow(id: string, query = '') {
    const request = get(`${address}/v1/operations/${id}/log?follow=true${query}`, { headers, agent: false })
    request.on('error', () => undefined)
    const [response] = (await once(request, 'response')) as [IncomingMessage]
    let text = ''
    response.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk
    })
    const ended = new Promise<boolean>(resolve => {
      response.on('error', () => undefined)
      response.on('close', () => resolve(response.complete))
    })
    return { response, text: () => text, ended, leave: () => request.destroy() }
  }
  async function running(cluster: string) {
    const { id } = await queued(test, cluster)
    const turn = await store.operations.take(id, 'test', 30_000)
    if (!turn) throw new Error('it cannot be taken')
    const journal = store.operations.journal(turn, error => {
      throw error
    })
    return {
      id,
      log: (line: string) => journal.log('step', line),
      fail: () => store.operations.finish(turn, { state: 'failed', error: failure }),
    }
  }

  await t.test('followed as it is written, to the end', async t => {
    const { id, log, fail } = await running('orders')
    log('one')
    const reader = await follow(id)
    t.match(reader.response.headers, {
      'content-type': 'text/plain; charset=utf-8',
      'transfer-encoding': 'chunked',
      'x-accel-buffering': 'no',
    })
    await eventually(async () => reader.text().includes('step | one'))
    log('two')
    await eventually(async () => reader.text().includes('step | two'))
    log('three')
    await fail()
    t.equal(await reader.ended, true, 'it ends with the operation')
    t.equal(reader.text(), await read(id), 'and is the same as what is read later')
    t.match(reader.text(), /queued\n.* running\n.* step \| one\n.* two\n.* three\n\S+ failed: apt-get .*\n$/)
    const late = await follow(id)
    t.equal(await late.ended, true)
    t.equal(late.text(), reader.text())
  })

  await t.test('the end of it, or what came since', async t => {
    const { id, log, fail } = await running('tails')
    for (let at = 0; at < 1200; at += 1) log(`line ${at}`)
    await eventually(async () => (await read(id)).includes('line 1199'))
    const all = (await read(id)).split('\n')
    t.equal(all.length, 1203)
    t.equal(await read(id, '?tail=3'), `${all.slice(-4).join('\n')}`)
    t.equal(await read(id, '?tail=0'), '')
    t.equal(await read(id, '?tail=20000'), all.join('\n'))
    const instant = all[600]?.split(' ')[0] ?? ''
    const since = (await read(id, `?since=${instant}`)).trimEnd().split('\n')
    t.same(
      since,
      all.slice(0, -1).filter(line => line >= instant),
    )
    t.equal(await read(id, '?since=9000-01-01T00:00:00Z'), '')
    const reader = await follow(id, '&tail=2')
    await eventually(async () => reader.text().includes('line 1199'))
    await fail()
    await reader.ended
    t.equal(reader.text().split('\n').length, 4)
    t.match(reader.text(), /line 1198\n.*line 1199\n.* failed: /)
  })

  await t.test('a HEAD of it does not wait', async t => {
    const { id } = await running('heads')
    const response = await app.inject({ method: 'HEAD', url: `/v1/operations/${id}/log?follow=true`, headers })
    t.equal(response.statusCode, 200)
  })

  await t.test('what is wrong is refused before it begins', async t => {
    const { id } = await running('wrong')
    for (const query of ['?follow=yes', '?tail=-1', '?tail=x', '?since=now', '?folow=true']) {
      const response = await app.inject({ url: `/v1/operations/${id}/log${query}`, headers })
      t.match(told(response), problemOf(400, 'bad-request'), query)
    }
    const response = await app.inject({ url: `/v1/operations/op_00000000000000000000000000/log?follow=true`, headers })
    t.match(told(response), problemOf(404, 'not-found'))
  })

  await t.test('the store goes away: the answer is cut off, and not taken for the end', async t => {
    const { id } = await running('outage')
    const reader = await follow(id)
    await eventually(async () => reader.text().includes('running'))
    await redis.kill()
    t.equal(await reader.ended, false)
    await redis.start()
  })
})
