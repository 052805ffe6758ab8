import t from 'tap'
import { attendPauses } from '../../src/store/pauses.js'
import { startApp } from '../fixtures/app.js'
import { built, closedPort, problemOf, told } from './fixtures/requests.js'

t.test('pausing a cluster', async t => {
  const test = await startApp(t)
  const { app, headers, store } = test
  t.ok(closedPort)
  await built(test, 'orders')
  const send = (what: string, payload?: object, more: Record<string, string> = {}) =>
    app.inject({
      method: 'POST',
      url: `/v1/clusters/orders/${what}`,
      headers: { ...headers, ...more },
      ...(payload ? { payload } : {}),
    })
  const get = (what = '', accept = 'application/json') =>
    app.inject({ url: `/v1/clusters/orders${what}`, headers: { ...headers, accept } })
  const trail = async () => (await store.events.list({ cluster: 'orders', limit: 50 })).items.map(({ type }) => type)

  await t.test('with its reason, for an hour unless it is said', async t => {
    for (const bad of [
      {},
      { reason: '' },
      { reason: 'a\nb' },
      { reason: 'x', forMs: 999 },
      { reason: 'x', forMs: 7 * 86_400_000 + 1 },
      { reason: 'x', until: 'tomorrow' },
    ])
      t.match(told(await send('pause', bad)), problemOf(400, 'bad-request'), JSON.stringify(bad))
    const inDays = (days: number) => new Date(Date.now() + days * 86_400_000).toISOString()
    for (const [bad, pointer] of [
      [{ reason: 'x', until: inDays(-1) }, '/until'],
      [{ reason: 'x', until: inDays(8) }, '/until'],
      [{ reason: 'x', until: inDays(1), forMs: 5000 }, '/forMs'],
    ] as const) {
      const refused = await send('pause', bad)
      t.match(told(refused), problemOf(422, 'inconsistent'))
      t.equal(refused.json().errors[0].pointer, pointer)
    }
    t.match(
      told(await app.inject({ method: 'POST', url: '/v1/clusters/none/pause', headers, payload: { reason: 'x' } })),
      problemOf(404, 'not-found'),
    )

    t.match((await send('pause?dryRun=true', { reason: 'disks' })).json(), { paused: true, pause: { reason: 'disks' } })
    t.equal((await store.clusters.get('orders'))?.pause, undefined, 'a dry run does nothing')
    const response = await send('pause?reference=CHG-1', { reason: 'disks' })
    t.equal(response.statusCode, 200)
    const { pause } = response.json()
    t.match(response.json(), {
      cluster: 'orders',
      paused: true,
      pause: { by: 'test', reason: 'disks', reference: 'CHG-1' },
    })
    t.equal(Date.parse(pause.until) - Date.parse(pause.since), 3_600_000)
  })

  await t.test('it is shown wherever the cluster is', async t => {
    t.match((await get()).json(), { pause: { reason: 'disks' } })
    t.match((await get('/status')).json(), { pause: { reason: 'disks', by: 'test' } })
    for (const what of ['', '/status'])
      t.match((await get(what, 'text/plain')).body, /\nPaused until 20.*Z by test: disks \(CHG-1\)\n/)
  })

  await t.test('a key is used once, and If-Match counts', async t => {
    const key = { 'idempotency-key': '"one"' }
    const first = await send('pause', { reason: 'disks', forMs: 7_200_000 }, key)
    const again = await send('pause', { reason: 'disks', forMs: 7_200_000 }, key)
    t.equal(again.headers['idempotent-replayed'], 'true')
    t.same(again.json(), first.json(), 'it is not extended a second time')
    t.match(told(await send('pause', { reason: 'other' }, key)), problemOf(422, 'idempotency-key-reused'))
    const seen = String((await get()).headers.etag)
    await send('pause', { reason: 'kernel' })
    const stale = await send('resume', undefined, { 'if-match': seen })
    t.match(told(stale), problemOf(412, 'precondition-failed'), 'the pause is part of what was seen')
    t.match(
      told(await send('pause?dryRun=true', { reason: 'x' }, { 'if-match': seen })),
      problemOf(412, 'precondition-failed'),
    )
    t.match((await get()).json(), { pause: { reason: 'kernel' } })
  })

  await t.test('resumed', async t => {
    t.equal((await send('resume?dryRun=true')).json().paused, false)
    t.ok((await get()).json().pause)
    const resumed = await send('resume', undefined, {
      'idempotency-key': 'two',
      'if-match': String((await get()).headers.etag),
    })
    t.strictSame(resumed.json(), { cluster: 'orders', paused: false, pause: null })
    t.equal((await send('resume')).statusCode, 200, 'and it may be said again')
    await send('pause', { reason: 'later' })
    const repeated = await send('resume', undefined, { 'idempotency-key': 'two' })
    t.equal(repeated.json().paused, true, 'the repetition of a call of before ends no later pause')
    t.same((await trail()).slice(0, -1).reverse(), [
      'cluster-paused',
      'cluster-pause-extended',
      'cluster-pause-extended',
      'cluster-resumed',
      'cluster-paused',
    ])
  })

  await t.test('one that has run out is not shown as a pause, though nobody has told of it yet', async t => {
    await store.clusters.amend('orders', cluster => ({
      cluster: {
        ...cluster,
        pause: { since: '2026-01-01T00:00:00.000Z', until: '2026-01-01T01:00:00.000Z', by: 'test', reason: 'old' },
      },
    }))
    t.equal((await get('/status')).json().pause, null)
    t.same((await send('resume')).json().paused, false)
    await attendPauses(store.clusters, Date.now)
    t.equal((await trail())[0], 'cluster-pause-expired')
  })
})
