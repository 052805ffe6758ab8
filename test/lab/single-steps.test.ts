/** The tutorial by hand, one call a step; and taking apart again what was built. */
import t from 'tap'
import type { Problem } from '../../src/api/problems.js'
import type { Forgotten } from '../../src/cluster/forgotten.js'
import type { Cluster } from '../../src/cluster/model.js'
import type { NodeDetail } from '../../src/cluster/node-detail.js'
import type { ClusterStatus } from '../../src/cluster/status.js'
import type { Operation, PlanPreview } from '../../src/operations/operation.js'
import { ended, psql, startLabTest } from '../fixtures/lab.js'
import { eventually } from '../fixtures/redis.js'

t.test('a cluster step by step, and taken apart again', { timeout: 900_000 }, async t => {
  const { lab, node, addHosts, start } = await startLabTest(t, 'steps')
  const hosts = await addHosts(['pg1', 'pg2'])
  const [, pg2] = hosts
  if (!pg2) throw new Error('no host')
  const service = await start()
  const description = { name: 'orders', postgresVersion: 15, nodes: hosts.map(node) }
  const described = await service.call<Cluster>('POST', '/v1/clusters', { body: description })
  t.equal(described.status, 201)

  const path = (step: string) => `/v1/clusters/orders/nodes/${step}`
  /** Done, to its end: how many steps changed something. */
  const done = async (method: 'POST' | 'DELETE', where: string, body?: object) => {
    const answer = await service.call<Operation>(method, where, body ? { body } : {})
    if (answer.status !== 202) throw new Error(`${method} ${where}: ${answer.status} ${JSON.stringify(answer.body)}`)
    const operation = await ended(() => service, answer.body.id)
    if (operation.state !== 'succeeded') throw new Error(`${method} ${where}: ${JSON.stringify(operation.error)}`)
    return operation
  }
  const step = async (what: string, body?: object) => (await done('POST', path(what), body)).result?.changedSteps
  const refused = async (what: string, body?: object) => {
    const answer = await service.call<Problem>('POST', `${path(what)}?dryRun=true`, body ? { body } : {})
    return `${answer.status} ${answer.body.type?.split('/').at(-1)}: ${answer.body.detail}`
  }
  const postmaster = async (host: string) =>
    (await lab.exec(host, ['sh', '-c', 'pgrep -c -u postgres -x postgres'], { reject: false })).stdout.trim()

  await t.test('what comes before is asked for by the call that does it', async t => {
    t.match(await refused('pg1/start'), /^409 operation-refused: .* First: POST .*\/pg1\/provision\.$/)
    t.match(await refused('pg2/clone'), /^409 operation-refused: .* First: POST .*\/pg2\/provision\.$/)
    const plan = await service.call<PlanPreview>('POST', `${path('pg1/provision')}?dryRun=true`)
    t.equal(plan.body.operation, 'provision-node')
    t.equal(
      plan.body.stepsThatWouldRun,
      plan.body.steps.length - 2,
      'but for the checks, and the firewall, of which none runs',
    )
    t.match(plan.body.steps[0], { id: 'cluster/checks', verdict: 'would_verify' })
  })

  await t.test('initdb: a server with checksums, configured and never started, by one call', async t => {
    t.ok(((await step('pg1/provision')) ?? 0) >= 7)
    t.equal(await step('pg1/provision'), 0, 'the second call changes nothing')
    t.equal(await postmaster('pg1'), '0')
    const control = await lab.exec('pg1', ['/usr/lib/postgresql/15/bin/pg_controldata', '/var/lib/postgresql/15/main'])
    t.match(control.stdout, /Data page checksum version: +1/)
  })

  await t.test('register the primary: started with repmgr’s role and database, then registered', async t => {
    t.match(await refused('pg1/register'), /First: POST .*\/pg1\/start\.$/)
    t.ok(((await step('pg2/provision')) ?? 0) >= 7)
    t.match(await refused('pg2/start'), /^409 .*pg2 holds no copy of pg1, which is to be the primary/)
    t.match(await refused('pg2/clone'), /First: POST .*\/pg1\/start, then POST .*\/pg1\/register\.$/)
    t.equal(await step('pg1/start'), 3)
    t.equal(await step('pg1/start'), 0)
    t.match(
      await refused('pg2/clone'),
      /repmgr does not know pg1 as the primary yet\. First: POST .*\/pg1\/register\.$/,
    )
    t.equal(await step('pg1/register'), 1)
    t.equal(await step('pg1/register'), 0)
  })

  await t.test('clone, start, register standbys: one call each', async t => {
    t.match(await refused('pg2/start'), /First: POST .*\/pg2\/clone\.$/)
    t.equal(await step('pg2/clone'), 1)
    t.equal(await step('pg2/clone'), 0)
    t.match(await refused('pg2/register'), /First: POST .*\/pg2\/start\.$/)
    t.ok((await step('pg2/start')) ?? 0)
    t.equal(await step('pg2/start'), 0)
    t.equal(await step('pg2/register'), 1)
    t.equal(await step('pg2/register'), 0)
    const { body } = await service.call<ClusterStatus>('GET', '/v1/clusters/orders/status')
    t.equal(body.diagnosis.code, 'healthy')
    const one = await service.call<NodeDetail>('GET', path('pg2'))
    t.match(one.body, { cluster: 'orders', record: { nodeId: 2 }, status: { state: 'streaming', upstream: 'pg1' } })
    const again = await service.call<Operation>('POST', '/v1/clusters?wait=60', {
      body: { ...description, bootstrap: true },
    })
    t.equal(again.body.result?.changedSteps, 0, 'which is what a bootstrap makes')
  })

  await t.test('what does harm has to be meant, and the primary is never cloned onto', async t => {
    await psql(lab, 'pg1', "CREATE TABLE words AS SELECT 'precious' AS word")
    for (const confirm of [undefined, { confirm: 'pg1' }])
      t.match(await refused('pg1/clone', confirm), /^409 operation-refused: pg1 is the primary/)
    for (const verb of ['stop', 'restart']) t.match(await refused(`pg1/${verb}`), /^409 confirmation-required/)
    t.match(await refused('pg1/stop', { confirm: 'pg2' }), /^409 confirmation-required/)
    t.match(await refused('pg2/clone'), /^409 confirmation-required: pg2 is a standby that runs/)
    t.match(await refused('pg1/unregister'), /^409 operation-refused/)
    const removal = await service.call<Problem>('DELETE', `${path('pg1')}?dryRun=true&wipe=true&confirm=pg1`)
    t.match(removal.body.detail, /pg1 is the primary/)
  })

  await t.test('stop, start and restart', async t => {
    const started = () => psql(lab, 'pg1', 'SELECT pg_postmaster_start_time()')
    const before = await started()
    t.equal(await step('pg1/restart', { confirm: 'pg1' }), 1)
    t.not(await started(), before)
    t.equal(await step('pg1/stop', { confirm: 'pg1' }), 2)
    t.equal(await postmaster('pg1'), '0', 'not one process')
    // What boots and upgrades of packages do.
    await lab.exec('pg1', ['systemctl', 'restart', 'postgresql'], { timeoutMs: 120_000 })
    t.equal(await postmaster('pg1'), '0', 'it stays stopped')
    t.equal(await step('pg1/stop'), 0, 'what is stopped needs no confirmation')
    t.match(await refused('pg2/clone', { confirm: 'pg2' }), /pg1, the primary, does not run/)
    t.equal(await step('pg2/restart'), 1, 'a standby without its primary')
    t.equal(await step('pg1/start'), 1)
    t.equal((await lab.exec('pg1', ['cat', '/etc/postgresql/15/main/start.conf'])).stdout, 'auto')
    t.equal(await step('pg1/start'), 0)
    t.equal(await step('pg2/stop'), 2)
    t.equal(await postmaster('pg2'), '0')
    t.ok((await step('pg2/start')) ?? 0)
  })

  await t.test('a standby that has seen a newer timeline is not cloned over, nor wiped', async t => {
    const history = '/var/lib/postgresql/15/main/pg_wal/00000002.history'
    await lab.exec('pg2', ['sudo', '-u', 'postgres', 'sh', '-c', `echo '1 0/3000000 promoted' >${history}`])
    const newer = /pg1 would be the primary, on timeline 1, and pg2 has seen timeline 2: .* promote pg2 by hand/
    t.match(await refused('pg2/clone', { confirm: 'pg2' }), newer)
    const removal = await service.call<Problem>('DELETE', `${path('pg2')}?dryRun=true&wipe=true&confirm=pg2`)
    t.match(removal.body.detail, newer)
    await lab.exec('pg2', ['rm', history])
    t.equal(await psql(lab, 'pg2', 'SELECT pg_is_in_recovery()'), 't')
  })

  await t.test('a standby that was used is cloned anew when that is meant', async t => {
    await lab.exec('pg2', ['sudo', '-u', 'postgres', 'touch', '/var/lib/postgresql/15/main/of-the-old-copy'])
    t.equal(await step('pg2/clone', { confirm: 'pg2' }), 3)
    t.equal(await step('pg2/clone', { confirm: 'pg2' }), 0, 'a copy that nobody has started is not made again')
    await step('pg2/start')
    t.equal(await psql(lab, 'pg2', 'SELECT word FROM words'), 'precious')
    t.equal(
      (await lab.exec('pg2', ['ls', '/var/lib/postgresql/15/main/of-the-old-copy'], { reject: false })).exitCode,
      2,
    )
  })

  await t.test('unregister, and register again', async t => {
    const known = () => psql(lab, 'pg1', "SELECT string_agg(node_name, ',') FROM repmgr.nodes").catch(() => '')
    t.equal(await step('pg2/unregister'), 1)
    t.equal(await step('pg2/unregister'), 0)
    t.match((await service.call<ClusterStatus>('GET', '/v1/clusters/orders/status')).body.diagnosis, {
      code: 'metadata_drift',
      detail: /does not have pg2 \(node 2\), which is a standby/,
    })
    t.equal(await step('pg2/register'), 1)
    t.equal(await known(), '', 'repmgr’s tables are in its own database')
  })

  const inRepmgr = async (statement: string) =>
    (await lab.exec('pg1', ['sudo', '-u', 'postgres', 'psql', '-XAtq', '-d', 'repmgr', '-c', statement])).stdout.trim()
  const leftOnPrimary = async () => ({
    rows: await inRepmgr('SELECT count(*) FROM repmgr.nodes WHERE node_id > 1'),
    slots: await psql(lab, 'pg1', 'SELECT count(*) FROM pg_replication_slots'),
    streams: await psql(lab, 'pg1', 'SELECT count(*) FROM pg_stat_replication'),
    files: (
      await lab.exec(
        'pg1',
        ['grep', '-lF', pg2.address, '/etc/postgresql/15/main/pg_hba.conf', '/var/lib/postgresql/.pgpass'],
        { reject: false },
      )
    ).stdout.trim(),
  })
  const nothing = { rows: '0', slots: '0', streams: '0', files: '' }

  await t.test('a standby that others follow is not removed', async t => {
    await inRepmgr(
      "INSERT INTO repmgr.nodes SELECT 99, 2, active, 'below', type, location, priority, conninfo, repluser, slot_name, config_file FROM repmgr.nodes WHERE node_id = 2",
    )
    const answer = await service.call<Problem>('DELETE', `${path('pg2')}?dryRun=true`)
    t.match(answer.body.detail, /below follows pg2, not the primary/)
    await inRepmgr('DELETE FROM repmgr.nodes WHERE node_id = 99')
  })

  await t.test('a living standby is removed, and keeps its data', async t => {
    await done('DELETE', path('pg2'))
    t.same(await leftOnPrimary(), nothing)
    t.equal(await postmaster('pg2'), '0')
    t.equal((await service.call('GET', path('pg2'))).status, 404)
    const kept = await lab.exec('pg2', ['cat', '/var/lib/postgresql/15/main/PG_VERSION'])
    t.equal(kept.stdout.trim(), '15')
    const again = await service.call<Problem>('POST', '/v1/clusters/orders/nodes?dryRun=true', { body: node(pg2) })
    t.match(again.body.detail, /it was removed from the cluster, and its data were kept/)
    await lab.exec('pg2', ['pg_dropcluster', '15', 'main'])
    await done('POST', '/v1/clusters/orders/nodes', node(pg2))
    t.equal((await service.call<NodeDetail>('GET', path('pg2'))).body.record.nodeId, 3, 'its number is not used again')
  })

  await t.test('a dead standby is removed, with word of what stays on its host', async t => {
    await lab.linkDown('pg2')
    const wipe = await service.call<Problem>('DELETE', `${path('pg2')}?dryRun=true&wipe=true&confirm=pg2`)
    t.match(wipe.body.detail, /cannot be wiped/)
    const operation = await done('DELETE', path('pg2'))
    t.match(operation.steps.find(({ id }) => id === 'pg2/stays')?.note, /its server may still run there/)
    t.same(await leftOnPrimary(), nothing)
    await lab.linkUp('pg2')
    const back = await eventually(async () => {
      const answer = await service.call<Problem>('POST', '/v1/clusters/orders/nodes?dryRun=true', { body: node(pg2) })
      return answer.status === 409 ? answer.body : undefined
    }, 60_000)
    t.match(back.detail, /it is the copy of a node that was removed from the cluster/)
    t.same(await leftOnPrimary(), nothing, 'and it does not come in by itself')
    await lab.exec('pg2', ['pg_dropcluster', '--stop', '15', 'main'])
    await done('POST', '/v1/clusters/orders/nodes', node(pg2))
  })

  await t.test('a standby is removed and wiped when that is meant', async t => {
    const asked = await service.call<Problem>('DELETE', `${path('pg2')}?wipe=true`)
    t.equal(asked.status, 409, 'at once, before it is an operation')
    t.equal(asked.body.type, '/problems/confirmation-required')
    await done('DELETE', `${path('pg2')}?wipe=true&confirm=pg2`)
    t.same(await leftOnPrimary(), nothing)
    t.equal(await traces('pg2'), '')
    await done('POST', '/v1/clusters/orders/nodes', node(pg2))
  })

  /** Whatever would show that a cluster was here, but for the packages. */
  async function traces(host: string): Promise<string> {
    const found = await lab.exec(
      host,
      [
        'sh',
        '-c',
        'ls -d /var/lib/postgresql/15/main /etc/postgresql/15/main /etc/repmgr.conf /var/lib/understudy /var/lib/postgresql/.pgpass /var/log/postgresql/*.log /etc/postgresql-common/createcluster.d/understudy.conf 2>/dev/null; pgrep -a -u postgres',
      ],
      { reject: false },
    )
    return found.stdout.trim()
  }

  await t.test('forget: no host is touched, and the answer says what is on them', async t => {
    const before = await lab.exec('pg1', ['head', '-n', '3', '/var/lib/postgresql/15/main/postmaster.pid'])
    const { status, body } = await service.call<Forgotten>('DELETE', '/v1/clusters/orders')
    t.equal(status, 200)
    t.same(
      body.remains.map(one => one.node),
      ['pg1', 'pg2'],
    )
    t.equal((await service.call('GET', '/v1/clusters/orders')).status, 404)
    t.equal(
      (await lab.exec('pg1', ['head', '-n', '3', '/var/lib/postgresql/15/main/postmaster.pid'])).stdout,
      before.stdout,
    )
  })

  await t.test('destroy: nothing is left, and the hosts serve another cluster', async t => {
    const other = { ...description, name: 'billing' }
    const taken = await service.call<Problem>('POST', '/v1/clusters?dryRun=true', {
      body: { ...other, bootstrap: true },
    })
    t.equal(taken.status, 409, 'as long as the old one is there, they are taken')
    // Known again, under the numbers that its servers have.
    await service.call('POST', '/v1/clusters', { body: description })
    for (const query of ['destroy=true', 'destroy=true&confirm=billing', 'confirm=orders']) {
      const answer = await service.call<Problem>('DELETE', `/v1/clusters/orders?${query}`)
      t.ok(answer.status === 409 || answer.status === 422, query)
    }
    await lab.linkDown('pg2')
    const unreachable = await service.call<Problem>(
      'DELETE',
      '/v1/clusters/orders?destroy=true&confirm=orders&dryRun=true',
    )
    t.match(unreachable.body.detail, /pg2 does not answer.*leaveUnreachable=true/)
    await lab.linkUp('pg2')
    await eventually(async () => {
      const answer = await service.call<PlanPreview>(
        'DELETE',
        '/v1/clusters/orders?destroy=true&confirm=orders&dryRun=true',
      )
      return answer.status === 200
    }, 60_000)
    const operation = await done('DELETE', '/v1/clusters/orders?destroy=true&confirm=orders')
    const wiped = operation.steps.filter(({ id }) => id.endsWith('/wipe')).map(({ node }) => node)
    t.same(wiped, ['pg2', 'pg1'], 'the primary last')
    for (const { name } of hosts) t.equal(await traces(name), '', name)
    t.equal((await service.call('GET', '/v1/clusters/orders')).status, 404)

    const built = await done('POST', '/v1/clusters', { ...other, bootstrap: true })
    t.equal(built.steps.at(-1)?.state, 'verified')
    const { body } = await service.call<ClusterStatus>('GET', '/v1/clusters/billing/status')
    t.equal(body.diagnosis.code, 'healthy')
  })
})
