/** Rehearsals on real hosts: what the client of a drill has seen, and what is left of it. */
import t, { type Test } from 'tap'
import type { Problem } from '../../src/api/problems.js'
import type { Cluster } from '../../src/cluster/model.js'
import type { ClusterStatus } from '../../src/cluster/status.js'
import type { Operation } from '../../src/operations/operation.js'
import { ended, psql, startLabTest, stepIn } from '../fixtures/lab.js'
import { eventually } from '../fixtures/redis.js'

t.test('a switchover and a failover are rehearsed while a client writes', { timeout: 880_000 }, async t => {
  const { lab, node, addHosts, start } = await startLabTest(t, 'drills', { postgres: true })
  const hosts = await addHosts(['pg1', 'pg2', 'pg3'])
  let service = await start()
  const description = { name: 'orders', postgresVersion: 15, nodes: hosts.map(node) }
  const call = <T = Operation & Problem>(body: unknown = {}, query = '') =>
    service.call<T>('POST', `/v1/clusters/orders/drills${query}`, { body })
  const status = async () => (await service.call<ClusterStatus>('GET', '/v1/clusters/orders/status')).body
  const healthy = () =>
    eventually(async () => {
      const now = await status()
      return now.diagnosis.code === 'healthy' ? now : undefined
    }, 60_000)
  const primary = async () => (await healthy()).primary ?? ''
  /** Its table is gone, its record too, and it ended as it should. */
  const isThrough = async (t: Test, operation: Operation) => {
    t.equal(operation.state, 'succeeded', JSON.stringify(operation.error))
    const tables = "SELECT count(*) FROM pg_tables WHERE tablename LIKE 'understudy%'"
    const left = await lab.exec(await primary(), ['sudo', '-u', 'postgres', 'psql', '-XAtqc', tables, 'repmgr'])
    t.equal(left.stdout.trim(), '0', 'its table is gone')
    const { body: cluster } = await service.call<Cluster>('GET', '/v1/clusters/orders')
    t.match([cluster.drill, cluster.handover], [undefined, undefined])
    t.comment(operation.result?.summary)
  }

  const { body: built } = await service.call<Operation>('POST', '/v1/clusters', {
    body: { ...description, bootstrap: true },
  })
  t.equal((await ended(() => service, built.id)).state, 'succeeded')

  await t.test('refused until the policy of the cluster allows it', async t => {
    t.match(await call({}, '?wait=60'), { status: 409, body: { detail: /its policy does not allow drills/ } })
    t.match(await call({}, '?dryRun=true'), { status: 409 })
    const { body } = await service.call<Operation>('PUT', '/v1/clusters/orders', {
      body: { ...description, drills: 'allowed' },
    })
    t.equal((await ended(() => service, body.id)).state, 'succeeded')
    await service.call('POST', '/v1/clusters/orders/pause', { body: { reason: 'new disks' } })
    t.match(await call({}, '?wait=60'), { status: 409, body: { detail: /is paused by admin until .*new disks/ } })
    await service.call('POST', '/v1/clusters/orders/resume')
  })

  await t.test('a switchover', async t => {
    const old = await primary()
    const { body } = await call({ to: 'pg2' })
    const operation = await ended(() => service, body.id)
    await isThrough(t, operation)
    t.match(operation.result?.drill, { lost: 0, complete: true })
    t.ok((operation.result?.drill?.acknowledged ?? 0) > 50)
    t.ok((operation.result?.drill?.writesRefusedMs ?? 0) > 50, 'the exchange was seen')
    t.match(
      operation.result?.summary,
      /^Writes were refused for \d+ ms; \d+ rows were acknowledged, none of them is lost/,
    )
    const now = await healthy()
    t.equal(now.primary, 'pg2')
    t.equal(now.nodes.find(({ name }) => name === old)?.role, 'standby')
  })

  await t.test('a failover is confirmed first, and only where the cluster is whole', async t => {
    t.match(await call({ kind: 'failover' }, '?wait=60'), {
      status: 409,
      body: { type: '/problems/confirmation-required', detail: /pg2, the primary of orders, is taken away/ },
    })
    await lab.exec('pg3', ['systemctl', 'stop', 'postgresql@15-main'])
    t.match(await call({ kind: 'failover', confirm: 'orders' }, '?wait=60'), {
      status: 409,
      body: { detail: /pg3 is not there as a standby that streams/ },
    })
    await lab.exec('pg3', ['systemctl', 'start', 'postgresql@15-main'])
    t.equal(await primary(), 'pg2')
  })

  for (const fault of ['kill', 'stop'] as const) {
    await t.test(`a failover, by ${fault}`, async t => {
      const old = await primary()
      const { body } = await call({ kind: 'failover', fault, confirm: 'orders' })
      const operation = await ended(() => service, body.id)
      await isThrough(t, operation)
      t.match(operation.result?.drill, { complete: true, lost: Number })
      t.ok((operation.result?.drill?.writesRefusedMs ?? 0) > 200)
      const decision = operation.steps.find(({ id }) => id === 'cluster/promotion')?.decision
      t.match(decision, { replaced: [old], fencing: [{ node: old, method: 'ssh' }] })
      const now = await healthy()
      t.not(now.primary, old)
      t.equal(now.nodes.filter(({ role }) => role === 'standby').length, 2)
    })
  }

  await t.test(
    'its worker dies once the primary is gone: the next one ends it, and says that it saw only a part',
    async t => {
      const old = await primary()
      const { body } = await call({ kind: 'failover', confirm: 'orders' })
      const lives = async () => (await lab.exec(old, ['pgrep', '-x', 'postgres'], { reject: false })).exitCode === 0
      await eventually(async () => !(await lives()), 60_000)
      await service.kill()
      service = await start()
      const operation = await ended(() => service, body.id)
      await isThrough(t, operation)
      t.match(operation.result?.drill, { complete: false })
      t.not(await primary(), old)
      t.equal(await psql(lab, old, 'SELECT pg_is_in_recovery()'), 't')
    },
  )

  await t.test('both standbys go away too: the primary is left alone, which is said; a retry goes on', async t => {
    const old = await primary()
    const standbys = hosts.map(({ name }) => name).filter(name => name !== old)
    const { body } = await call({ kind: 'failover', confirm: 'orders' })
    await stepIn(() => service, body.id, 'cluster/drill-client', ['running', 'changed'])
    await Promise.all(standbys.map(name => lab.linkDown(name)))
    const failed = await ended(() => service, body.id)
    t.match(failed.error, {
      code: 'drill-primary-away',
      outcome: 'failed_partial',
      detail: new RegExp(
        `${old}, which the drill took away, was not started again: pg\\d does not answer as a standby`,
      ),
      remedy: /Nobody may accept writes now\..*Retrying the operation then promotes a standby/,
    })
    const lives = await lab.exec(old, ['pgrep', '-x', 'postgres'], { reject: false })
    t.not(lives.exitCode, 0, 'it was not started again')
    await Promise.all(standbys.map(name => lab.linkUp(name)))
    await eventually(async () => (await status()).nodes.filter(({ role }) => role === 'standby').length === 2, 60_000)
    t.equal((await service.call('POST', `/v1/operations/${body.id}/retry`)).status, 202)
    const operation = await ended(() => service, body.id)
    await isThrough(t, operation)
    t.match(operation.result?.drill, { complete: false })
    t.not(await primary(), old)
  })
})
