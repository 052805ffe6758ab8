import t from 'tap'
import type { Lab, LabHost } from '../../lab/lab.js'
import type { Problem } from '../../src/api/problems.js'
import type { Adoption } from '../../src/cluster/adoption.js'
import type { Drift } from '../../src/cluster/drift.js'
import type { ClusterStatus } from '../../src/cluster/status.js'
import type { Operation, PlanPreview } from '../../src/operations/operation.js'
import type { AuditEvent } from '../../src/store/event.js'
import { ended, psql, startLabTest } from '../fixtures/lab.js'
import { eventually } from '../fixtures/redis.js'

const ARCHIVE = { mode: 'command', command: 'cp %p /var/lib/postgresql/keep/%f', restoreCommand: '' }
const SETTINGS = { shared_preload_libraries: 'repmgr,pg_stat_statements', max_connections: '150' }
const CONF = '/var/lib/postgresql/repmgr/repmgr.conf'

/** As the tutorial has it, with its trust lines, its place for repmgr.conf, and node names in place of addresses. */
async function buildByHand(lab: Lab, [first, second]: readonly [LabHost, LabHost]) {
  const script = (host: LabHost, text: string) => lab.exec(host.name, ['sh', '-euc', text])
  const names = `${first.address} ${first.name}\n${second.address} ${second.name}`
  const conf = (host: LabHost, id: number) =>
    `install -d -o postgres -g postgres /var/lib/postgresql/repmgr
cat >${CONF} <<'END'
node_id=${id}
node_name=${host.name}
conninfo='host=${host.name} user=repmgr dbname=repmgr'
data_directory='/var/lib/postgresql/15/main'
config_directory='/etc/postgresql/15/main'
pg_bindir='/usr/lib/postgresql/15/bin'
END
chown postgres: ${CONF}`
  const repmgr = (words: string) => `sudo -u postgres /usr/lib/postgresql/15/bin/repmgr -f ${CONF} ${words}`
  for (const host of [first, second]) {
    await script(
      host,
      `printf '%s\\n' '${names}' >>/etc/hosts
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update; apt-get -qq -y install --no-install-recommends postgresql-15 postgresql-15-repmgr >/dev/null
cat >>/etc/postgresql/15/main/postgresql.conf <<'END'
listen_addresses = '*'
shared_preload_libraries = 'repmgr,pg_stat_statements'
max_connections = 150
archive_mode = on
archive_command = 'cp %p /var/lib/postgresql/keep/%f'
wal_log_hints = on
END
cat >>/etc/postgresql/15/main/pg_hba.conf <<'END'
host repmgr repmgr ${first.address}/32 trust
host replication repmgr ${first.address}/32 trust
host repmgr repmgr ${second.address}/32 trust
host replication repmgr ${second.address}/32 trust
END
install -d -o postgres -g postgres /var/lib/postgresql/keep
systemctl restart postgresql@15-main`,
    )
  }
  await script(
    first,
    `sudo -u postgres psql -qc "CREATE ROLE repmgr SUPERUSER LOGIN PASSWORD 'password'" -c 'CREATE DATABASE repmgr OWNER repmgr' -c "CREATE TABLE word AS SELECT 'kept' AS word"
${conf(first, 1)}
${repmgr('primary register')}`,
  )
  await script(
    second,
    `systemctl stop postgresql@15-main
rm -rf /var/lib/postgresql/15/main
${conf(second, 2)}
${repmgr(`-h ${first.name} -U repmgr -d repmgr standby clone --fast-checkpoint`)}
systemctl start postgresql@15-main
${repmgr('standby register --wait-sync=60')}`,
  )
}

