import t from 'tap'
import { subjectOf } from '../../jobs/same-plan.js'
import { contractDocument } from '../../openapi/document.js'
import { newCluster } from '../../src/cluster/model.js'
import type { Operation } from '../../src/operations/operation.js'
import { startApp } from '../fixtures/app.js'
import { eventually } from '../fixtures/redis.js'
import type { Contract } from './fixtures/contract.js'
import { built, failure, finish, node, problemOf, queued, spec, told } from './fixtures/requests.js'

const UNKNOWN = 'op_01KAR3QJ7ZC0V7W0M2E9T1X5YB'

t.test('changing calls', async t => {
  const test = await startApp(t)
  const { app, headers, store } = test
  const call = (method: 'GET' | 'POST', url: string, more: Record<string, string> = {}, payload?: object) =>
    app.inject({ method, url, headers: { ...headers, ...more }, ...(payload ? { payload } : {}) })
  const post = (url: string, payload?: object, more: Record<string, string> = {}) => call('POST', url, more, payload)
  const build = (name: string) => ({ ...spec(name), bootstrap: true })
  const take = async (id: string) => {
    const turn = await store.operations.take(id, 'test', 30_000)
    if (!turn) throw new Error('not taken')
    return turn
  }

  await t.test('cancel', async t => {
    const { id } = await queued(test, 'cancelled')
    const path = `/v1/operations/${id}`
    const response = await post(`${path}/cancel?reference=CHG-1`)
    t.equal(response.statusCode, 200)
    t.equal(response.headers.location, path)
    t.match(response.json(), {
      state: 'cancelled',
      cancelRequest: { by: 'test', reference: 'CHG-1' },
      error: { code: 'cancelled', outcome: 'not_started' },
    })
    const late = await post(`${path}/cancel`)
    t.match(told(late), problemOf(409, 'operation-ended'))
    t.equal(late.json().operation, path)
    const text = (await call('GET', path, { accept: 'text/plain' })).body
    t.match(text, /\nTo be cancelled, says test at 20.*Z \(CHG-1\)\n/)
    t.match(text, /\nCancelled \(cancelled, not_started\): It was cancelled by test/)

    const running = await queued(test, 'runs')
    const turn = await take(running.id)
    const waiting = post(`/v1/operations/${running.id}/cancel?wait=30`)
    await eventually(() => store.operations.cancelRequest(running.id))
    for (const _ of [1, 2]) {
      const asked = await post(`/v1/operations/${running.id}/cancel`)
      t.equal(asked.statusCode, 202)
      t.match(asked.json(), { state: 'running', cancelRequest: { by: 'test' } })
    }
    await store.operations.finish(turn, { state: 'cancelled', error: { ...failure, code: 'cancelled' } })
    t.match((await waiting).json(), { state: 'cancelled' })
    t.equal((await waiting).statusCode, 200, 'what was wanted is no problem')
    const log = (await call('GET', `/v1/operations/${running.id}/log`)).body
    t.match(log, /running, to be cancelled: test wants it\n/)
    for (const what of ['cancel', 'retry'])
      t.match(told(await post(`/v1/operations/${UNKNOWN}/${what}`)), problemOf(404, 'not-found'))
  })

  await t.test('retry', async t => {
    const { id } = await queued(test, 'retried')
    const path = `/v1/operations/${id}`
    t.match(told(await post(`${path}/retry`)), problemOf(409, 'not-retryable'))
    await finish(test, id, failure)
    const response = await post(`${path}/retry?reference=CHG-2`)
    t.equal(response.statusCode, 202)
    t.match(response.json(), { id, state: 'queued', retries: 1, lastRetry: { by: 'test', reference: 'CHG-2' } })
    await finish(test, id, failure)
    const other = await queued(test, 'retried')
    const refused = await post(`${path}/retry`)
    t.match(told(refused), problemOf(409, 'cluster-busy'))
    t.equal(refused.json().operation, `/v1/operations/${other.id}`, 'with a link')
    t.equal(refused.headers['retry-after'], '10')
    await finish(test, other.id, failure)
    const twice = post(`${path}/retry?wait=30`)
    await eventually(async () => (await store.operations.get(id))?.state === 'queued')
    await finish(test, id)
    t.equal((await twice).statusCode, 200)
    t.match(told(await post(`${path}/retry`)), problemOf(409, 'not-retryable'))
    const text = (await call('GET', path, { accept: 'text/plain' })).body
    t.match(text, /\nRetried 2 times, last by test at 20/)
    t.match((await call('GET', `${path}/log`)).body, /queued again by test\n/)
    const trail = (await call('GET', '/v1/events?cluster=retried')).json()
    t.ok(
      trail.items.some(
        ({ type, who }: { type: string; who: { name: string } }) => type === 'operation-retried' && who.name === 'test',
      ),
    )
  })

  await t.test('a retry of what is out of date', async t => {
    await built(test, 'outdated')
    const { id } = await queued(test, 'outdated')
    await finish(test, id, failure)
    const later = await queued(test, 'outdated')
    await finish(test, later.id)
    const overtaken = await post(`/v1/operations/${id}/retry`)
    t.match(told(overtaken), problemOf(409, 'retry-outdated'))
    t.match(overtaken.json().detail, /^outdated has been changed by .* since .* ended/)
    t.equal(overtaken.json().operation, `/v1/operations/${later.id}`, 'with a link')
    await store.clusters.forget('outdated')
    // Two records of the same millisecond would be one and the same.
    const { createdAt } = later
    await eventually(async () => new Date().toISOString() > createdAt)
    await built(test, 'outdated')
    const replaced = await post(`/v1/operations/${id}/retry`)
    t.match(told(replaced), problemOf(409, 'retry-outdated'))
    t.match(replaced.json().detail, /of another cluster, which was forgotten/)
    t.match(await store.operations.get(id), { state: 'failed' })
  })

  await t.test('a cancelled operation is a problem to who waits for it', async t => {
    const asked = post('/v1/clusters?wait=30', build('awaited'))
    let id: string | undefined
    while (id === undefined) id = await store.operations.activeOn('awaited')
    await post(`/v1/operations/${id}/cancel`)
    t.match(told(await asked), problemOf(409, 'cancelled'))
    t.equal((await asked).json().operation, `/v1/operations/${id}`)
  })

  await t.test('Idempotency-Key', async t => {
    const key = { 'idempotency-key': '"one"' }
    const many = await Promise.all(Array.from({ length: 10 }, () => post('/v1/clusters', build('once'), key)))
    t.same(new Set(many.map(({ statusCode }) => statusCode)), new Set([202]))
    const [location] = new Set(many.map(({ headers }) => headers.location))
    t.equal(new Set(many.map(({ headers }) => headers.location)).size, 1)
    t.equal(many.filter(({ headers }) => headers['idempotent-replayed'] === 'true').length, 9)
    const id = String(location).split('/').at(-1) ?? ''

    for (const [what, response] of [
      ['another body', await post('/v1/clusters', build('other'), key)],
      ['another path', await post(`/v1/operations/${id}/cancel`, undefined, key)],
      ['another query', await post('/v1/clusters?reference=x', build('once'), key)],
    ] as const)
      t.match(told(response), problemOf(422, 'idempotency-key-reused'), what)
    t.equal((await store.operations.get(id))?.state, 'queued', 'which does nothing')
    const { name, ...rest } = build('once')
    const reordered = await post('/v1/clusters?wait=0', { ...rest, name }, { 'idempotency-key': 'one' })
    t.equal(reordered.headers.location, location, 'the order of the fields, the wait and the quotes do not matter')

    await finish(test, id, failure)
    const failed = await post('/v1/clusters', build('once'), key)
    t.match(told(failed), problemOf(502, 'operation-failed'))
    t.equal(failed.json().operation, location)
    t.equal(failed.headers.location, location)
    await post(`/v1/operations/${id}/retry`, undefined, { 'idempotency-key': 'two' })
    await finish(test, id)
    const succeeded = await post('/v1/clusters', build('once'), key)
    t.equal(succeeded.statusCode, 200)
    t.equal(succeeded.json().id, id)
    const retried = await post(`/v1/operations/${id}/retry`, undefined, { 'idempotency-key': 'two' })
    t.equal(retried.statusCode, 200, 'it is not tried a second time, and not refused')
    t.match(retried.json(), { state: 'succeeded', retries: 1 })

    const stranger = await store.tokens.create('somebody else')
    const own = await post('/v1/clusters', build('once'), { ...key, authorization: `Bearer ${stranger}` })
    t.not(own.headers.location, location, 'a key is of one token')

    const described = await post('/v1/clusters', spec('plain'), { 'idempotency-key': '"three"' })
    t.equal(described.statusCode, 201)
    t.equal((await post('/v1/clusters', spec('plain'), { 'idempotency-key': '"three"' })).statusCode, 200)
    const reused = await post('/v1/clusters', spec('plain-2'), { 'idempotency-key': '"three"' })
    t.match(told(reused), problemOf(422, 'idempotency-key-reused'))
    t.equal(await store.clusters.get('plain-2'), undefined)
    for (const bad of ['"open', '""', 'two words', 'a"b', '\\', 'x'.repeat(256)])
      t.match(
        told(await post('/v1/clusters', spec('plain'), { 'idempotency-key': bad })),
        problemOf(400, 'bad-request'),
        bad,
      )
  })

  await t.test('a call that is refused does not use its key up', async t => {
    const key = { 'idempotency-key': 'later' }
    const { id } = await queued(test, 'busy')
    await built(test, 'busy')
    const add = () => post('/v1/clusters/busy/nodes', node('pg2', { host: '127.0.0.2' }), key)
    t.match(told(await add()), problemOf(409, 'cluster-busy'))
    await finish(test, id)
    t.equal((await add()).statusCode, 202)
  })

  await t.test('ETag and If-Match', async t => {
    await built(test, 'seen')
    const read = await call('GET', '/v1/clusters/seen')
    const tag = String(read.headers.etag)
    t.match(tag, /^"2-[0-9a-z]+"$/)
    const text = String((await call('GET', '/v1/clusters/seen', { accept: 'text/plain' })).headers.etag)
    t.not(text, tag, 'another representation has another tag')
    const add = (match: string) =>
      post('/v1/clusters/seen/nodes', node('pg2', { host: '127.0.0.2' }), { 'if-match': match })
    for (const wrong of ['"1-x"', `W/${tag}`, tag.replaceAll('"', ''), '"2"'])
      t.match(told(await add(wrong)), problemOf(412, 'precondition-failed'), wrong)
    for (const right of [tag, text, '*', `"1-x", ${tag}`]) {
      const response = await add(right)
      t.equal(response.statusCode, 202, right)
      await finish(test, response.json().id, failure)
    }
    await store.clusters.update('seen', cluster => cluster)
    t.match(told(await add(tag)), problemOf(412, 'precondition-failed'))
    t.match(
      told(await post('/v1/clusters', spec('nowhere'), { 'if-match': '*' })),
      problemOf(412, 'precondition-failed'),
    )
    t.equal(await store.clusters.get('nowhere'), undefined)
  })

  await t.test('reference', async t => {
    const response = await post('/v1/clusters?reference=CHG%20%E2%84%96%204711', build('referred'))
    t.equal(response.json().reference, 'CHG № 4711')
    const read: Operation = (await call('GET', String(response.headers.location))).json()
    t.equal(read.reference, 'CHG № 4711')
    const text = (await call('GET', String(response.headers.location), { accept: 'text/plain' })).body
    t.match(text, /\nAsked for by test at .* \(CHG № 4711\)\n/)
    for (const bad of ['', 'x'.repeat(201), 'a\nb', '\u2028', '\u0007'])
      t.match(
        told(await post(`/v1/clusters?reference=${encodeURIComponent(bad)}`, build('referred'))),
        problemOf(400, 'bad-request'),
      )
  })

  await t.test('planId', async t => {
    const wanted = (name: string) =>
      ({ type: 'bootstrap-cluster', cluster: newCluster(spec(name), '2026-01-01T00:00:00Z'), input: {} }) as const
    const rest = `_${'0'.repeat(32)}_000`
    const other = await post(`/v1/clusters?planId=${subjectOf(wanted('elsewhere'))}${rest}`, build('planned'))
    t.match(told(other), problemOf(409, 'plan-changed'))
    t.match(other.json().detail, /dryRun=true/)
    t.equal(await store.operations.activeOn('planned'), undefined)
    const planId = `${subjectOf(wanted('planned'))}${rest}`
    const same = await post(`/v1/clusters?planId=${planId}`, build('planned'))
    t.equal(same.statusCode, 202, 'when a cluster was described, and how often, does not matter')
    t.equal(same.json().planId, planId, 'the worker looks at the hosts')
    await finish(test, same.json().id)
    await store.clusters.update('planned', cluster => ({ ...cluster, systemIdentifier: '1' }))
    t.match(told(await post(`/v1/clusters?planId=${planId}`, build('planned'))), problemOf(409, 'plan-changed'))
    t.match(told(await post('/v1/clusters?planId=plan_1', build('planned'))), problemOf(400, 'bad-request'))
  })
})

