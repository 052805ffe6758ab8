/** A cluster that was built by hand, as the tutorial has it, is adopted; then every operation works on it as it is. */
import t from 'tap'
import type { LabHost } from '../../lab/lab.js'
import type { Problem } from '../../src/api/problems.js'
import type { Adoption } from '../../src/cluster/adoption.js'
import type { Checks } from '../../src/cluster/checks.js'
import type { Drift } from '../../src/cluster/drift.js'
import type { ClusterStatus } from '../../src/cluster/status.js'
import type { Operation } from '../../src/operations/operation.js'
import { buildByHand, TUTORIAL_ARCHIVE_COMMAND } from '../fixtures/built-by-hand.js'
import { ended, psql, startLabTest } from '../fixtures/lab.js'
import { eventually } from '../fixtures/redis.js'

/** The bottom of the tutorial’s postgresql.conf, in the words of today: what is gone is left out, 78 GiB of kept WAL are less. */
const TUTORIAL_SETTINGS = [
  "listen_addresses = '*'",
  'max_connections = 200',
  'shared_buffers = 64MB',
  'work_mem = 2621kB',
  'maintenance_work_mem = 64MB',
  'default_statistics_target = 100',
  "shared_preload_libraries = 'repmgr'",
  'wal_level = replica',
  'wal_buffers = 16MB',
  'checkpoint_completion_target = 0.7',
  'archive_mode = on',
  `archive_command = '${TUTORIAL_ARCHIVE_COMMAND}'`,
  'max_wal_senders = 10',
  'wal_keep_size = 1GB',
  'wal_sender_timeout = 10s',
  'hot_standby = on',
]

