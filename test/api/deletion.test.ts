import t from 'tap'
import { repmgrPassword } from '../../src/store/secrets.js'
import { startApp } from '../fixtures/app.js'
import { built, contentOf, finish, node, problemOf, queued, told } from './fixtures/requests.js'

t.test('a cluster is forgotten, or destroyed', async t => {
  const test = await startApp(t)
  const { app, headers, store } = test
  const remove = (path: string) => app.inject({ method: 'DELETE', url: `/v1/clusters/${path}`, headers })
  await built(test, 'orders', [node('pg1', { host: '127.0.0.2' }), node('pg2', { host: '127.0.0.3' })])
  await built(test, 'orders-2')
  for (const name of ['orders', 'orders-2']) await store.secrets.getOrCreate(repmgrPassword(name), () => 'secret')

  t.test('what contradicts itself, or was not confirmed, does nothing', async t => {
    const before = await contentOf(test)
    t.match(told(await remove('nowhere')), problemOf(404, 'not-found'))
    t.match(told(await remove('orders?destroy=true')), problemOf(409, 'confirmation-required'))
    t.match(told(await remove('orders?destroy=true&confirm=orders-2')), problemOf(409, 'confirmation-required'))
    t.match(told(await remove('orders?confirm=orders')), problemOf(422, 'inconsistent'))
    t.match(told(await remove('orders?leaveUnreachable=true')), problemOf(422, 'inconsistent'))
    t.match(told(await remove('orders?destory=true')), problemOf(400, 'bad-request'), 'a misspelt word does not forget')
    const dry = await remove('orders?dryRun=true')
    t.equal(dry.statusCode, 200)
    t.equal(dry.json().forgotten, false)
    const destruction = await remove('orders?destroy=true&confirm=orders&dryRun=true')
    t.match(told(destruction), problemOf(409, 'operation-refused'))
    t.match(destruction.json().detail, /pg1 and pg2 does not answer.*leaveUnreachable=true/)
    t.same(await contentOf(test), before)
  })

  t.test('while an operation runs: 409 with it', async t => {
    const { id } = await queued(test, 'orders')
    for (const query of ['', '?dryRun=true', '?destroy=true&confirm=orders']) {
      const answer = await remove(`orders${query}`)
      t.match(told(answer), problemOf(409, 'cluster-busy'), query)
      t.equal(answer.json().operation, `/v1/operations/${id}`)
    }
    t.ok(await store.clusters.get('orders'))
    await finish(test, id)
  })

  t.test('destroyed by an operation', async t => {
    const answer = await remove('orders?destroy=true&confirm=orders&leaveUnreachable=true')
    t.equal(answer.statusCode, 202)
    t.match(answer.json(), { type: 'destroy-cluster', cluster: 'orders' })
    t.same(await store.operations.input(answer.json().id), { confirm: 'orders', leaveUnreachable: true })
    await finish(test, answer.json().id)
  })

  t.test('forgotten at once: record and secrets, and nothing of another one', async t => {
    const answer = await remove('orders')
    t.equal(answer.statusCode, 200)
    t.match(answer.json(), { cluster: 'orders', forgotten: true })
    t.same(
      answer.json().remains.map((one: { host: string }) => one.host),
      ['127.0.0.2', '127.0.0.3'],
    )
    t.equal(await store.clusters.get('orders'), undefined)
    t.equal(await store.secrets.get(repmgrPassword('orders')), undefined)
    t.equal(await store.secrets.get(repmgrPassword('orders-2')), 'secret')
    t.ok(await store.clusters.get('orders-2'))
    t.match(told(await remove('orders')), problemOf(404, 'not-found'))
    const trail = await app.inject({ url: '/v1/events?limit=1', headers })
    t.match(trail.json().items[0], { type: 'cluster-forgotten', cluster: 'orders', who: { name: 'test' } })
  })
})

t.test('a node is read, and removed', async t => {
  const test = await startApp(t)
  const { app, headers, store } = test
  const call = (method: 'GET' | 'DELETE', path: string) =>
    app.inject({ method, url: `/v1/clusters/orders/nodes/${path}`, headers })
  await built(test, 'orders', [node('pg1', { host: '127.0.0.2' }), node('pg2', { host: '127.0.0.3' })])

  t.match((await call('GET', 'pg2')).json(), {
    cluster: 'orders',
    record: { name: 'pg2', nodeId: 2, host: '127.0.0.3' },
    status: { name: 'pg2', state: 'unreachable' },
  })
  t.match(told(await call('GET', 'pg9')), problemOf(404, 'not-found'))
  t.match(told(await call('DELETE', 'pg9')), problemOf(404, 'not-found'))
  t.match(told(await call('DELETE', 'pg2?wipe=true&confirm=pg1')), problemOf(409, 'confirmation-required'))
  for (const query of ['wipe=true', 'wipe=true&dryRun=true'])
    t.match(told(await call('DELETE', `pg2?${query}`)), problemOf(409, 'confirmation-required'), query)
  t.equal(await store.operations.activeOn('orders'), undefined, 'and nothing is asked for by it')
  t.match(told(await call('DELETE', 'pg2?confirm=pg2')), problemOf(422, 'inconsistent'))
  const answer = await call('DELETE', 'pg2?wipe=true&confirm=pg2')
  t.equal(answer.statusCode, 202)
  t.match(answer.json(), { type: 'remove-node', cluster: 'orders', node: 'pg2' })
  t.same(await store.operations.input(answer.json().id), { node: 'pg2', wipe: true, confirm: 'pg2' })
  t.ok(
    (await store.clusters.get('orders'))?.nodes.some(({ name }) => name === 'pg2'),
    'until it is done',
  )
})