t.test('three clients at once', async t => {
  const test = await startApp(t)
  const { app, headers, store } = test
  const contract = app.swagger() as unknown as Contract
  const nodes = ['pg1', 'pg2', 'pg3'].map((name, at) => node(name, { host: `127.0.0.${at + 1}` }))
  /** Where the contract's own example is of another cluster. */
  const bodies: Record<string, (cluster: string) => object> = {
    createCluster: cluster => ({ ...spec(cluster, nodes), bootstrap: true }),
    applyCluster: cluster => spec(cluster, nodes),
    addNode: () => node('pg4', { host: '127.0.0.4' }),
    deleteCluster: () => ({}),
  }
  const changing = Object.entries(contract.paths).flatMap(([path, methods]) =>
    Object.entries(methods)
      .filter(([, { parameters = [] }]) => parameters.some(({ name }) => name === 'dryRun'))
      .map(([method, operation]) => ({ path, method: method.toUpperCase() as 'POST', operation })),
  )
  let accepted = 0
  for (const { path, method, operation } of changing) {
    const { operationId, requestBody } = operation
    await t.test(operationId, async t => {
      const cluster = `c-${operationId.toLowerCase()}`
      const [example] = Object.values(requestBody?.content['application/json']?.examples ?? {})
      const payload = bodies[operationId]?.(cluster) ?? example?.value
      const url = path.replace('{cluster}', cluster).replace('{node}', 'pg2')
      const query = operationId === 'deleteCluster' ? `?destroy=true&confirm=${cluster}` : ''
      await built(test, cluster, nodes)
      const atOnce = (more: Record<string, string> = {}) =>
        Promise.all(
          Array.from({ length: 3 }, () =>
            app.inject({
              method,
              url: `${url}${query}`,
              headers: { ...headers, ...more },
              ...(requestBody && payload ? { payload: payload as object } : {}),
            }),
          ),
        )
      const locations = (answers: Awaited<ReturnType<typeof atOnce>>) => [
        ...new Set(answers.map(({ headers }) => headers.location).filter(location => location !== undefined)),
      ]

      const answers = await atOnce()
      // Some ask the hosts first, and there are none here: they refuse all three.
      if (!answers.some(({ statusCode }) => statusCode === 202)) {
        t.equal(new Set(answers.map(answer => answer.json().type)).size, 1)
        t.same((await store.operations.list({ cluster, limit: 100 })).items, [])
        t.comment(`${operationId}: ${answers[0]?.statusCode} ${answers[0]?.json().type}`)
        return
      }
      accepted += 1
      const refused = answers.filter(({ statusCode }) => statusCode === 409)
      t.same(answers.map(({ statusCode }) => statusCode).sort(), [202, 409, 409])
      const [first] = locations(answers)
      for (const answer of refused) {
        t.match(told(answer), problemOf(409, 'cluster-busy'))
        t.equal(answer.json().operation, first, 'with a link to the one that runs')
      }
      await finish(test, String(first).split('/').at(-1) ?? '', failure)

      const repeated = await atOnce({ 'idempotency-key': operationId })
      t.same(
        repeated.map(({ statusCode }) => statusCode),
        [202, 202, 202],
      )
      t.equal(locations(repeated).length, 1)
      t.equal(repeated.filter(({ headers }) => headers['idempotent-replayed'] === 'true').length, 2)
      t.equal((await store.operations.list({ cluster, limit: 100 })).items.length, 2)
    })
  }
  t.ok(accepted >= 20, `${accepted} of ${changing.length} were tried to the end`)
})

