import t from 'tap'
import { PROBLEMS } from '../../src/api/problems.js'
import { startApp } from '../fixtures/app.js'
import { node, problemOf, spec, told } from './fixtures/requests.js'

const JSON_BODY = { 'content-type': 'application/json' }

t.test('errors of a request', async t => {
  const { app, headers, store } = await startApp(t)
  const post = (payload: string | object, more: Record<string, string> = JSON_BODY) =>
    app.inject({ method: 'POST', url: '/v1/clusters', headers: { ...headers, ...more }, payload })

  t.test('an unknown path: 404, and where the known ones are', async t => {
    for (const url of ['/', '/v1', '/v1/cluster', '/v1/clusters/orders/status/x', '/V1/clusters']) {
      const response = await app.inject({ url, headers })
      t.match(told(response), problemOf(404, 'not-found'), url)
      t.match(response.json().detail, /GET \/openapi\.json/)
      t.equal(response.json().instance, url)
    }
    const long = await app.inject({ url: `/v1/${'x'.repeat(5000)}`, headers })
    t.ok(long.json().detail.length < 200, 'a long path is not repeated in a sentence')
  })

  t.test('an unknown name: 404, and where the names are', async t => {
    const response = await app.inject({ url: '/v1/clusters/nowhere', headers })
    t.match(told(response), problemOf(404, 'not-found'))
    t.equal(response.json().detail, 'There is no cluster nowhere. GET /v1/clusters lists them.')
  })

  t.test('a name that cannot be one: 400, and what names look like', async t => {
    const response = await app.inject({ url: '/v1/clusters/Orders', headers })
    t.match(told(response), problemOf(400, 'bad-request'))
    t.match(response.json().detail, /^The path is not as described: \/cluster must match .*Lower-case letters, digits/)
  })

  t.test('a path that is no URL: 400', async t => {
    for (const url of ['/v1/clusters/%zz', '/v1/clusters/%E0%A4%A']) {
      const response = await app.inject({ url, headers })
      t.match(told(response), problemOf(400, 'bad-request'), url)
      t.match(response.json().detail, /hexadecimal/)
    }
  })

  t.test('another method: 405 with Allow', async t => {
    for (const [method, url, allow] of [
      ['DELETE', '/v1/clusters', 'GET, HEAD, POST'],
      ['PATCH', '/v1/clusters/orders', 'DELETE, GET, HEAD, PUT'],
      ['GET', '/v1/clusters/orders/nodes', 'POST'],
      ['PATCH', '/v1/operations/op_1', 'GET, HEAD'],
      ['HEAD', '/v1/operations/op_1/events', 'GET'],
      ['OPTIONS', '/healthz', 'GET, HEAD'],
      ['POST', '/docs/json', 'GET, HEAD'],
    ] as const) {
      const response = await app.inject({ method, url, headers })
      t.equal(response.statusCode, 405, `${method} ${url}`)
      t.equal(response.headers.allow, allow, `${method} ${url}`)
      if (method !== 'HEAD') t.match(told(response), problemOf(405, 'method-not-allowed'))
    }
  })

  t.test('a stream that is not wanted as one: 406', async t => {
    const { created } = (await store.operations.create({
      type: 'bootstrap-cluster',
      cluster: 'orders',
      input: {},
      requestedBy: 'test',
    })) as { created: { id: string } }
    const url = `/v1/operations/${created.id}/events`
    for (const accept of ['application/json', 'text/plain', 'text/event-stream;q=0, */*']) {
      const response = await app.inject({ url, headers: { ...headers, accept } })
      t.match(told(response), problemOf(406, 'not-acceptable'), accept)
      t.match(response.json().detail, /Accept: text\/event-stream/)
    }
  })

  t.test('10 MB: 413', async t => {
    const response = await post(JSON.stringify({ name: 'x'.repeat(10_000_000) }))
    t.match(told(response), problemOf(413, 'payload-too-large'))
    t.match(response.json().detail, /1048576 bytes/)
  })

  t.test('another media type: 415', async t => {
    for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'application/xml', 'nonsense']) {
      const response = await post('name=orders', { 'content-type': type })
      t.match(told(response), problemOf(415, 'unsupported-media-type'), type)
      t.match(response.json().detail, /Content-Type: application\/json/)
    }
    t.equal(
      (await post(JSON.stringify(spec('utf')), { 'content-type': 'application/json; charset=utf-8' })).statusCode,
      201,
    )
  })

  t.test('broken JSON: 400', async t => {
    for (const text of ['{', '{"name":}', 'name: orders', '{"name":"a"} x', '', '{"__proto__": {"admin": true}}']) {
      const response = await post(text)
      t.match(told(response), problemOf(400, 'bad-request'), text)
      t.ok(/[.]$/.test(response.json().detail), response.json().detail)
    }
    const nothing = await app.inject({ method: 'POST', url: '/v1/clusters', headers })
    t.match(told(nothing), problemOf(400, 'bad-request'), 'no body at all')
  })

  t.test('a misspelt field is refused and pointed at, not ignored', async t => {
    const body = { ...spec('orders'), bootstap: true }
    const response = await post(body)
    t.match(told(response), problemOf(400, 'bad-request'))
    t.same(response.json().errors, [{ pointer: '/bootstap', detail: 'is not a field here' }])
    t.equal(response.json().detail, 'The body is not as described: /bootstap is not a field here.')

    const nested = await post(spec('orders', [{ ...node('pg1'), ssh: { ...node('pg1').ssh, 'a/b~c': 1 } as never }]))
    t.same(
      nested.json().errors,
      [{ pointer: '/nodes/0/ssh/a~1b~0c', detail: 'is not a field here' }],
      'as RFC 6901 says',
    )

    const query = await app.inject({
      method: 'POST',
      url: '/v1/clusters?dryrun=true',
      headers: { ...headers, ...JSON_BODY },
      payload: spec('orders'),
    })
    t.match(told(query), problemOf(400, 'bad-request'), 'in the query too')
    t.same(query.json().errors, [{ pointer: '/dryrun', detail: 'is not a field here' }])
    t.equal(await store.clusters.get('orders'), undefined, 'nothing was written')
  })

  t.test('a query that a route does not have is refused', async t => {
    const response = await app.inject({ url: '/v1/clusters?limit=5', headers })
    t.match(told(response), problemOf(400, 'bad-request'))
  })

  t.test('what is missing is named', async t => {
    const { name: _name, ...rest } = spec('orders')
    const response = await post(rest)
    t.same(response.json().errors, [{ pointer: '/name', detail: 'is missing' }])
    t.equal(response.json().detail, 'The body is not as described: /name is missing.')
  })

  t.test('a body says true, not "true"; a query can only say it in text', async t => {
    const response = await post({ ...spec('orders'), bootstrap: 'true' })
    t.same(response.json().errors, [{ pointer: '/bootstrap', detail: 'must be boolean' }])
    for (const [field, value] of [
      ['postgresVersion', '15'],
      ['port', '5432'],
      ['bootstrap', null],
      ['bootstrap', 1],
      ['nodes', {}],
    ] as const)
      t.match(told(await post({ ...spec('orders'), [field]: value })), problemOf(400, 'bad-request'), `${field}`)
    const list = (limit: string) => app.inject({ url: `/v1/operations?limit=${limit}`, headers })
    t.equal((await list('5')).statusCode, 200)
    for (const limit of ['0', '101', 'x', '1.5', '', '5&limit=6'])
      t.match(told(await list(limit)), problemOf(400, 'bad-request'), `limit=${limit}`)
    const dry = (value: string) =>
      app.inject({
        method: 'POST',
        url: `/v1/clusters?dryRun=${value}`,
        headers: { ...headers, ...JSON_BODY },
        payload: spec('orders'),
      })
    for (const value of ['1', 'yes', 'TRUE', '', 'true&dryRun=false'])
      t.match(told(await dry(value)), problemOf(400, 'bad-request'), `dryRun=${value}`)
    t.equal(await store.clusters.get('orders'), undefined, 'none of them was taken for a real run')
  })

  t.test('thousands of mistakes are not all listed, and cost no time', async t => {
    const started = performance.now()
    const response = await post({ ...spec('orders'), nodes: new Array(340_000).fill({}) })
    t.match(told(response), problemOf(400, 'bad-request'))
    t.ok(response.body.length < 10_000, `${response.body.length} bytes`)
    t.ok(performance.now() - started < 2000, `${Math.round(performance.now() - started)} ms`)
    const unknown = await post({ ...spec('orders'), ['x'.repeat(100_000)]: 1 })
    t.ok(unknown.body.length < 2000, 'a huge name is not sent back')
  })

  t.test('each answer has the id that the log has', async t => {
    const [one, two] = [await app.inject('/x'), await app.inject('/x')]
    t.match(one.json().requestId, /^[0-9a-f-]{36}$/)
    t.not(one.json().requestId, two.json().requestId)
  })
})

t.test('every kind of problem has its page', async t => {
  const { app } = await startApp(t)
  for (const [code, { status, title, about }] of Object.entries(PROBLEMS)) {
    const response = await app.inject(`/problems/${code}`)
    t.equal(response.statusCode, 200, code)
    t.equal(response.headers['content-type'], 'text/plain; charset=utf-8')
    t.ok(response.body.startsWith(`${code} (${status}): ${title}\n\n${about}`), code)
    t.notMatch(response.body, /\.\./)
  }
  for (const code of ['nothing', 'constructor', '__proto__', 'toString'])
    t.match(told(await app.inject(`/problems/${code}`)), problemOf(404, 'not-found'), code)
})
