import type { InjectOptions } from 'fastify'
import t from 'tap'
import { startApp } from '../fixtures/app.js'
import { startSshd } from '../fixtures/sshd.js'
import {
  built,
  closedPort,
  contentOf,
  failure,
  finish,
  node,
  PIN,
  problemOf,
  spec,
  told,
  unpinned,
} from './fixtures/requests.js'

t.test('describe a cluster', async t => {
  const test = await startApp(t)
  const { app, headers, store } = test
  const post = (payload: object, query = '', more: Record<string, string> = {}) =>
    app.inject({ method: 'POST', url: `/v1/clusters${query}`, headers: { ...headers, ...more }, payload })

  t.test('201 and Location; the same again 200; another description 409', async t => {
    const wanted = spec('orders', [node('pg1'), node('pg2', { host: '127.0.0.2' })])
    const first = await post(wanted)
    t.equal(first.statusCode, 201)
    t.equal(first.headers.location, '/v1/clusters/orders')
    const cluster = first.json()
    t.match(cluster, { name: 'orders', postgresVersion: 15, nextNodeId: 3, version: 1 })
    t.same(
      cluster.nodes.map(({ name, nodeId }: { name: string; nodeId: number }) => [name, nodeId]),
      [
        ['pg1', 1],
        ['pg2', 2],
      ],
    )
    t.notOk('builtAt' in cluster)
    t.same((await app.inject({ url: '/v1/clusters/orders', headers })).json(), cluster)

    const again = await post(wanted)
    t.equal(again.statusCode, 200)
    t.equal(again.headers.location, '/v1/clusters/orders')
    t.same(again.json(), cluster)

    for (const [other, ...pointers] of [
      [{ ...wanted, postgresVersion: 16 }, '/postgresVersion'],
      [{ ...wanted, port: 6543 }, '/port'],
      [{ ...wanted, nodes: [node('pg1')] }, '/nodes'],
      [{ ...wanted, nodes: [node('pg1'), node('pg3', { host: '127.0.0.2' })] }, '/nodes/1', '/nodes'],
      [
        { ...wanted, nodes: [node('pg1', { ssh: { user: 'other' } }), node('pg2', { host: '127.0.0.3' })] },
        '/nodes/0/ssh/user',
        '/nodes/1/host',
      ],
      [
        { ...wanted, postgresVersion: 16, nodes: [unpinned('pg1'), node('pg2', { host: '127.0.0.2' })] },
        '/postgresVersion',
      ],
    ] as const) {
      const response = await post(other)
      t.match(told(response), problemOf(409, 'cluster-exists'))
      t.same(
        response.json().errors.map(({ pointer }: { pointer: string }) => pointer),
        pointers,
      )
      t.match(response.json().detail, `${pointers[0]} `)
    }
    const version = await post({ ...wanted, postgresVersion: 16 })
    t.match(
      version.json().detail,
      /^orders exists and is described differently: \/postgresVersion is 15 there\. See GET/,
    )
    t.same(await store.clusters.get('orders'), cluster, 'the record stays as it was')
  })

  t.test('the port is 5432 unless it is said', async t => {
    const { port: _port, ...wanted } = spec('ports')
    t.equal((await post(wanted)).json().port, 5432)
    t.equal((await post({ ...wanted, port: 5432 })).statusCode, 200, 'and then saying it is the same description')
  })

  t.test('what contradicts itself is 422, each place with its pointer', async t => {
    const response = await post(spec('twins', [node('pg1'), node('pg1', { host: '127.0.0.2' }), node('pg3')]))
    t.match(told(response), problemOf(422, 'inconsistent'))
    t.same(response.json().errors, [
      { pointer: '/nodes/1/name', detail: 'pg1 is also the name of nodes[0]; names are unique.' },
      { pointer: '/nodes/2/host', detail: '127.0.0.1 is also the host of nodes[0]; one node a host.' },
    ])
    t.equal(await store.clusters.get('twins'), undefined)
  })

  t.test('the list, the description, the status: as JSON and as a table', async t => {
    await built(test, 'accounts', [node('pg1'), node('pg2', { host: '127.0.0.2' })])
    const list = (await app.inject({ url: '/v1/clusters', headers })).json()
    const names = list.items.map(({ name }: { name: string }) => name)
    t.same(names, [...names].sort(), 'by name')
    t.ok(names.includes('accounts'))
    const text = async (url: string) => {
      const response = await app.inject({ url, headers: { ...headers, accept: 'text/plain' } })
      t.equal(response.headers['content-type'], 'text/plain; charset=utf-8', url)
      t.equal(response.headers.vary, 'accept', url)
      t.ok(response.body.endsWith('\n'), 'a terminal needs the last line to end')
      return response.body
    }
    const lines = (await text('/v1/clusters')).split('\n')
    t.match(lines[0], /^CLUSTER +POSTGRESQL +NODES +BUILT$/)
    t.match(lines[1], /^accounts +15 +pg1 pg2 +\d{4}-/)
    t.match(
      await text('/v1/clusters/accounts'),
      /^accounts: PostgreSQL 15, port \d+, built [\s\S]*pg2 +2 +127\.0\.0\.2/,
    )

    const status = (await app.inject({ url: '/v1/clusters/accounts/status', headers })).json()
    t.match(status, {
      cluster: 'accounts',
      primary: null,
      diagnosis: { code: 'unreachable' },
      nodes: [
        { name: 'pg1', role: 'unknown', state: 'unreachable' },
        { name: 'pg2', role: 'unknown', state: 'unreachable' },
      ],
    })
    t.match(
      await text('/v1/clusters/accounts/status'),
      /^accounts: unreachable\. No node answers[\s\S]*NODE +ROLE[\s\S]*pg1 +unknown +unreachable/,
    )
    for (const accept of [
      '*/*',
      'application/json',
      'text/plain;q=0.5, application/json',
      'text/html',
      'application/*',
    ])
      t.match(
        (await app.inject({ url: '/v1/clusters', headers: { ...headers, accept } })).headers['content-type'],
        'application/json',
        accept,
      )
  })
})