t.test('no changing call lacks what all of them have', async t => {
  const contract = (await contractDocument()) as unknown as Contract
  // It changes nothing.
  const others = ['scanHostKeys']
  // There is no plan to see: they are about an operation that was planned already, or write nothing but the record.
  const planless = ['adoptCluster', 'cancelOperation', 'retryOperation']
  // What has no operation has no plan either.
  const operationless = ['pauseCluster', 'resumeCluster']
  let seen = 0
  for (const [path, methods] of Object.entries(contract.paths)) {
    for (const [method, { operationId, parameters = [], responses }] of Object.entries(methods)) {
      if (method === 'get' || others.includes(operationId)) continue
      const names = parameters.map(({ name }) => name)
      seen++
      t.ok(names.includes('reference'), `${method} ${path}: reference`)
      t.ok(names.includes('idempotency-key'), `${method} ${path}: Idempotency-Key`)
      t.ok(responses[422]?.description.includes('idempotency-key-reused'), `${method} ${path}: 422`)
      if (planless.includes(operationId)) continue
      t.ok(names.includes('dryRun'), `${method} ${path}: dryRun`)
      t.ok(names.includes('if-match') && responses[412], `${method} ${path}: If-Match, 412`)
      if (operationless.includes(operationId)) continue
      t.ok(names.includes('planId'), `${method} ${path}: planId`)
      t.ok(responses[409]?.description.includes('plan-changed'), `${method} ${path}: 409`)
    }
  }
  t.ok(seen > 20, `${seen} changing calls`)
})
