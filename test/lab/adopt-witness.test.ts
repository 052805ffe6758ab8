/** A cluster with a witness is forgotten, and taken over again as if somebody else had built it. */
import t from 'tap'
import type { Problem } from '../../src/api/problems.js'
import type { Adoption } from '../../src/cluster/adoption.js'
import type { Drift } from '../../src/cluster/drift.js'
import type { ClusterStatus } from '../../src/cluster/status.js'
import type { Operation } from '../../src/operations/operation.js'
import { ended, psql, startLabTest } from '../fixtures/lab.js'

t.test('a cluster with a witness is adopted', { timeout: 600_000 }, async t => {
  const { lab, node, addHosts, start } = await startLabTest(t, 'witness', { postgres: true })
  const hosts = await addHosts(['pg1', 'pg2', 'eye'])
  const service = await start()
  const [pg1, pg2, eye] = hosts.map(node)
  if (!pg1 || !pg2 || !eye) throw new Error('no hosts')
  const description = { name: 'orders', postgresVersion: 15, nodes: [pg1, pg2, { ...eye, kind: 'witness' }] }
  const run = async (method: string, path: string, body: object) => {
    const { body: queued } = await service.call<Operation>(method, path, { body })
    return ended(() => service, queued.id, 400_000)
  }
  const built = await run('POST', '/v1/clusters', { ...description, bootstrap: true })
  t.equal(built.state, 'succeeded', JSON.stringify(built.error))
  t.equal((await service.call('DELETE', '/v1/clusters/orders')).status, 200)

  const started = () => Promise.all(hosts.map(({ name }) => psql(lab, name, 'SELECT pg_postmaster_start_time()')))
  const before = await started()
  // What tells a host that this service has built from one that somebody else has.
  const forget = "rm -f /var/lib/understudy/postgresql-*; sed -i '/Managed by Understudy/d' /etc/repmgr.conf"
  for (const { name } of hosts) await lab.exec(name, ['sh', '-c', forget])

  const nodes = [pg1, pg2, eye].map(({ name, ssh }) => ({ name, ssh }))
  const adopt = <T>(given: typeof eye) =>
    service.call<T>('POST', '/v1/clusters/adopt', {
      body: { name: 'orders', node: { host: given.host, ssh: given.ssh }, nodes },
    })

  await t.test('given the witness it is refused: it has a copy only', async t => {
    const { status, body } = await adopt<Problem>(eye)
    t.equal(status, 409)
    t.match(body.detail, /eye is the witness: .* Give one of the nodes that hold the data: pg1, pg2/)
  })

  await t.test('given a node with data it is recorded, witness and all', async t => {
    const { status, body } = await adopt<Adoption>(pg2)
    t.equal(status, 201, JSON.stringify(body))
    t.match(
      body.cluster.nodes.map(({ name, kind, adopted }) => [name, kind, adopted]),
      [
        ['pg1', undefined, true],
        ['pg2', undefined, true],
        ['eye', 'witness', true],
      ],
    )
    const own = await psql(lab, 'eye', 'SELECT system_identifier FROM pg_control_system()')
    t.equal(body.cluster.nodes[2]?.systemIdentifier, own)
    t.not(body.cluster.systemIdentifier, own)
  })

  await t.test('its description brings in place what the service manages; the second time nothing', async t => {
    const first = await run('PUT', '/v1/clusters/orders', description)
    t.equal(first.state, 'succeeded', JSON.stringify(first.error))
    t.equal(first.steps.find(({ id }) => id === 'eye/take-over')?.state, 'changed')
    const { body: status } = await service.call<ClusterStatus>('GET', '/v1/clusters/orders/status')
    t.equal(status.diagnosis.code, 'healthy', status.diagnosis.detail)
    t.same(
      status.nodes.map(({ name, role }) => [name, role]),
      [
        ['pg1', 'primary'],
        ['pg2', 'standby'],
        ['eye', 'witness'],
      ],
    )
    const second = await run('PUT', '/v1/clusters/orders', description)
    t.equal(second.state, 'succeeded', JSON.stringify(second.error))
    t.equal(second.result?.changedSteps, 0, JSON.stringify(second.steps.filter(({ state }) => state === 'changed')))
    t.same((await service.call<Drift>('GET', '/v1/clusters/orders/drift')).body.items, [])
    t.same(await started(), before, 'no server was started again')
  })
})
