import t from 'tap'
import type { Problem } from '../../src/api/problems.js'
import type { ClusterStatus } from '../../src/cluster/status.js'
import type { Operation, PlanPreview } from '../../src/operations/operation.js'
import { ended, psql, startLabTest } from '../fixtures/lab.js'
import { eventually } from '../fixtures/redis.js'

t.test('a primary, its standby, a delayed standby of that one, and a witness', { timeout: 900_000 }, async t => {
  const { lab, node, addHosts, start } = await startLabTest(t, 'topology', { postgres: true })
  const hosts = await addHosts(['pg1', 'pg2', 'pg3', 'eye'])
  const service = await start()
  const [pg1, pg2, pg3, eye] = hosts.map(node)
  const cluster = {
    name: 'orders',
    postgresVersion: 15,
    nodes: [
      pg1,
      { ...pg2, location: 'attic' },
      { ...pg3, upstream: 'pg2', applyDelayMs: 3000 },
      { ...eye, kind: 'witness' },
    ],
    bootstrap: true,
  }
  const status = async () => (await service.call<ClusterStatus>('GET', '/v1/clusters/orders/status')).body
  const repmgr = (host: string, ...words: string[]) =>
    lab.exec(
      host,
      ['sudo', '-u', 'postgres', '/usr/lib/postgresql/15/bin/repmgr', '-f', '/etc/repmgr.conf', ...words],
      {
        reject: false,
      },
    )
  const slotsOf = (host: string) =>
    psql(lab, host, "SELECT string_agg(slot_name || ' ' || active, ',' ORDER BY slot_name) FROM pg_replication_slots")

  await t.test('a shape that cannot be is refused, with the place', async t => {
    const nodes = [pg1, { ...pg2, upstream: 'pg3' }, { ...pg3, upstream: 'pg2' }]
    const { status: code, body } = await service.call<Problem>('POST', '/v1/clusters', { body: { ...cluster, nodes } })
    t.equal(code, 422)
    t.same(
      body.errors?.map(({ pointer }) => pointer),
      ['/nodes/1/upstream', '/nodes/2/upstream'],
    )
    t.match(body.detail, /pg2 streams from pg3 streams from pg2: a circle/)
  })

  await t.test('register the primary; clone, start, register standbys: cascading, delayed, and a witness', async t => {
    const { body } = await service.call<Operation>('POST', '/v1/clusters', { body: cluster })
    const operation = await ended(() => service, body.id, 400_000)
    t.equal(operation.state, 'succeeded', JSON.stringify(operation.error))
    t.match(operation.steps.find(({ id }) => id === 'cluster/proof')?.note, /read on pg2 after .*read on pg3 after/)
    const now = await status()
    t.match(now.diagnosis, { code: 'healthy' })
    t.same(
      now.nodes.map(({ name, role, state, upstream, slot, applyDelayMs }) => [
        ...[name, role, state, upstream, slot?.name, slot?.active, applyDelayMs],
      ]),
      [
        ['pg1', 'primary', 'running', null, undefined, undefined, null],
        ['pg2', 'standby', 'streaming', 'pg1', 'repmgr_slot_2', true, null],
        ['pg3', 'standby', 'streaming', 'pg2', 'repmgr_slot_3', true, 3000],
        ['eye', 'witness', 'running', 'pg1', undefined, undefined, null],
      ],
    )
    t.equal(await slotsOf('pg1'), 'repmgr_slot_2 true', 'on the primary: of its own standby')
    t.equal(await slotsOf('pg2'), 'repmgr_slot_3 true', 'on the standby: of the one below it')
    t.equal(await slotsOf('pg3'), '', 'the clone has brought no slots')
  })

  await t.test('repmgr.conf: what repmgr made of it on each node', async t => {
    const rows =
      "SELECT string_agg(concat_ws(' ', node_name, type, upstream_node_id, location, priority), ', ' ORDER BY node_id) FROM repmgr.nodes"
    const wanted = 'pg1 primary default 100, pg2 standby 1 attic 100, pg3 standby 2 default 0, eye witness 1 default 0'
    for (const { name } of hosts) {
      const seen = await eventually(async () => {
        const rowsHere = (await lab.exec(name, ['sudo', '-u', 'postgres', 'psql', '-XAtqc', rows, 'repmgr'])).stdout
        return rowsHere.trim() === wanted
      }, 30_000)
      t.ok(seen, `${name} knows all of them`)
      const shown = await repmgr(name, 'cluster', 'show')
      t.equal(shown.exitCode, 0, `repmgr cluster show is content on ${name}: ${shown.stdout}${shown.stderr}`)
      const file = await lab.exec(name, ['stat', '-c', '%U %a', '/etc/repmgr.conf'])
      t.equal(file.stdout.trim(), 'postgres 640')
    }
    const data = await repmgr('pg3', 'node', 'check', '--data-directory-config')
    t.match(data.stdout, /OK/)
    t.equal((await repmgr('pg3', 'node', 'check', '--upstream')).exitCode, 0, 'repmgr sees the stream from pg2')
  })

  await t.test('a delayed standby has what was written, and applies it later', async t => {
    await psql(lab, 'pg1', 'CREATE TABLE word AS SELECT clock_timestamp() AS written')
    const [received, applied] = (
      await eventually(async () => {
        const seen = await psql(
          lab,
          'pg3',
          "SELECT pg_last_wal_receive_lsn() > pg_last_wal_replay_lsn(), to_regclass('word') IS NOT NULL",
        )
        return seen.startsWith('t') && seen
      })
    ).split('|')
    t.same([received, applied], ['t', 'f'], 'it is there, and not to be read yet')
    const lateMs = await eventually(async () => {
      const text = 'SELECT (EXTRACT(epoch FROM clock_timestamp() - written) * 1000)::int FROM word'
      return psql(lab, 'pg3', text).catch(() => undefined)
    }, 30_000)
    t.ok(Number(lateMs) >= 3000, `read after ${lateMs} ms`)
  })

  await t.test('the same call again changes nothing', async t => {
    const { body } = await service.call<Operation>('POST', '/v1/clusters?wait=60', { body: cluster })
    t.match(body, { state: 'succeeded', result: { changedSteps: 0 } })
    const plan = await service.call<PlanPreview>('POST', '/v1/clusters?dryRun=true', { body: cluster })
    t.equal(plan.body.stepsThatWouldRun, 0)
  })

  await t.test('a node with an upstream is added, far behind on purpose, and the witness hears of it', async t => {
    const [host] = await addHosts(['pg4'])
    if (!host) throw new Error('no host')
    const pg4 = { ...node(host), upstream: 'pg2', applyDelayMs: 3_600_000, priority: 5 }
    const { body } = await service.call<Operation>('POST', '/v1/clusters/orders/nodes', { body: pg4 })
    const operation = await ended(() => service, body.id)
    t.equal(operation.state, 'succeeded', JSON.stringify(operation.error))
    t.match(operation.steps.find(({ id }) => id === 'eye/register')?.state, 'changed')
    t.match(
      operation.steps.find(({ id }) => id === 'cluster/proof')?.note,
      /received on pg4, held back there, after \d+ ms; each refuses writes/,
    )
    t.equal(await slotsOf('pg2'), 'repmgr_slot_3 true,repmgr_slot_5 true')
    const row = (await status()).nodes.find(({ name }) => name === 'pg4')
    t.match(row, { upstream: 'pg2', state: 'streaming', applyDelayMs: 3_600_000, problem: null })
    const known = await lab.exec('eye', [
      'sudo',
      '-u',
      'postgres',
      'psql',
      '-XAtqc',
      'SELECT count(*) FROM repmgr.nodes',
      'repmgr',
    ])
    t.equal(known.stdout.trim(), '5')
  })

  await t.test(
    'when the upstream is gone, the diagnosis says what hangs on it, and nothing is cloned from it',
    async t => {
      await lab.powerOff('pg2')
      const now = await eventually(async () => {
        const now = await status()
        return now.nodes.find(({ name }) => name === 'pg3')?.state === 'detached' && now
      }, 120_000)
      t.equal(now.diagnosis.code, 'standby_down')
      t.match(
        now.diagnosis.detail,
        /pg2 does not answer\. pg3 receives no WAL: pg2, which it streams from, does not answer/,
      )
      t.match(now.nodes.find(({ name }) => name === 'pg2')?.slot, { name: 'repmgr_slot_2', active: false })
      const body = { name: 'pg5', host: '192.0.2.99', ssh: { user: 'admin' }, upstream: 'pg9' }
      const unknown = await service.call<Problem>('POST', '/v1/clusters/orders/nodes?dryRun=true', { body })
      t.match(
        [unknown.status, unknown.body.errors?.[0]],
        [422, { pointer: '/upstream', detail: /there is no such node/ }],
      )
      const host = (await lab.hosts()).find(({ name }) => name === 'pg4')
      if (!host) throw new Error('no host')
      const again = { ...node(host), upstream: 'pg2', applyDelayMs: 3_600_000, priority: 5 }
      const refused = await service.call<Problem>('POST', '/v1/clusters/orders/nodes?dryRun=true', { body: again })
      t.equal(refused.status, 409)
      t.match(refused.body.detail, /pg4 is to stream from pg2, and pg2 does not answer/)
    },
  )
})
