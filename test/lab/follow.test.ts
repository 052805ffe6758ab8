/** A running standby is moved below another node and back: by its description, by a call of its own, and from half-way. */
import t, { type Test } from 'tap'
import type { Problem } from '../../src/api/problems.js'
import type { Cluster } from '../../src/cluster/model.js'
import type { ClusterStatus } from '../../src/cluster/status.js'
import type { Operation, PlanPreview } from '../../src/operations/operation.js'
import { ended, psql, startLabTest } from '../fixtures/lab.js'
import { eventually } from '../fixtures/redis.js'

t.test('standbys move, and nobody is restarted', { timeout: 900_000 }, async t => {
  const { lab, node, addHosts, start } = await startLabTest(t, 'follow', { postgres: true })
  const hosts = await addHosts(['pg1', 'pg2', 'pg3', 'eye'])
  const service = await start()
  const [pg1, pg2, pg3, eye] = hosts.map(node)
  const description = (upstream?: string) => ({
    name: 'orders',
    postgresVersion: 15,
    nodes: [pg1, pg2, { ...pg3, ...(upstream ? { upstream } : {}) }, { ...eye, kind: 'witness' }],
  })
  const put = async (upstream?: string) => {
    const { body } = await service.call<Operation>('PUT', '/v1/clusters/orders', { body: description(upstream) })
    return ended(() => service, body.id, 400_000)
  }
  const path = (name: string) => `/v1/clusters/orders/nodes/${name}/follow`
  const follow = async (name: string, body: object = {}) => {
    const answer = await service.call<Operation>('POST', path(name), { body })
    return ended(() => service, answer.body.id)
  }
  const slots = async () => {
    const text = "SELECT string_agg(slot_name || ' ' || active, ',' ORDER BY slot_name) FROM pg_replication_slots"
    return Promise.all(['pg1', 'pg2', 'pg3'].map(host => psql(lab, host, text)))
  }
  const BELOW_PG1 = ['repmgr_slot_2 true,repmgr_slot_3 true', '', '']
  const BELOW_PG2 = ['repmgr_slot_2 true', 'repmgr_slot_3 true', '']
  const STARTED = 'SELECT pg_postmaster_start_time()'
  const states = (operation: Operation) =>
    Object.fromEntries(operation.steps.filter(({ node }) => node === 'pg3').map(({ id, state }) => [id, state]))
  const seenBelow = async (t: Test, upstream: 'pg1' | 'pg2') => {
    t.same(await slots(), upstream === 'pg1' ? BELOW_PG1 : BELOW_PG2, 'one slot a standby, none left over')
    const { body } = await service.call<ClusterStatus>('GET', '/v1/clusters/orders/status')
    t.equal(body.diagnosis.code, 'healthy', body.diagnosis.detail)
    t.match(
      body.nodes.find(({ name }) => name === 'pg3'),
      { upstream, state: 'streaming', slot: { active: true }, problem: null },
    )
    for (const { name } of hosts) {
      const ask = 'SELECT upstream_node_id FROM repmgr.nodes WHERE node_id = 3'
      const known = await eventually(async () => {
        const row = await lab.exec(name, ['sudo', '-u', 'postgres', 'psql', '-XAtqc', ask, 'repmgr'])
        return row.stdout.trim() === upstream.slice(2)
      }, 30_000)
      t.ok(known, `${name} knows it`)
    }
  }

  const built = await service.call<Operation>('POST', '/v1/clusters', { body: { ...description(), bootstrap: true } })
  const first = await ended(() => service, built.body.id, 400_000)
  t.equal(first.state, 'succeeded', JSON.stringify(first.error))
  t.match(states(first), { 'pg3/upstream': 'unchanged', 'pg3/former-slots': 'unchanged' })
  const startedAt = await psql(lab, 'pg3', STARTED)

  await t.test('below another standby, by its description', async t => {
    const { body } = await service.call<PlanPreview>('PUT', '/v1/clusters/orders?dryRun=true', {
      body: description('pg2'),
    })
    const planned = body.steps.filter(({ verdict }) => verdict === 'would_run')
    t.same(
      planned.map(({ id }) => id).filter(id => !['pg3/follow', 'eye/register'].includes(id)),
      ['pg3/upstream', 'pg3/register', 'pg3/former-slots'],
    )
    t.match(JSON.stringify(planned), /pg_create_physical_replication_slot\('repmgr_slot_3', true\)/)
    const moved = await put('pg2')
    t.equal(moved.state, 'succeeded', JSON.stringify(moved.error))
    t.match(states(moved), { 'pg3/upstream': 'changed', 'pg3/register': 'changed', 'pg3/former-slots': 'changed' })
    await seenBelow(t, 'pg2')
    t.equal((await put('pg2')).result?.changedSteps, 0, 'the second time changes nothing')
  })

  await t.test('a circle is refused', async t => {
    const refused = await service.call<Problem>('POST', `${path('pg2')}?dryRun=true`, { body: { upstream: 'pg3' } })
    t.equal(refused.status, 409)
    t.match(refused.body.detail, /pg2 would stream from pg3 would stream from pg2, a circle without a primary/)
    const nodes = [pg1, { ...pg2, upstream: 'pg3' }, { ...pg3, upstream: 'pg2' }]
    const body = { ...description(), nodes: [...nodes, { ...eye, kind: 'witness' }] }
    t.equal((await service.call('PUT', '/v1/clusters/orders', { body })).status, 422)
  })

  await t.test('back below the primary, by a call of its own', async t => {
    const moved = await follow('pg3', { upstream: 'pg1' })
    t.equal(moved.state, 'succeeded', JSON.stringify(moved.error))
    t.match(moved, { type: 'follow-node', node: 'pg3' })
    await seenBelow(t, 'pg1')
    const { body } = await service.call<Cluster>('GET', '/v1/clusters/orders')
    t.equal(body.nodes.find(({ name }) => name === 'pg3')?.upstream, undefined, 'below whichever is the primary')
    t.equal((await follow('pg3', { upstream: 'pg1' })).result?.changedSteps, 0)
    t.equal((await put()).result?.changedSteps, 0, 'and so it is described')
  })

  await t.test('what was cut short is taken up', async t => {
    // As a worker leaves it that died once the slot was there, and as one that died before repmgr was told.
    await psql(lab, 'pg2', "SELECT pg_create_physical_replication_slot('repmgr_slot_3', true)")
    const half = await follow('pg3', { upstream: 'pg2' })
    t.equal(half.state, 'succeeded', JSON.stringify(half.error))
    await seenBelow(t, 'pg2')
    await psql(lab, 'pg1', "SELECT pg_create_physical_replication_slot('repmgr_slot_3', true)")
    const own = await psql(lab, 'pg3', 'SHOW primary_conninfo')
    const back = own.replace(String(pg2?.host), String(pg1?.host))
    await psql(lab, 'pg3', `ALTER SYSTEM SET primary_conninfo = '${back}'`)
    await psql(lab, 'pg3', 'SELECT pg_reload_conf()')
    const elsewhere = await eventually(async () => {
      const { body } = await service.call<ClusterStatus>('GET', '/v1/clusters/orders/status')
      return /is to stream from/.test(body.diagnosis.detail) && body.diagnosis.detail
    }, 30_000)
    t.match(elsewhere, /pg3 streams from pg1, and is to stream from pg2: POST .*pg3\/follow moves it there/)
    const rest = await follow('pg3', { upstream: 'pg1' })
    t.equal(rest.state, 'succeeded', JSON.stringify(rest.error))
    t.match(states(rest), { 'pg3/upstream': 'unchanged', 'pg3/register': 'changed', 'pg3/former-slots': 'changed' })
    await seenBelow(t, 'pg1')
  })

  await t.test('where nothing comes from the new upstream, it goes back', async t => {
    const hba = '/etc/postgresql/15/main/pg_hba.conf'
    const keepOut = `sed -i '1i host replication all ${pg3?.host}/32 reject' ${hba} && systemctl reload postgresql@15-main`
    await lab.exec('pg2', ['sudo', 'sh', '-c', keepOut])
    const failed = await follow('pg3', { upstream: 'pg2' })
    t.match(failed, { state: 'failed', error: { code: 'follow-failed', outcome: 'failed_clean' } })
    t.match(failed.error?.detail, /^pg3 did not stream from pg2 within 60 s, and was put back to/)
    await eventually(async () => (await slots()).join(';') === BELOW_PG1.join(';'), 30_000)
    await lab.exec('pg2', ['sudo', 'sh', '-c', `sed -i 1d ${hba} && systemctl reload postgresql@15-main`])
    t.equal((await follow('pg3', { upstream: 'pg1' })).state, 'succeeded')
    await seenBelow(t, 'pg1')
  })

  await t.test('an upstream that is down is refused', async t => {
    const stop = await service.call<Operation>('POST', '/v1/clusters/orders/nodes/pg2/stop', { body: {} })
    await ended(() => service, stop.body.id)
    const ask = () => service.call<Problem>('POST', `${path('pg3')}?dryRun=true`, { body: { upstream: 'pg2' } })
    t.match(await ask(), { status: 409, body: { detail: /pg3 is to stream from pg2, and pg2 is stopped/ } })
    const operation = await follow('pg3', { upstream: 'pg2' })
    t.match(operation, { state: 'failed', error: { code: 'upstream-away', outcome: 'not_started' } })
    await lab.powerOff('pg2')
    t.match(await ask(), { status: 409, body: { detail: /pg3 is to stream from pg2, and pg2 does not answer/ } })
    t.equal(await psql(lab, 'pg3', 'SELECT status FROM pg_stat_wal_receiver'), 'streaming', 'it streams as before')
  })

  t.equal(await psql(lab, 'pg3', STARTED), startedAt, 'its server was never restarted')
})