t.test('build a cluster', async t => {
  const test = await startApp(t)
  const { app, headers, store } = test
  const post = (payload: object, query = '', more: Record<string, string> = {}) =>
    app.inject({ method: 'POST', url: `/v1/clusters${query}`, headers: { ...headers, ...more }, payload })

  t.test('202 with Location and Retry-After; the next one 409 with the way to the first', async t => {
    const wanted = { ...spec('orders'), bootstrap: true }
    const first = await post(wanted)
    t.equal(first.statusCode, 202)
    const operation = first.json()
    t.equal(first.headers.location, `/v1/operations/${operation.id}`)
    t.equal(first.headers['retry-after'], '2')
    t.match(operation, {
      type: 'bootstrap-cluster',
      cluster: 'orders',
      state: 'queued',
      requestedBy: 'test',
      steps: [],
    })
    t.same((await app.inject({ url: `/v1/operations/${operation.id}`, headers })).json(), operation)

    const second = await post(wanted)
    t.match(told(second), problemOf(409, 'cluster-busy'))
    t.equal(second.json().operation, first.headers.location)
    t.match(second.json().detail, `GET ${first.headers.location}?wait=60`)
    t.equal(second.headers['retry-after'], '10')
    t.equal((await post(spec('orders'))).statusCode, 200, 'to describe it again is no conflict')

    await finish(test, operation.id)
    const third = await post(wanted)
    t.equal(third.statusCode, 202, 'once it has ended, the same call may be repeated')
    t.not(third.json().id, operation.id)
  })

  t.test('as text for who asks for text', async t => {
    const response = await post({ ...spec('texts'), bootstrap: true }, '', { accept: 'text/plain' })
    t.equal(response.statusCode, 202)
    t.match(response.body, /^bootstrap-cluster of texts: queued\.\n\/v1\/operations\/op_/)
  })

  t.test('twenty at once: exactly one is accepted', async t => {
    for (const name of ['race-one', 'race-two', 'race-three']) {
      const answers = await Promise.all(Array.from({ length: 20 }, () => post({ ...spec(name), bootstrap: true })))
      const accepted = answers.filter(({ statusCode }) => statusCode === 202)
      const refused = answers.filter(({ statusCode }) => statusCode === 409)
      t.same([accepted.length, refused.length], [1, 19])
      for (const response of refused) {
        t.match(told(response), problemOf(409, 'cluster-busy'))
        t.equal(response.json().operation, accepted[0]?.headers.location)
      }
      const { items } = await store.operations.list({ cluster: name, limit: 100 })
      t.equal(items.length, 1)
    }
  })

  t.test('two different descriptions of one name at once: one is kept, the other told', async t => {
    const answers = await Promise.all([15, 16].map(postgresVersion => post({ ...spec('rivals'), postgresVersion })))
    t.same(answers.map(({ statusCode }) => statusCode).sort(), [201, 409])
  })

  t.test('waiting for the end', async t => {
    const wait = async (name: string, query: string, more: InjectOptions['headers'], error?: typeof failure) => {
      const answer = post({ ...spec(name), bootstrap: true }, query, more as Record<string, string>)
      let id: string | undefined
      while (id === undefined) id = await store.operations.activeOn(name)
      await finish(test, id, error)
      return { response: await answer, id }
    }
    const good = await wait('good', '?wait=20', {})
    t.equal(good.response.statusCode, 200)
    t.match(good.response.json(), { id: good.id, state: 'succeeded', result: { summary: 'Done.' } })
    t.equal(good.response.headers.location, `/v1/operations/${good.id}`)

    const preferred = await wait('preferred', '', { prefer: 'respond-async, wait=20' })
    t.equal(preferred.response.statusCode, 200)
    t.equal(preferred.response.headers['preference-applied'], 'wait=20')

    const bad = await wait('bad', '?wait=20', {}, failure)
    t.match(told(bad.response), problemOf(502, 'operation-failed'))
    t.equal(bad.response.json().operation, `/v1/operations/${bad.id}`)
    t.equal(bad.response.json().detail, `${failure.detail} ${failure.remedy}`)

    const refused = await wait(
      'refused',
      '?wait=20',
      {},
      {
        code: 'data-directory-not-empty',
        detail: 'There is a database',
        outcome: 'not_started',
        remedy: 'Move it away',
      },
    )
    t.match(told(refused.response), problemOf(409, 'data-directory-not-empty'))
    t.equal(refused.response.json().detail, 'There is a database. Move it away.', 'each a sentence, with one stop')

    const slow = await post({ ...spec('slow'), bootstrap: true }, '?wait=1')
    t.equal(slow.statusCode, 202, 'still queued after a second')
  })
})

