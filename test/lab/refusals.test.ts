import t from 'tap'
import type { Problem } from '../../src/api/problems.js'
import type { Cluster } from '../../src/cluster/model.js'
import type { Operation } from '../../src/operations/operation.js'
import { ended, psql, startLabTest } from '../fixtures/lab.js'

/** Worlds in which the answer is no: it must come before anything is touched, and say what to do. */
t.test('what cannot be done is refused before anything is touched', { timeout: 600_000 }, async t => {
  const { lab, node, addHosts, start } = await startLabTest(t, 'refuse')
  const [good, used, fresh] = await addHosts(['good', 'used', 'fresh'])
  const [nosudo] = await addHosts(['nosudo'], { sudo: false })
  if (!good || !used || !fresh || !nosudo) throw new Error('no hosts')
  const service = await start()
  const build = (name: string, nodes: unknown[]) =>
    service.call<Operation & Problem>('POST', '/v1/clusters?wait=60', {
      body: { name, postgresVersion: 15, nodes, bootstrap: true },
    })
  const untouched = async (host: string) => {
    const { stdout } = await lab.exec(
      host,
      ['sh', '-c', 'ls -A /var/lib/understudy 2>/dev/null; dpkg -l | grep postgresql'],
      { reject: false },
    )
    return stdout.trim() === ''
  }

  await t.test('a host that is down', async t => {
    const { status, body } = await build('down', [node(good), { ...node(nosudo), name: 'away', host: '192.0.2.99' }])
    t.equal(status, 502)
    t.equal(body.type, '/problems/host-unreachable')
    t.match(body.detail, /192\.0\.2\.99/)
    t.match(body.detail, /sshd/, 'it says what to look at')
    const { body: operation } = await service.call<Operation>('GET', body.operation ?? '')
    t.equal(operation.error?.outcome, 'not_started')
    t.ok(await untouched('good'), 'the host that answers was not touched either')
  })

  await t.test('a host with another key than the pinned one', async t => {
    const { status, body } = await build('wrongkey', [{ ...node(good), ssh: { user: 'admin', hostKey: used.hostKey } }])
    t.equal(status, 502)
    t.equal(body.type, '/problems/host-key-mismatch')
    t.ok(body.detail.includes(used.hostKey) && body.detail.includes(good.hostKey), 'both fingerprints are named')
    t.ok(await untouched('good'))
  })

  await t.test('no host key given: the answer shows what the host offers, and trusts nothing', async t => {
    const { status, body } = await build('nokey', [{ ...node(good), ssh: { user: 'admin' } }])
    t.equal(status, 422)
    t.match(body.errors?.[0], { pointer: '/nodes/0/ssh/hostKey' })
    t.ok(body.errors?.[0]?.detail.includes(good.hostKey))
    t.equal((await service.call('GET', '/v1/clusters/nokey')).status, 404)
  })

  await t.test('a login user without sudo', async t => {
    const { status, body } = await build('nosudo', [node(nosudo)])
    t.equal(status, 502)
    t.equal(body.type, '/problems/sudo-refused')
    t.match(body.detail, /NOPASSWD/)
    t.ok(await untouched('nosudo'))
  })

  await t.test('a user that is not let in', async t => {
    const { status, body } = await build('nologin', [
      { ...node(good), ssh: { user: 'somebody', hostKey: good.hostKey } },
    ])
    t.equal(status, 502)
    t.equal(body.type, '/problems/authentication-failed')
  })

  await t.test('two hosts that are not ready are both named', async t => {
    const { body } = await build('twice', [
      node(nosudo),
      { ...node(good), ssh: { user: 'admin', hostKey: used.hostKey } },
    ])
    t.match(body.detail, /nosudo/)
    t.match(body.detail, /good/)
  })

  const install = [
    'sh',
    '-c',
    'apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql-15 >/dev/null 2>&1',
  ]
  await t.test('a data directory that holds somebody’s database', async t => {
    await Promise.all([
      lab.exec('used', install, { timeoutMs: 180_000 }),
      lab.exec('fresh', install, { timeoutMs: 180_000 }),
    ])
    await lab.exec('used', ['systemctl', 'start', 'postgresql@15-main'])
    await psql(lab, 'used', "CREATE TABLE payroll AS SELECT 'precious' AS word")
    const files =
      'cat /etc/postgresql/15/main/*.conf /etc/postgresql/15/main/conf.d/* 2>/dev/null | sha256sum; systemctl show -p MainPID postgresql@15-main'
    const before = (await lab.exec('used', ['sh', '-c', files])).stdout
    const { status, body } = await build('taken', [node(used)])
    t.equal(status, 409)
    t.equal(body.type, '/problems/data-directory-not-empty')
    t.match(body.detail, /pg_dropcluster/, 'it says how to get rid of it, if that is wanted')
    t.equal((await lab.exec('used', ['sh', '-c', files])).stdout, before, 'nothing was written, nothing restarted')
    t.equal(await psql(lab, 'used', 'SELECT word FROM payroll'), 'precious')

    await t.test('stopped, it could hold anything', async t => {
      await lab.exec('used', ['systemctl', 'stop', 'postgresql@15-main'])
      t.equal((await build('taken', [node(used)])).status, 409)
      await lab.exec('used', ['systemctl', 'start', 'postgresql@15-main'])
      t.equal(await psql(lab, 'used', 'SELECT word FROM payroll'), 'precious')
    })
  })

  await t.test('the empty server that the package made is replaced', async t => {
    await lab.exec('fresh', ['systemctl', 'start', 'postgresql@15-main'])
    const { body: plan } = await service.call<{ steps: { id: string; destroys?: string }[] }>(
      'POST',
      '/v1/clusters?dryRun=true',
      {
        body: { name: 'fresh', postgresVersion: 15, nodes: [node(fresh)], bootstrap: true },
      },
    )
    t.match(
      plan.steps.find(({ id }) => id === 'fresh/automatic-server')?.destroys,
      /holds no database/,
      'the plan says what is destroyed',
    )
    const { body } = await service.call<Operation>('POST', '/v1/clusters', {
      body: { name: 'fresh', postgresVersion: 15, nodes: [node(fresh)], bootstrap: true },
    })
    const operation = await ended(() => service, body.id)
    t.equal(operation.state, 'succeeded', JSON.stringify(operation.error))
    t.equal(await psql(lab, 'fresh', 'SHOW data_checksums'), 'on', 'it is one of ours now')
  })

  await t.test('a node that cannot be added leaves the cluster as it was', async t => {
    const { status, body } = await service.call<Problem>('POST', '/v1/clusters/fresh/nodes?wait=60', {
      body: { ...node(used) },
    })
    t.equal(status, 409)
    t.equal(body.type, '/problems/data-directory-not-empty')
    const { body: cluster } = await service.call<Cluster>('GET', '/v1/clusters/fresh')
    t.same(
      cluster.nodes.map(({ name }) => name),
      ['fresh'],
    )
    t.equal(await psql(lab, 'used', 'SELECT word FROM payroll'), 'precious')
  })

  await t.test('a host that belongs to another cluster', async t => {
    const { status, body } = await build('thief', [node(fresh)])
    t.equal(status, 409)
    t.match(body.detail, /belongs to node fresh of cluster fresh/)
  })
})
