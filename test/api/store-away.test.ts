import t, { type Test } from 'tap'
import { startApp, type TestApp } from '../fixtures/app.js'
import { eventually } from '../fixtures/redis.js'
import { node, problemOf, queued, spec, told } from './fixtures/requests.js'

/** Every authenticated operation of the contract, with a request that is otherwise good. */
function requests({ app }: TestApp, id: string) {
  const bodies: Record<string, object> = {
    createCluster: { ...spec('orders'), bootstrap: true },
    addNode: node('pg2', { host: '127.0.0.2' }),
    scanHostKeys: { host: '127.0.0.1', port: 1 },
  }
  const { paths } = app.swagger() as unknown as {
    paths: Record<string, Record<string, { operationId: string; security?: unknown[] }>>
  }
  return Object.entries(paths).flatMap(([path, operations]) =>
    Object.entries(operations).flatMap(([method, { operationId, security }]) => {
      if (security?.length === 0) return []
      const payload = bodies[operationId]
      return [
        {
          operationId,
          method: method.toUpperCase() as 'GET',
          url: path.replace('{cluster}', 'orders').replace('{id}', id),
          ...(payload ? { payload } : {}),
        },
      ]
    }),
  )
}

async function refused(t: Test, test: TestApp, id: string) {
  const { app, headers } = test
  const all = requests(test, id)
  t.ok(all.length >= 9)
  await Promise.all(
    all.map(async ({ operationId, ...request }) => {
      const started = performance.now()
      const response = await app.inject({ ...request, headers })
      const ms = Math.round(performance.now() - started)
      t.match(told(response), problemOf(503, 'store-unavailable'), operationId)
      t.equal(response.headers['retry-after'], '5', operationId)
      t.ok(ms < 3000, `${operationId}: ${ms} ms`)
    }),
  )
  t.match(told(await app.inject('/readyz')), problemOf(503, 'store-unavailable'))
  const alive = await app.inject('/healthz')
  t.same([alive.statusCode, alive.json()], [200, { status: 'ok' }])
  t.equal((await app.inject('/openapi.json')).statusCode, 200)
  t.equal((await app.inject('/problems/store-unavailable')).statusCode, 200)
  t.equal((await app.inject('/v1/clusters')).statusCode, 401, 'who sends no token is not told of the store')
}

async function backToNormal(t: Test, { app, headers }: TestApp, id: string) {
  await eventually(async () => (await app.inject('/readyz')).statusCode === 200, 5000)
  t.equal((await app.inject({ url: '/v1/clusters', headers })).statusCode, 200)
  t.match((await app.inject({ url: `/v1/operations/${id}`, headers })).json(), { id, state: 'queued' })
}

t.test('Redis hangs', async t => {
  const test = await startApp(t)
  const { id } = await queued(test, 'accounts')
  test.redis.signal('SIGSTOP')
  await refused(t, test, id)
  test.redis.signal('SIGCONT')
  await backToNormal(t, test, id)
})

t.test('Redis is gone', async t => {
  const test = await startApp(t)
  const { id } = await queued(test, 'accounts')
  await test.redis.kill()
  await refused(t, test, id)
  await test.redis.start()
  await backToNormal(t, test, id)
})
