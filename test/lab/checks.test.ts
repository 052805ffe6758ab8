import t from 'tap'
import type { Lab } from '../../lab/lab.js'
import type { Checks } from '../../src/cluster/checks.js'
import type { ClusterStatus } from '../../src/cluster/status.js'
import type { Operation } from '../../src/operations/operation.js'
import { ended, psql, startLabTest } from '../fixtures/lab.js'
import { eventually } from '../fixtures/redis.js'

const password = async (lab: Lab, host: string) =>
  /^192[^\n]*:([^:\n]+)$/m.exec((await lab.exec(host, ['cat', '/var/lib/postgresql/.pgpass'])).stdout)?.[1]

/** Installs a package once more, as it is but for its version. The one that it was is kept. */
const renumber = (name: string, version: string) => `
mkdir -p /root/original && cd /root/original && chown _apt . && apt-get -qq download ${name}
dpkg-deb -R ${name}_*.deb /root/other
sed -i 's/^Version: .*/Version: ${version}/' /root/other/DEBIAN/control
dpkg-deb -Znone -b /root/other /root/other.deb >/dev/null
dpkg -i /root/other.deb`

t.test(
  'every edge is tried, replication is proven, the password is changed unnoticed',
  { timeout: 600_000 },
  async t => {
    const { lab, node, addHosts, start } = await startLabTest(t, 'checks', { postgres: true })
    const hosts = [...(await addHosts(['pg1'])), ...(await addHosts(['pg2'], { postgresDiskBytes: 600 * 1024 * 1024 }))]
    // Its packages, and with them the user whose home this is, were there before the disk.
    await lab.exec('pg2', ['chown', 'postgres:postgres', '/var/lib/postgresql'])
    const service = await start()
    const cluster = {
      name: 'orders',
      postgresVersion: 15,
      nodes: hosts.map(node),
      archive: { mode: 'ship' },
      sshBetweenNodes: true,
    }
    const checks = async () => (await service.call<Checks>('GET', '/v1/clusters/orders/checks')).body
    const bad = ({ items }: Checks) => items.filter(({ verdict }) => verdict !== 'ok')
    const run = async (path: string, body?: object) => {
      const { status, body: operation } = await service.call<Operation>('POST', path, body ? { body } : {})
      t.equal(status, 202, JSON.stringify(operation))
      return ended(() => service, operation.id)
    }

    await t.test('checks of bare hosts: they can be reached, and nobody listens yet', async t => {
      await service.call('POST', '/v1/clusters', { body: cluster })
      const found = await checks()
      t.same(
        bad(found).filter(({ verdict }) => verdict === 'failed'),
        [],
        JSON.stringify(bad(found)),
      )
      t.ok(
        found.items.some(
          ({ kind, from, to, detail }) => kind === 'port' && from === 'pg1' && to === 'pg2' && /yet/.test(detail),
        ),
      )
    })

    await t.test('checks of a cluster: every edge between the nodes is open', async t => {
      const built = await run('/v1/clusters', { ...cluster, bootstrap: true })
      t.equal(built.state, 'succeeded', JSON.stringify(built.error))
      t.match(built.steps[0], { id: 'cluster/checks', state: 'verified' })
      const found = await checks()
      t.same(
        bad(found).filter(({ verdict }) => verdict === 'failed'),
        [],
        JSON.stringify(bad(found)),
      )
      for (const [from, to] of [
        ['pg1', 'pg2'],
        ['pg2', 'pg1'],
      ])
        for (const kind of ['name_resolution', 'port', 'ssh', 'postgres_client', 'postgres_replication'])
          t.ok(
            found.items.some(
              item => item.kind === kind && item.from === from && item.to === to && item.verdict === 'ok',
            ),
            `${kind} from ${from} to ${to}`,
          )
      for (const { name } of hosts)
        for (const [kind, detail] of [
          ['server', /^PostgreSQL on .* runs as a (primary|standby)$/],
          ['postgres_client', /^this service is let in by/],
        ] as const)
          t.ok(
            found.items.some(
              item => item.kind === kind && item.from === undefined && item.to === name && detail.test(item.detail),
            ),
            `${kind} to ${name}`,
          )
      t.match(
        found.items.filter(({ kind }) => kind === 'archive'),
        [{ to: 'pg1', verdict: 'ok', detail: /^the archive took 0000/ }],
      )
      const text = await service.call<string>('GET', '/v1/clusters/orders/checks', {
        headers: { accept: 'text/plain' },
      })
      t.match(text.body, /ok +postgres_replication +pg1 +pg2 +pg1 is let in as a replication client/)
    })

    await t.test('test replication: a role, a table and a row on every standby, which refuses writes', async t => {
      const operation = await run('/v1/clusters/orders/verify-replication')
      t.equal(operation.state, 'succeeded', JSON.stringify(operation.error))
      t.match(
        operation.steps[0]?.note,
        /^read on pg2 after \d+ ms; each refuses writes: cannot execute CREATE TABLE in a read-only transaction \(25006\)$/,
      )
      t.equal(
        await psql(lab, 'pg1', "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'understudy%'"),
        '0',
        'and is gone',
      )
    })

    await t.test('repmgr role and database: the password is changed, and no stream notices', async t => {
      const before = await password(lab, 'pg1')
      const stream = "SELECT pid || ' ' || backend_start FROM pg_stat_replication"
      const client = "SELECT string_agg(pid::text, ' ') FROM pg_stat_activity WHERE backend_type = 'walreceiver'"
      const [streams, receivers] = [await psql(lab, 'pg1', stream), await psql(lab, 'pg2', client)]
      const operation = await run('/v1/clusters/orders/rotate-credentials')
      t.equal(operation.state, 'succeeded', JSON.stringify(operation.error))
      t.equal(await psql(lab, 'pg1', stream), streams, 'the stream is the same')
      t.equal(await psql(lab, 'pg2', client), receivers)
      const after = await password(lab, 'pg1')
      t.ok(after !== undefined && after !== before && after.length >= 32)
      t.equal(await password(lab, 'pg2'), after)
      t.notOk(JSON.stringify(operation).includes(String(after)), 'the operation does not say it')
      const log = await service.call<string>('GET', `/v1/operations/${operation.id}/log`)
      t.notOk(log.body.includes(String(after)), 'nor does its log')
      const { body } = await service.call<ClusterStatus>('GET', '/v1/clusters/orders/status')
      t.equal(body.diagnosis.code, 'healthy', 'the service knows the new one')
      const old = await lab.exec(
        'pg2',
        [
          'env',
          `PGPASSWORD=${before}`,
          'psql',
          '-h',
          hosts[0]?.address ?? '',
          '-U',
          'repmgr',
          '-d',
          'repmgr',
          '-wc',
          'SELECT 1',
        ],
        { reject: false },
      )
      t.match(old.stderr, /password authentication failed/, 'the old one is not let in')
      await psql(
        lab,
        'pg2',
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'walreceiver'",
      )
      const again = await run('/v1/clusters/orders/verify-replication')
      t.equal(again.state, 'succeeded', 'a stream that is opened again comes in with the new one')
    })

    await t.test('a primary that is down is said to be, by its host, by its neighbour and from here', async t => {
      await lab.exec('pg1', ['systemctl', 'stop', 'postgresql@15-main.service'])
      const found = await checks()
      t.equal(found.verdict, 'failed')
      const failed = bad(found).filter(({ verdict }) => verdict === 'failed')
      for (const [kind, from, to, detail] of [
        ['server', undefined, 'pg1', /^PostgreSQL on pg1 does not run$/],
        ['server', undefined, undefined, /^no server that answers accepts writes$/],
        ['port', 'pg2', 'pg1', /^nobody listens on the PostgreSQL port$/],
        ['postgres_client', undefined, 'pg1', /refused/],
      ] as const)
        t.ok(
          failed.some(item => item.kind === kind && item.from === from && item.to === to && detail.test(item.detail)),
          `${kind} from ${from} to ${to}: ${JSON.stringify(failed)}`,
        )
      for (const { remedy } of failed) t.type(remedy, 'string')
      t.match(failed.find(({ kind, to }) => kind === 'server' && to === 'pg1')?.remedy, /nodes\/pg1\/start starts it/)
      await lab.exec('pg1', ['systemctl', 'start', 'postgresql@15-main.service'])
      await eventually(async () => (await checks()).verdict !== 'failed', 60_000)
    })

    await t.test(
      'a node that could not hold the data, or not work with them, is refused before its copy goes',
      async t => {
        const copy = async () =>
          (await lab.exec('pg2', ['stat', '-c', '%i %y', '/var/lib/postgresql/15/main/PG_VERSION'])).stdout
        const before = await copy()
        const rebuild = (more: object) =>
          run('/v1/clusters/orders/nodes/pg2/rebuild', { method: 'clone', confirm: 'pg2', ...more })
        await lab.fill('pg2', '/var/lib/postgresql', 70 * 1024 * 1024)
        const full = await rebuild({ keepOldData: true })
        t.match(full.error, {
          code: 'disk-full',
          outcome: 'not_started',
          step: 'cluster/checks',
          detail: /a clone needs/,
        })
        await lab.unfill('pg2', '/var/lib/postgresql')

        await lab.exec('pg2', ['sh', '-euc', renumber('postgresql-15-repmgr', '5.9.0-1')])
        const other = await rebuild({})
        t.match(other.error, {
          code: 'checks-failed',
          outcome: 'not_started',
          step: 'cluster/checks',
          detail: /postgresql-15-repmgr differs: .*pg2 5\.9\.0-1/,
        })
        await lab.exec('pg2', ['sh', '-euc', 'dpkg -i /root/original/*.deb'])
        t.equal(await copy(), before, 'its copy is as it was')
        t.equal(await psql(lab, 'pg1', 'SELECT state FROM pg_stat_replication'), 'streaming')
      },
    )

    await t.test('a wrong pass file and a closed port are found, each with its remedy', async t => {
      await lab.exec('pg2', ['sed', '-i', 's/:repmgr:[^:]*$/:repmgr:wrong/', '/var/lib/postgresql/.pgpass'])
      await lab.exec('pg1', ['systemctl', 'stop', 'ssh.socket', 'ssh.service'], { reject: false })
      const found = bad(await checks())
      t.ok(
        found.some(
          ({ kind, from, detail }) =>
            kind === 'postgres_client' && from === 'pg2' && /password authentication failed/.test(detail),
        ),
        JSON.stringify(found),
      )
      t.match(
        found.find(({ kind, from, to }) => kind === 'ssh' && from === 'pg2' && to === 'pg1'),
        { verdict: 'failed', detail: 'the SSH port is refused', remedy: /Start sshd on pg1/ },
      )
      t.notOk(
        found.some(({ kind, from, to }) => kind === 'ssh' && from === 'pg1' && to === 'pg2'),
        'the other way is open',
      )
      for (const { verdict, remedy } of found) if (verdict === 'failed') t.type(remedy, 'string')
      await lab.block('pg1', { from: 'pg2', port: 5432 })
      t.match(
        bad(await checks()).find(({ kind, from, to }) => kind === 'port' && from === 'pg2' && to === 'pg1'),
        { verdict: 'failed', detail: /does not answer within 3 s/, remedy: /firewall between pg2 and pg1/ },
      )
    })
  },
)