t.test(
  'a cluster that was built by hand is adopted, described as a whole, and kept as described',
  {
    timeout: 600_000,
  },
  async t => {
    const { lab, node, addHosts, start } = await startLabTest(t, 'desired')
    const [pg1, pg2, pg3] = (await addHosts(['pg1', 'pg2', 'pg3'])) as [LabHost, LabHost, LabHost]
    const service = await start()
    await buildByHand(lab, [pg1, pg2])

    const traces = async () =>
      (
        await Promise.all(
          [pg1, pg2].map(({ name }) =>
            lab.exec(name, [
              'sh',
              '-c',
              "find /etc /var/lib/postgresql/repmgr /var/lib/understudy /var/lib/postgresql -maxdepth 4 -type f -not -name '*.log' -not -path '*/pg_*/*' -not -path '*/base/*' -not -path '*/global/*' -not -path '*/keep/*' -printf '%p %T@\\n' 2>/dev/null | sort; head -n 3 /var/lib/postgresql/15/main/postmaster.pid",
            ]),
          ),
        )
      ).map(({ stdout }) => stdout)

    await t.test('adopt: asks for what is missing, and changes nothing', async t => {
      const before = await traces()
      const asked = { name: 'orders', node: { host: pg2.address, ssh: node(pg2).ssh } }
      const lost = await service.call<Problem>('POST', '/v1/clusters/adopt', { body: asked })
      t.equal(lost.status, 502, 'repmgr.nodes has a name that only the hosts know')
      t.match(lost.body.detail, /pg1: .*could not be resolved.*"host"/)
      const first = await service.call<Problem>('POST', '/v1/clusters/adopt', {
        body: { ...asked, nodes: [{ name: 'pg1', host: pg1.address }] },
      })
      t.equal(first.status, 422)
      t.equal(first.body.type, '/problems/host-key-unconfirmed')
      t.ok(first.body.detail.includes(pg1.hostKey), 'it shows the key of the node that repmgr.nodes names')
      t.equal(first.body.errors?.[0]?.pointer, '/nodes/0/ssh/hostKey')

      const logins = [{ name: 'pg1', host: pg1.address, ssh: node(pg1).ssh }]
      const wrong = await service.call<Problem>('POST', '/v1/clusters/adopt', {
        body: { ...asked, nodes: [...logins, { name: 'pg9' }] },
      })
      t.equal(wrong.status, 422)
      t.match(wrong.body.detail, /repmgr\.nodes has no node pg9/)

      const adopt = (more: object = {}) =>
        service.call<Adoption>('POST', '/v1/clusters/adopt?reference=CHG-4711', {
          body: { ...asked, nodes: logins, repmgrPassword: 'password', ...more },
          headers: { 'idempotency-key': 'once' },
        })
      const { status, body } = await adopt()
      t.equal(status, 201, JSON.stringify(body))
      t.same(
        body.cluster.nodes.map(({ name, nodeId, host }) => [name, nodeId, host]),
        [
          ['pg1', 1, pg1.address],
          ['pg2', 2, pg2.address],
        ],
        'the primary comes first',
      )
      t.equal(body.ready, false)
      t.same(body.cluster.archive, ARCHIVE)
      t.same(body.cluster.settings, SETTINGS)
      t.match(body.missing.join('\n'), /pg1: .*no pg_hba\.conf entry/)
      t.notMatch(JSON.stringify(body), /"password"/)
      const repeated = await adopt()
      t.match([repeated.status, repeated.headers['idempotent-replayed']], [201, 'true'])
      t.same(repeated.body, body, 'answered as the first time')
      t.equal((await adopt({ port: 5432 })).status, 422, 'another request with this key')
      const events = await service.call<{ items: AuditEvent[] }>('GET', '/v1/events?cluster=orders')
      t.match(events.body.items, [{ summary: 'orders was adopted (CHG-4711).', who: { name: 'admin' } }])
      t.same(await traces(), before, 'no file was written and no server started again')
      const again = await service.call<Problem>('POST', '/v1/clusters/adopt', { body: asked })
      t.equal(again.status, 409)
    })

    const cluster = { name: 'orders', postgresVersion: 15, nodes: [pg1, pg2].map(node), archive: ARCHIVE }
    const drift = async () => (await service.call<Drift>('GET', '/v1/clusters/orders/drift')).body
    const put = async (body: object) => {
      const answer = await service.call<Operation>('PUT', '/v1/clusters/orders', { body })
      t.equal(answer.status, 202, JSON.stringify(answer.body))
      const operation = await ended(() => service, answer.body.id)
      t.equal(operation.state, 'succeeded', JSON.stringify(operation.error))
      return operation
    }

    await t.test('drift shows what would be managed; PUT brings it into place and loses nothing', async t => {
      const found = await drift()
      t.equal(found.inSync, false)
      t.ok(found.items.some(({ step }) => step === 'pg1/take-over'))
      const { archive: _archive, ...forgetful } = cluster
      const forgotten = await service.call<Problem>('PUT', '/v1/clusters/orders', { body: forgetful })
      t.equal(forgotten.status, 409, JSON.stringify(forgotten.body))
      t.same(
        forgotten.body.errors?.map(({ pointer }) => pointer),
        ['/archive'],
      )
      const dry = await service.call<PlanPreview>('PUT', '/v1/clusters/orders?dryRun=true', { body: cluster })
      t.equal(dry.status, 200, JSON.stringify(dry.body))
      t.same(dry.body.differences, [])
      t.notOk(
        dry.body.steps.some(({ destroys, verdict }) => destroys !== undefined && verdict === 'would_run'),
        'nothing would be destroyed',
      )
      await put(cluster)
      const { body: status } = await service.call<ClusterStatus>('GET', '/v1/clusters/orders/status')
      t.equal(status.diagnosis.code, 'healthy', JSON.stringify(status.diagnosis))
      for (const { name } of [pg1, pg2]) {
        t.equal(await psql(lab, name, 'SELECT word FROM word'), 'kept')
        const written = "SELECT string_agg(name || '=' || setting, ';' ORDER BY name, seqno) FROM pg_file_settings"
        const ours = `${written} WHERE sourcefile LIKE '%understudy.conf' AND name IN ('archive_command', 'max_connections', 'shared_preload_libraries')`
        t.equal(
          await psql(lab, name, ours),
          `archive_command=${ARCHIVE.command};max_connections=150;shared_preload_libraries=${SETTINGS.shared_preload_libraries}`,
        )
        t.equal(await psql(lab, name, 'SHOW archive_command'), ARCHIVE.command)
        t.equal(await psql(lab, name, 'SHOW max_connections'), '150')
      }
      t.match(
        (await lab.exec('pg1', ['sudo', '-u', 'postgres', 'repmgr', 'cluster', 'show'])).stdout,
        /pg2 *\| standby \| +running/,
      )
    })

    await t.test('applied twice, the second time changes nothing', async t => {
      const before = await traces()
      t.equal((await put(cluster)).result?.changedSteps, 0)
      t.same(await traces(), before)
      const found = await drift()
      t.same(found.items, [])
      t.equal(found.inSync, true)
    })

    await t.test('what somebody changes by hand is drift, and PUT puts it right', async t => {
      await lab.exec('pg2', ['sed', '-i', 's/scram-sha-256/md5/', '/etc/postgresql/15/main/pg_hba.conf'])
      await lab.exec('pg1', ['rm', '/etc/repmgr.conf'])
      await lab.exec('pg1', [
        'sudo',
        '-u',
        'postgres',
        'psql',
        '-qd',
        'repmgr',
        '-c',
        'DELETE FROM repmgr.nodes WHERE node_id = 2',
        '-c',
        "INSERT INTO repmgr.nodes (node_id, node_name, type, conninfo, repluser, active, config_file) VALUES (9, 'old', 'standby', 'host=192.0.2.99', 'repmgr', false, '/none')",
      ])
      const found = await drift()
      t.same(
        found.items.map(({ kind, step }) => [kind, step]),
        [
          ['changed', 'pg1/repmgr-conf'],
          ['changed', 'pg2/access'],
          ['changed', 'pg2/register'],
          ['metadata', undefined],
        ],
        JSON.stringify(found.items),
      )
      t.match(found.items.at(-1)?.remedy, /unregister --node-id=9/)
      const text = await service.call<string>('GET', '/v1/clusters/orders/drift', { headers: { accept: 'text/plain' } })
      t.match(text.body, /pg2 +changed +"let the nodes/)
      const operation = await put(cluster)
      t.same(
        operation.steps.filter(({ state }) => state === 'changed').map(({ id }) => id),
        ['pg1/repmgr-conf', 'pg2/access', 'pg2/register'],
      )
      await lab.exec('pg1', [
        'sudo',
        '-u',
        'postgres',
        'psql',
        '-qd',
        'repmgr',
        '-c',
        'DELETE FROM repmgr.nodes WHERE node_id = 9',
      ])
      t.equal((await eventually(async () => ((await drift()).inSync ? true : undefined))) as boolean, true)
    })

    await t.test('a node more in the description is a node more in the cluster', async t => {
      const operation = await put({ ...cluster, nodes: [pg1, pg2, pg3].map(node) })
      t.same(operation.differences, [{ pointer: '/nodes/2', detail: 'is not there: the cluster has no node pg3' }])
      const { body: status } = await service.call<ClusterStatus>('GET', '/v1/clusters/orders/status')
      t.same(
        status.nodes.map(({ name, state }) => [name, state]),
        [
          ['pg1', 'running'],
          ['pg2', 'streaming'],
          ['pg3', 'streaming'],
        ],
      )
      const left = await service.call<Problem>('PUT', '/v1/clusters/orders', { body: cluster })
      t.equal(left.status, 409)
      t.equal(left.body.type, '/problems/unchangeable')
    })

    await t.test('a host that is away is an item of the drift, and the others are looked at', async t => {
      await lab.linkDown('pg3')
      const found = await drift()
      t.same(
        found.items.map(({ kind, node: name }) => [kind, name]),
        [['unreachable', 'pg3']],
      )
      t.ok(found.checkedSteps > 10)
    })
  },
)
