import t from 'tap'
import { startApp } from '../fixtures/app.js'
import { built, contentOf, finish, node, PIN, problemOf, spec, told, unpinned } from './fixtures/requests.js'

t.test('add a standby', async t => {
  const test = await startApp(t)
  const { app, headers, store } = test
  const post = (cluster: string, payload: object, query = '') =>
    app.inject({ method: 'POST', url: `/v1/clusters/${cluster}/nodes${query}`, headers, payload })
  const second = node('pg2', { host: '127.0.0.2' })
  const third = node('pg3', { host: '127.0.0.3' })
  await built(test, 'orders', [node('pg1'), second])

  t.test('to no cluster: 404', async t => {
    t.match(told(await post('nowhere', third)), problemOf(404, 'not-found'))
  })

  t.test('to a cluster that was not built: 409', async t => {
    await app.inject({ method: 'POST', url: '/v1/clusters', headers, payload: spec('plans') })
    const response = await post('plans', third)
    t.match(told(response), problemOf(409, 'cluster-not-built'))
    t.match(response.json().detail, /POST \/v1\/clusters with its description and "bootstrap": true/)
  })

  t.test('under a name that is taken: 409, and by whom', async t => {
    for (const [what, body] of [
      ['another host', node('pg2', { host: '127.0.0.3' })],
      ['another user', node('pg2', { host: '127.0.0.2', ssh: { user: 'other' } })],
      ['another port', node('pg2', { host: '127.0.0.2', ssh: { port: 2222 } })],
      ['another key', node('pg2', { host: '127.0.0.2', ssh: { hostKey: PIN.replace(/A$/, 'B') } })],
      ['another host, no key', unpinned('pg2', { host: '127.0.0.3' })],
    ] as const) {
      const response = await post('orders', body)
      t.match(told(response), problemOf(409, 'node-exists'), what)
      t.match(
        response.json().detail,
        /^pg2 is a node of orders already: admin@127\.0\.0\.2, port \d+, host key SHA256:/,
      )
    }
  })

  t.test('on a host that is taken: 422, and by whom', async t => {
    const response = await post('orders', node('pg3', { host: '127.0.0.2' }))
    t.match(told(response), problemOf(422, 'inconsistent'))
    t.same(response.json().errors, [
      { pointer: '/host', detail: '127.0.0.2 is the host of pg2 already; one node a host.' },
    ])
  })

  t.test('without a key on a host that does not answer: 502', async t => {
    const response = await post('orders', unpinned('pg3', { host: '127.0.0.3' }))
    t.match(told(response), problemOf(502, 'host-unreachable'))
    t.equal(response.json().errors[0].pointer, '/ssh/hostKey')
  })

  t.test('a role is no name: roles move', async t => {
    for (const name of ['primary', 'standby', 'witness', 'replica'])
      t.match(told(await post('orders', node(name, { host: '127.0.0.3' }))), problemOf(400, 'bad-request'), name)
  })

  t.test('a dry run writes nothing', async t => {
    const before = await contentOf(test)
    t.match(told(await post('orders', third, '?dryRun=true')), problemOf(502, 'host-unreachable'))
    t.same(await contentOf(test), before)
  })

  t.test('202; the record changes only when a worker begins', async t => {
    const record = await store.clusters.get('orders')
    const response = await post('orders', third)
    t.equal(response.statusCode, 202)
    t.match(response.json(), { type: 'add-standby', cluster: 'orders', node: 'pg3', state: 'queued' })
    t.equal(response.headers.location, `/v1/operations/${response.json().id}`)
    t.same(await store.operations.input(response.json().id), { node: third })
    t.same(await store.clusters.get('orders'), record)

    const busy = await post('orders', node('pg4', { host: '127.0.0.4' }))
    t.match(told(busy), problemOf(409, 'cluster-busy'))
    t.equal(busy.json().operation, response.headers.location)
    const build = await app.inject({
      method: 'POST',
      url: '/v1/clusters',
      headers,
      payload: { ...spec('orders', [node('pg1'), second]), bootstrap: true },
    })
    t.match(told(build), problemOf(409, 'cluster-busy'), 'whatever the other operation is')
    await finish(test, response.json().id)
    t.equal((await post('orders', second)).statusCode, 202, 'a node that is there may be repeated')
  })
})
