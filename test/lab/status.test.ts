/** What status and readiness say of a real cluster while this or that is wrong with it. */
import t from 'tap'
import type { Readiness } from '../../src/cluster/readiness.js'
import type { ClusterStatus } from '../../src/cluster/status.js'
import type { Operation } from '../../src/operations/operation.js'
import { ended, psql, startLabTest } from '../fixtures/lab.js'
import { eventually } from '../fixtures/redis.js'

const POSTMASTER = '/usr/lib/postgresql/15/bin/postgres'

t.test('a cluster is looked at while something is wrong', { timeout: 600_000 }, async t => {
  const { lab, node, addHosts, start } = await startLabTest(t, 'look', { postgres: true })
  const hosts = await addHosts(['pg1', 'pg2', 'pg3'])
  const service = await start()
  const body = { name: 'orders', postgresVersion: 15, nodes: hosts.map(node), bootstrap: true }
  const { body: queued } = await service.call<Operation>('POST', '/v1/clusters', { body })
  const built = await ended(() => service, queued.id, 400_000)
  t.equal(built.state, 'succeeded', JSON.stringify(built.error))

  const look = async () => (await service.call<ClusterStatus>('GET', '/v1/clusters/orders/status')).body
  const rowOf = (status: ClusterStatus, name: string) => {
    const row = status.nodes.find(node => node.name === name)
    if (!row) throw new Error(`no row of ${name}`)
    return row
  }
  const until = (what: (status: ClusterStatus) => boolean) =>
    eventually(async () => {
      const status = await look()
      return what(status) && status
    }, 60_000)
  const healthy = () => until(({ diagnosis }) => diagnosis.code === 'healthy')
  const inRepmgr = (host: string, statement: string) =>
    lab.exec(host, ['sudo', '-u', 'postgres', 'psql', '-XAtqd', 'repmgr', '-c', statement])
  const readiness = async () => (await service.call<Readiness>('GET', '/v1/clusters/orders/readiness')).body

  await t.test('all is well, and everything is told', async t => {
    const status = await look()
    t.equal(status.diagnosis.code, 'healthy', status.diagnosis.detail)
    t.match(
      status.diagnosis.evidence.map(({ node, observed }) => `${node} ${observed}`),
      [/^pg1 accepts writes on timeline 1/, /^pg2 .*streaming, from pg1, and last heard/, /^pg3 .*streaming, from pg1/],
    )
    t.match(rowOf(status, 'pg1'), {
      slots: [
        { name: 'repmgr_slot_2', node: 'pg2', usedBy: 'pg2', orphan: false },
        { name: 'repmgr_slot_3', node: 'pg3', usedBy: 'pg3', orphan: false },
      ],
      metadata: {
        rows: [{ name: 'pg1', type: 'primary' }, { upstream: 'pg1' }, { upstream: 'pg1' }],
        disagreements: [],
      },
    })
    const standby = rowOf(status, 'pg2')
    t.match(standby, {
      receiver: { status: 'streaming', upstreamHost: hosts[0]?.address, slot: 'repmgr_slot_2' },
      conflicts: { total: 0 },
      slots: [],
      lagMs: 0,
    })
    t.match(standby.replayedLsn, /^[0-9A-F]+\/[0-9A-F]+$/)
    t.same(rowOf(status, 'pg3').metadata?.rows, rowOf(status, 'pg1').metadata?.rows)
  })

  await t.test('who would take over, why not each of the others', async t => {
    const well = await readiness()
    t.match(well, { ready: true, primary: 'pg1', successor: 'pg2', fence: { method: 'ssh' }, obstacles: [] })
    t.match(well.candidates, [
      { node: 'pg2', fit: true, rank: 1, why: /^It would take over: \d+ bytes behind, priority 100\.$/ },
      { node: 'pg3', fit: true, rank: 2 },
    ])
    await psql(lab, 'pg2', 'SELECT pg_wal_replay_pause()')
    const paused = await readiness()
    await psql(lab, 'pg2', 'SELECT pg_wal_replay_resume()')
    t.match(paused, { ready: false, successor: 'pg3' })
    t.match(
      paused.candidates.find(({ node }) => node === 'pg2'),
      { fit: false, rank: null, why: 'It does not replay: it is paused.' },
    )
    t.match(paused.obstacles, [{ node: 'pg2', remedy: /pg_wal_replay_resume/ }])
  })

  await t.test('a slot that keeps WAL for nobody', async t => {
    await psql(lab, 'pg1', "SELECT pg_create_physical_replication_slot('repmgr_slot_9', true)")
    const status = await look()
    t.equal(status.diagnosis.code, 'healthy', 'it does no harm yet')
    t.match(rowOf(status, 'pg1'), {
      slots: [{}, {}, { name: 'repmgr_slot_9', node: null, orphan: true, walStatus: 'reserved' }],
      problem: /^WAL is kept for nobody by repmgr_slot_9 \(\d+ bytes\)/,
    })
    await psql(lab, 'pg1', "SELECT pg_drop_replication_slot('repmgr_slot_9')")
    t.equal(rowOf(await look(), 'pg1').problem, null)
  })

  await t.test('a wrong row of repmgr.nodes, everywhere and then on one server alone', async t => {
    await inRepmgr('pg1', 'UPDATE repmgr.nodes SET priority = 7 WHERE node_id = 2')
    const everywhere = await until(status => rowOf(status, 'pg3').metadata?.disagreements.length === 1)
    t.match(everywhere.diagnosis, {
      code: 'metadata_drift',
      detail: /^repmgr\.nodes on pg1, pg2, pg3 has pg2 with priority 7, and it is to have 100\./,
    })
    await psql(lab, 'pg3', 'SELECT pg_wal_replay_pause()')
    await inRepmgr('pg1', 'UPDATE repmgr.nodes SET priority = 100 WHERE node_id = 2')
    const alone = await until(({ diagnosis }) => /^repmgr\.nodes on pg3 has pg2 with priority 7/.test(diagnosis.detail))
    t.equal(alone.diagnosis.code, 'metadata_drift')
    t.match(
      alone.nodes.map(({ metadata }) => metadata?.disagreements.length),
      [0, 0, 1],
    )
    t.match(alone.diagnosis.evidence.at(-1), { node: 'pg3', observed: /^repmgr\.nodes has pg2 with priority 7/ })
    t.ok((rowOf(alone, 'pg3').lagMs ?? 0) > 5000, 'so long has it not replayed')
    await psql(lab, 'pg3', 'SELECT pg_wal_replay_resume()')
    await healthy()
  })

  await t.test('a query that a standby cancels is counted', async t => {
    await psql(lab, 'pg1', 'CREATE TABLE doomed (at int)')
    await eventually(async () => (await psql(lab, 'pg2', "SELECT to_regclass('doomed') IS NOT NULL")) === 't')
    await psql(lab, 'pg2', 'ALTER SYSTEM SET max_standby_streaming_delay = 0')
    await psql(lab, 'pg2', 'SELECT pg_reload_conf()')
    const reading = t.rejects(
      psql(lab, 'pg2', 'SELECT pg_sleep(100) FROM (SELECT count(*) FROM doomed) AS empty'),
      /conflict with recovery/,
    )
    await eventually(
      async () =>
        (await psql(lab, 'pg2', "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")) === '1',
    )
    await psql(lab, 'pg1', 'DROP TABLE doomed')
    await reading
    const status = await until(status => (rowOf(status, 'pg2').conflicts?.total ?? 0) > 0)
    t.match(rowOf(status, 'pg2').conflicts, { total: 1, lock: 1 })
    t.match(rowOf(status, 'pg3').conflicts, { total: 0 })
    await psql(lab, 'pg2', 'ALTER SYSTEM RESET max_standby_streaming_delay')
    await psql(lab, 'pg2', 'SELECT pg_reload_conf()')
  })

  await t.test('a server that hangs and a host that nobody reaches cost the answer their own rows', async t => {
    await lab.signal('pg2', POSTMASTER, 'SIGSTOP')
    await lab.linkDown('pg3')
    const begun = performance.now()
    const status = await look()
    const tookMs = performance.now() - begun
    t.ok(tookMs < 3500, `${tookMs} ms`)
    t.equal(status.diagnosis.code, 'standby_down')
    t.match(rowOf(status, 'pg1'), { role: 'primary', state: 'running' })
    for (const name of ['pg2', 'pg3']) {
      t.match(rowOf(status, name), { state: 'unreachable', failure: { reason: 'timed_out' } })
      t.match(
        status.diagnosis.evidence.find(({ node }) => node === name),
        { reason: 'timed_out' },
      )
    }
    const text = await service.call<string>('GET', '/v1/clusters/orders/status', { headers: { accept: 'text/plain' } })
    t.match(text.body, /^orders: standby_down\. pg2 does not answer\. pg3 does not answer\./)
    t.match(text.body, /^2 +pg2 +unknown +unreachable/m)
    for (const line of text.body.split('\n')) t.ok(line.length <= 100, line)
    await lab.signal('pg2', POSTMASTER, 'SIGCONT')
    await lab.linkUp('pg3')
    await healthy()
  })

  await t.test('the primary is stopped: who it was, and what can be told of it', async t => {
    await lab.exec('pg1', ['systemctl', 'stop', 'postgresql@15-main'])
    const status = await until(({ diagnosis }) => diagnosis.code === 'primary_unreachable')
    t.match(status.diagnosis.detail, /^pg1, the primary, refuses connections: nothing listens on its port/)
    t.match(status.diagnosis.evidence[0], { node: 'pg1', reason: 'refused' })
    t.match((await readiness()).obstacles[0]?.detail, /^pg1, the primary, refuses connections/)
    await lab.exec('pg1', ['systemctl', 'start', 'postgresql@15-main'])
    await healthy()
  })
})