t.test('a cluster built by hand as the tutorial has it: every operation works on it', { timeout: 890_000 }, async t => {
  const { lab, node, addHosts, start } = await startLabTest(t, 'byhand', { postgres: true })
  const hosts = (await addHosts(['pg1', 'pg2', 'pg3'])) as [LabHost, LabHost, LabHost]
  const [pg1, pg2, pg3] = hosts
  const service = await start()
  await buildByHand(lab, hosts, { settings: TUTORIAL_SETTINGS, application: '192.0.2.1' })

  const files = async () =>
    Promise.all(
      hosts.map(
        async ({ name }) =>
          (
            await lab.exec(name, [
              'sh',
              '-c',
              "find /etc /var/lib/postgresql /var/lib/understudy -maxdepth 4 -type f -not -name '*.log' -not -path '*/pg_*/*' -not -path '*/base/*' -not -path '*/global/*' -printf '%p %T@\\n' 2>/dev/null | sort; head -n 3 /var/lib/postgresql/15/main/postmaster.pid",
            ])
          ).stdout,
      ),
    )
  const adopt = () =>
    service.call<Adoption>('POST', '/v1/clusters/adopt', {
      body: {
        name: 'orders',
        node: { host: pg1.address, ssh: node(pg1).ssh },
        nodes: [pg2, pg3].map(({ name, address, ...host }) => ({
          name,
          host: address,
          ssh: node({ name, address, ...host }).ssh,
        })),
        repmgrPassword: 'password',
      },
    })
  const status = async () => (await service.call<ClusterStatus>('GET', '/v1/clusters/orders/status')).body
  const roles = async () => (await status()).nodes.map(({ name, role, state }) => `${name} ${role} ${state}`)
  const run = async (method: string, path: string, body?: object) => {
    const answer = await service.call<Operation & Problem>(method, `/v1/clusters/orders${path}`, body ? { body } : {})
    if (answer.status !== 202) throw new Error(`${method} ${path}: ${answer.status} ${JSON.stringify(answer.body)}`)
    const operation = await ended(() => service, answer.body.id, 300_000)
    if (operation.state !== 'succeeded') throw new Error(`${method} ${path}: ${JSON.stringify(operation)}`)
    return operation
  }

  await t.test('a standby that is behind on purpose is recorded as one, and proven as one', async t => {
    await psql(lab, 'pg3', "ALTER SYSTEM SET recovery_min_apply_delay = '1h'")
    await psql(lab, 'pg3', 'SELECT pg_reload_conf()')
    const { status: code, body } = await adopt()
    t.equal(code, 201, JSON.stringify(body))
    t.match(body.cluster.nodes[2], { name: 'pg3', applyDelayMs: 3_600_000 })
    t.notOk(body.cluster.nodes[2]?.priority, 'repmgr’s 100 was chosen by nobody')
    t.same(
      body.cluster.nodes.slice(0, 2).map(({ applyDelayMs }) => applyDelayMs),
      [undefined, undefined],
    )
    const proof = await run('POST', '/verify-replication')
    t.match(
      proof.steps.find(({ id }) => id === 'cluster/proof')?.note,
      /read on pg2 after \d+ ms, received on pg3, held back there/,
    )
    t.equal((await service.call('DELETE', '/v1/clusters/orders')).status, 200)
    await psql(lab, 'pg3', 'ALTER SYSTEM RESET recovery_min_apply_delay')
    await psql(lab, 'pg3', 'SELECT pg_reload_conf()')
  })

  await t.test('adopt: an archive that loses WAL is recorded, and said; nothing is changed', async t => {
    const before = await files()
    const { status: code, body } = await adopt()
    t.equal(code, 201, JSON.stringify(body))
    t.equal(body.ready, true, JSON.stringify(body.missing))
    t.same(body.cluster.archive, { mode: 'command', command: TUTORIAL_ARCHIVE_COMMAND, restoreCommand: '' })
    t.match(
      body.next,
      /archive loses WAL: .*ship_logs\.sh.*without %p.*PUT \/v1\/clusters\/orders\/archive replaces it/,
    )
    t.same(await files(), before)
  })

  await t.test('status and checks', async t => {
    t.same(await roles(), ['pg1 primary running', 'pg2 standby streaming', 'pg3 standby streaming'])
    const { diagnosis } = await status()
    t.match(diagnosis, { code: 'archive_failing', detail: /ship_logs\.sh.*PUT …\/archive replaces it/ })
    const { body: checks } = await service.call<Checks>('GET', '/v1/clusters/orders/checks')
    t.same(
      checks.items.filter(({ verdict }) => verdict === 'failed').map(({ kind, to }) => [kind, to]),
      [['archive', 'pg1']],
      JSON.stringify(checks.items.filter(({ verdict }) => verdict !== 'ok')),
    )
  })

  await t.test('verify-replication', async t => {
    const proof = await run('POST', '/verify-replication')
    t.match(proof.steps.find(({ id }) => id === 'cluster/proof')?.note, /read on pg2 .*read on pg3 .*refuses writes/)
  })

  await t.test('restart, stop and start of a standby', async t => {
    const startedAt = () => psql(lab, 'pg2', 'SELECT pg_postmaster_start_time()')
    const before = await startedAt()
    await run('POST', '/nodes/pg2/restart', {})
    t.not(await startedAt(), before)
    await run('POST', '/nodes/pg2/stop', {})
    t.match((await roles())[1], /^pg2 .*(stopped|down|unreachable)/)
    await run('POST', '/nodes/pg2/start', {})
    t.equal((await roles())[1], 'pg2 standby streaming')
  })

  await t.test('switchover, and back', async t => {
    await run('POST', '/switchover', { to: 'pg2' })
    t.same(await roles(), ['pg1 standby streaming', 'pg2 primary running', 'pg3 standby streaming'])
    await psql(lab, 'pg2', "UPDATE word SET word = 'changed'")
    await run('POST', '/switchover', { to: 'pg1' })
    t.same(await roles(), ['pg1 primary running', 'pg2 standby streaming', 'pg3 standby streaming'])
    for (const { name } of hosts)
      t.ok(await eventually(async () => (await psql(lab, name, 'SELECT word FROM word')) === 'changed'), name)
  })

  await t.test('rejoin of an old primary that was replaced by hand', async t => {
    await lab.exec('pg1', ['systemctl', 'stop', 'postgresql@15-main'], { timeoutMs: 120_000 })
    await psql(lab, 'pg2', 'SELECT pg_promote()')
    const { body: drift } = await service.call<Drift>('GET', '/v1/clusters/orders/drift')
    t.match(drift.items, [
      {
        kind: 'undecided',
        detail: /^pg1 is not a standby of .*: it was a primary itself, and pg2 is the primary now/,
        remedy: /./,
      },
    ])
    await run('POST', '/nodes/pg1/rejoin', { confirm: 'pg1' })
    await run('POST', '/nodes/pg3/rejoin', { confirm: 'pg3' })
    t.same(await roles(), ['pg1 standby streaming', 'pg2 primary running', 'pg3 standby streaming'])
  })

  await t.test('rotate-credentials', async t => {
    const verifier = () => psql(lab, 'pg2', "SELECT rolpassword FROM pg_authid WHERE rolname = 'repmgr'")
    const before = await verifier()
    await run('POST', '/rotate-credentials')
    t.not(await verifier(), before)
    await run('POST', '/verify-replication')
  })

  await t.test('a setting, and who may come in', async t => {
    await run('PATCH', '/settings', { settings: { work_mem: '24MB' } })
    for (const { name } of hosts) t.equal(await psql(lab, name, 'SHOW work_mem'), '24MB', name)
    await run('PUT', '/access', { access: [{ address: '192.0.2.99/32', users: ['app'] }] })
    const rule = "SELECT count(*) FROM pg_hba_file_rules WHERE address = '192.0.2.99' AND error IS NULL"
    for (const { name } of hosts) t.not(await psql(lab, name, rule), '0', name)
  })

  await t.test('the archive that loses WAL is replaced by one that does not', async t => {
    const changed = await run('PUT', '/archive', { mode: 'ship', restart: true })
    t.match(changed.steps.find(({ id }) => id === 'cluster/archive-proof')?.note, /read back/)
    t.match((await status()).archive, { mode: 'ship', failing: false })
  })

  await t.test('its description brings in place what the service manages, repmgr’s addresses too', async t => {
    const described = { name: 'orders', postgresVersion: 15, nodes: hosts.map(node), archive: { mode: 'ship' } }
    const { body: cluster } = await service.call<{ settings?: object }>('GET', '/v1/clusters/orders')
    await run('PUT', '', {
      ...described,
      access: [{ address: '192.0.2.99/32', users: ['app'] }],
      ...(cluster.settings ? { settings: cluster.settings } : {}),
    })
    t.equal((await status()).diagnosis.code, 'healthy', (await status()).diagnosis.detail)
  })

  await t.test('a standby follows another one, and the primary again', async t => {
    await run('POST', '/nodes/pg3/follow', { upstream: 'pg1' })
    t.equal((await status()).nodes.find(({ name }) => name === 'pg3')?.upstream, 'pg1')
    await run('POST', '/nodes/pg3/follow', { upstream: 'pg2' })
    t.equal((await status()).nodes.find(({ name }) => name === 'pg3')?.upstream, 'pg2')
  })

  await t.test('a standby is removed; then the cluster is destroyed', async t => {
    await run('DELETE', '/nodes/pg3')
    t.same(await roles(), ['pg1 standby streaming', 'pg2 primary running'])
    const rows = "SELECT string_agg(node_name, ',' ORDER BY node_id) FROM repmgr.nodes"
    const { stdout } = await lab.exec('pg2', ['sudo', '-u', 'postgres', 'psql', '-XAtqc', rows, 'repmgr'])
    t.equal(stdout.trim(), 'pg1,pg2')
    await run('DELETE', '?destroy=true&confirm=orders')
    t.equal((await service.call('GET', '/v1/clusters/orders')).status, 404)
    for (const name of ['pg1', 'pg2']) {
      const left = await lab.exec(name, ['test', '-e', '/var/lib/postgresql/15/main/PG_VERSION'], { reject: false })
      t.not(left.exitCode, 0, `the data of ${name} are gone`)
    }
    t.equal((await lab.exec('pg3', ['test', '-e', '/var/lib/postgresql/15/main/PG_VERSION'])).exitCode, 0)
  })
})
