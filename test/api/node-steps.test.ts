import t from 'tap'
import { startApp } from '../fixtures/app.js'
import { built, contentOf, finish, node, problemOf, told } from './fixtures/requests.js'

t.test('single steps on one node', async t => {
  const test = await startApp(t)
  const { app, headers, store } = test
  const post = (path: string, payload?: object) =>
    app.inject({
      method: 'POST',
      url: `/v1/clusters/orders/nodes/${path}`,
      headers,
      ...(payload === undefined ? {} : { payload }),
    })
  await built(test, 'orders', [node('pg1', { host: '127.0.0.2' }), node('pg2', { host: '127.0.0.3' })])

  for (const [verb, type, confirmed] of [
    ['provision', 'provision-node', false],
    ['clone', 'clone-node', true],
    ['register', 'register-node', false],
    ['unregister', 'unregister-node', false],
    ['start', 'start-node', true],
    ['stop', 'stop-node', true],
    ['restart', 'restart-node', true],
    ['follow', 'follow-node', false],
    ['rejoin', 'rejoin-node', true],
    ['rebuild', 'rebuild-node', true],
  ] as const) {
    t.test(verb, async t => {
      const response = await post(`pg2/${verb}`)
      t.equal(response.statusCode, 202, 'the body may be left out')
      const { id } = response.json()
      t.match(response.json(), { type, cluster: 'orders', node: 'pg2', state: 'queued' })
      t.equal(response.headers.location, `/v1/operations/${id}`)
      t.same(await store.operations.input(id), { node: 'pg2' })
      t.match(told(await post(`pg1/${verb}`, {})), problemOf(409, 'cluster-busy'), 'one operation at a time')
      await finish(test, id)

      t.match(told(await post(`pg9/${verb}`)), problemOf(404, 'not-found'))
      const before = await contentOf(test)
      // It is asked of the primary, and nobody says who that is.
      const away = verb === 'unregister' ? problemOf(409, 'operation-refused') : problemOf(502, 'host-unreachable')
      t.match(told(await post(`pg2/${verb}?dryRun=true`)), away, 'a dry run looks')
      t.match(told(await post(`pg2/${verb}`, { dryRun: true })), problemOf(400, 'bad-request'), 'not in the body')
      const other = await post(`pg2/${verb}`, { confirm: 'pg1' })
      t.match(told(other), confirmed ? problemOf(409, 'confirmation-required') : problemOf(400, 'bad-request'))
      t.same(await contentOf(test), before, 'and none of these has left anything')

      if (!confirmed) return
      t.match(other.json().detail, /^The call is about pg2, and confirms pg1\./)
      const meant = await post(`pg2/${verb}`, { confirm: 'pg2' })
      t.equal(meant.statusCode, 202)
      t.same(await store.operations.input(meant.json().id), { node: 'pg2', confirm: 'pg2' })
      await finish(test, meant.json().id)
    })
  }

  t.test('follow another node', async t => {
    const response = await post('pg2/follow', { upstream: 'pg1' })
    t.equal(response.statusCode, 202)
    t.same(await store.operations.input(response.json().id), { node: 'pg2', upstream: 'pg1' })
    await finish(test, response.json().id)
    for (const [upstream, why] of [
      ['pg9', /there is no such node/],
      ['pg2', /cannot stream from itself/],
    ] as const) {
      const refused = await post('pg2/follow', { upstream })
      t.match(told(refused), problemOf(422, 'inconsistent'))
      t.match(refused.json().errors, [{ pointer: '/upstream', detail: why }])
    }
  })
})
