import t from 'tap'
import { type ClusterSpec, newCluster } from '../../src/cluster/model.js'
import { startApp } from '../fixtures/app.js'

const hostKey = 'SHA256:kL4Sd0mNsCXzAVEoGUfOTlZeIkoQbBFNrHqJCrW9yZQ'
const node = (name: string, host: string) => ({ name, host, ssh: { user: 'admin', hostKey } })
const spec: ClusterSpec = {
  name: 'orders',
  postgresVersion: 15,
  nodes: [node('pg1', '192.0.2.11'), node('pg2', '192.0.2.12')],
}

t.test('PUT describes a cluster that is not there and begins to build it', async t => {
  const { app, headers, store } = await startApp(t)
  const put = (body: unknown, path = '/v1/clusters/orders') =>
    app.inject({ method: 'PUT', url: path, headers, payload: body as object })
  const first = await put(spec)
  t.equal(first.statusCode, 202)
  t.equal(first.json().type, 'apply-cluster')
  t.same(first.json().differences, [{ pointer: '', detail: 'is not there' }])
  t.equal(first.headers.location, `/v1/operations/${first.json().id}`)
  t.same(
    (await store.clusters.get('orders'))?.nodes.map(({ nodeId }) => nodeId),
    [1, 2],
  )
  const second = await put(spec)
  t.equal(second.statusCode, 409, 'while it is being built, nobody else changes it')
  t.equal(second.json().operation, first.headers.location)
})

t.test('what differs is said, what cannot be changed is refused and nothing is kept of it', async t => {
  const { app, headers, store } = await startApp(t)
  await store.clusters.create(newCluster(spec, new Date().toISOString()))
  const put = (body: unknown, url = '/v1/clusters/orders') =>
    app.inject({ method: 'PUT', url, headers, payload: body as object })

  const wrong = await put(spec, '/v1/clusters/other')
  t.equal(wrong.statusCode, 422)
  t.match(wrong.json().detail, /not other/)

  const left = await put({ ...spec, nodes: spec.nodes.slice(0, 1) })
  t.equal(left.statusCode, 409)
  t.equal(left.json().type, '/problems/unchangeable')
  t.match(left.json().detail, /\/nodes has pg2.*DELETE/)
  t.equal((await store.clusters.get('orders'))?.nodes.length, 2)

  const login = await put({ ...spec, nodes: [{ ...spec.nodes[0], ssh: { user: 'root' } }, spec.nodes[1]] })
  t.equal(login.statusCode, 202, 'the host key that is known needs no saying')
  t.same(login.json().differences, [{ pointer: '/nodes/0/ssh/user', detail: 'is admin there' }])
  t.equal((await store.clusters.get('orders'))?.nodes[0]?.ssh.user, 'admin', 'recorded by the worker that does it')
})