t.test('host keys', async t => {
  const test = await startApp(t)
  const { app, headers, store } = test
  const sshd = await startSshd()
  t.teardown(() => sshd.stop())
  const post = (payload: object, query = '') =>
    app.inject({ method: 'POST', url: `/v1/clusters${query}`, headers, payload })
  const here = unpinned('pg1', { ssh: { port: sshd.port } })
  const nowhere = unpinned('pg2', { host: '127.0.0.2' })

  t.test('a host without a pin: 422, with the key that it offers', async t => {
    const response = await post({ ...spec('orders', [here]), bootstrap: true })
    t.match(told(response), problemOf(422, 'host-key-unconfirmed'))
    const offers = `pg1 (127.0.0.1) offers ssh-ed25519 ${sshd.fingerprints.ed25519}`
    t.same(response.json().errors, [{ pointer: '/nodes/0/ssh/hostKey', detail: offers }])
    t.ok(response.json().detail.startsWith(`${offers}. Compare with "ssh-keygen -lf `), response.json().detail)
    t.equal(await store.clusters.get('orders'), undefined, 'nothing was written')

    const confirmed = { ...here, ssh: { ...here.ssh, hostKey: sshd.fingerprints.ed25519 } }
    t.equal((await post(spec('orders', [confirmed]))).statusCode, 201, 'confirmed by repeating the call with it')
  })

  t.test('one answers and one does not: both are told', async t => {
    const response = await post(spec('halves', [here, nowhere]))
    t.match(told(response), problemOf(422, 'host-key-unconfirmed'))
    t.same(
      response.json().errors.map(({ pointer }: { pointer: string }) => pointer),
      ['/nodes/0/ssh/hostKey', '/nodes/1/ssh/hostKey'],
    )
    t.match(response.json().detail, /offers ssh-ed25519 .*pg2: 127\.0\.0\.2:\d+ cannot be reached over SSH/)
  })

  t.test('no host answers: that is what is said', async t => {
    const response = await post(spec('dark', [unpinned('pg1'), nowhere]))
    t.match(told(response), problemOf(502, 'host-unreachable'))
    t.same(response.json().errors, [
      {
        pointer: '/nodes/0/ssh/hostKey',
        detail: `pg1: 127.0.0.1:${closedPort} cannot be reached over SSH: the connection was refused.`,
      },
      {
        pointer: '/nodes/1/ssh/hostKey',
        detail: `pg2: 127.0.0.2:${closedPort} cannot be reached over SSH: the connection was refused.`,
      },
    ])
    t.match(response.json().detail, /Check that 127\.0\.0\.1 is up.*Check that 127\.0\.0\.2 is up/)
    t.notMatch(response.body, /\.\.|confirm|understudy@/)
  })

  t.test('only those without a pin are asked', async t => {
    const response = await post(spec('mixed', [node('pg1'), nowhere]))
    t.same(
      response.json().errors.map(({ pointer }: { pointer: string }) => pointer),
      ['/nodes/1/ssh/hostKey'],
    )
  })

  t.test('the scan', async t => {
    const scan = (payload: object) => app.inject({ method: 'POST', url: '/v1/host-keys/scan', headers, payload })
    const response = await scan({ host: '127.0.0.1', port: sshd.port })
    t.equal(response.statusCode, 200)
    t.same(response.json(), {
      host: '127.0.0.1',
      port: sshd.port,
      keys: [
        { type: 'ssh-ed25519', fingerprint: sshd.fingerprints.ed25519 },
        { type: 'ecdsa-sha2-nistp256', fingerprint: sshd.fingerprints.ecdsa },
        { type: 'rsa-sha2-512', fingerprint: sshd.fingerprints.rsa },
      ].map((key, at) => (at === 2 ? { ...key, type: response.json().keys[2].type } : key)),
    })
    const dark = await scan({ host: '127.0.0.1', port: closedPort })
    t.match(told(dark), problemOf(502, 'host-unreachable'))
    t.ok(
      dark
        .json()
        .detail.startsWith(`127.0.0.1:${closedPort} cannot be reached over SSH: the connection was refused. Check`),
    )
  })

  t.test('a dry run writes nothing, whatever it finds', async t => {
    const before = await contentOf(test)
    for (const [what, wanted, expected] of [
      ['nobody listens', node('pg1'), problemOf(502, 'host-unreachable')],
      ['another key', node('pg1', { ssh: { port: sshd.port } }), problemOf(502, 'host-key-mismatch')],
      [
        'our key is not accepted',
        node('pg1', { ssh: { port: sshd.port, hostKey: sshd.fingerprints.ed25519 } }),
        problemOf(502, 'authentication-failed'),
      ],
      ['no pin', here, problemOf(422, 'host-key-unconfirmed')],
    ] as const) {
      const response = await post({ ...spec('dry', [wanted]), bootstrap: true }, '?dryRun=true')
      t.match(told(response), expected, what)
      t.match(response.json().detail, /^[^.].*[.!?]$/, 'sentences')
      t.notMatch(response.json().detail, /\.\.(?!\.)/, response.json().detail)
    }
    t.same(await contentOf(test), before)
  })

  t.test('the key of the service', async t => {
    const json = await app.inject({ url: '/v1/ssh-key', headers })
    t.match(json.json(), { publicKey: /^ssh-ed25519 \S+ test$/ })
    const text = await app.inject({ url: '/v1/ssh-key', headers: { ...headers, accept: 'text/plain' } })
    t.equal(text.body, `${json.json().publicKey}\n`, 'as it goes into authorized_keys')
  })
  t.equal(PIN.length, 50)
})
