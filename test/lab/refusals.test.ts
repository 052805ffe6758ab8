import t from 'tap'
import type { Problem } from '../../src/api/problems.js'
import type { Cluster } from '../../src/cluster/model.js'
import type { Operation } from '../../src/operations/operation.js'
import { ended, psql, startLabTest, stepIn } from '../fixtures/lab.js'

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

  await t.test('a server whose data are elsewhere, and look as if there were none', async t => {
    await lab.exec('used', [
      'sh',
      '-c',
      `systemctl stop postgresql@15-main && mv /var/lib/postgresql/15/main /srv/pg &&
       sed -i "s#^data_directory.*#data_directory = '/srv/pg'#" /etc/postgresql/15/main/postgresql.conf`,
    ])
    for (const world of ['stopped', 'running']) {
      if (world === 'running') await lab.exec('used', ['systemctl', 'start', 'postgresql@15-main'])
      const { status, body } = await build('elsewhere', [node(used)])
      t.equal(status, 409, world)
      t.match(body.detail, /\/srv\/pg/)
    }
    t.equal(await psql(lab, 'used', 'SELECT word FROM payroll'), 'precious')
  })

  await t.test('what was marked as unused, and was used since, is not emptied', async t => {
    const [taken] = await addHosts(['taken'])
    if (!taken) throw new Error('no host')
    const { body: first } = await service.call<Operation>('POST', '/v1/clusters/fresh/nodes', { body: node(taken) })
    // Caught between the packages and its own server: somebody makes one, by hand, and uses it.
    await stepIn(() => service, first.id, 'taken/server', ['changed'])
    await service.kill()
    await lab.exec(
      'taken',
      [
        'sh',
        '-c',
        'pkill -f "standby clone"; systemctl stop "understudy-*"; rm -f /var/lib/postgresql/15/main/standby.signal',
      ],
      { reject: false },
    )
    const state = (await lab.exec('taken', ['cat', '/var/lib/understudy/postgresql-15-main.json'])).stdout
    t.match(state, /created|cloning/, 'the mark says that it holds nothing')
    await lab.exec('taken', [
      'sh',
      '-c',
      `rm -rf /var/lib/postgresql/15/main /etc/postgresql/15/main /var/lib/understudy/jobs/* &&
       pg_createcluster 15 main && systemctl start postgresql@15-main`,
    ])
    await psql(lab, 'taken', "CREATE TABLE payroll AS SELECT 'precious too' AS word")
    await lab.exec('taken', ['systemctl', 'stop', 'postgresql@15-main'])
    const again = await start()
    const operation = await ended(() => again, first.id)
    t.equal(operation.state, 'failed')
    t.match(operation.error?.code, /not-a-standby|data-directory-in-use/)
    await lab.exec('taken', ['systemctl', 'start', 'postgresql@15-main'])
    t.equal(await psql(lab, 'taken', 'SELECT word FROM payroll'), 'precious too')
  })
})

t.test('what else is in files that are not ours alone stays', { timeout: 300_000 }, async t => {
  const { lab, node, addHosts, start } = await startLabTest(t, 'keep', { postgres: true })
  const [pg1, repmgr] = await addHosts(['pg1', 'repmgr'])
  if (!pg1 || !repmgr) throw new Error('no host')
  const service = await start()
  const mine = 'backup.example:5432:*:backup:kept'
  await lab.exec('pg1', [
    'sh',
    '-c',
    `useradd -r -d /var/lib/postgresql -s /bin/bash postgres; install -d -o postgres -g postgres /var/lib/postgresql; echo '${mine}' >/var/lib/postgresql/.pgpass; chown postgres /var/lib/postgresql/.pgpass; chmod 600 /var/lib/postgresql/.pgpass`,
  ])
  const { body } = await service.call<Operation>('POST', '/v1/clusters', {
    body: { name: 'kept', postgresVersion: 15, nodes: [node(pg1)], bootstrap: true },
  })
  const operation = await ended(() => service, body.id)
  t.equal(operation.state, 'succeeded', JSON.stringify(operation.error))
  const passwords = (await lab.exec('pg1', ['cat', '/var/lib/postgresql/.pgpass'])).stdout.split('\n')
  t.ok(passwords.includes(mine))
  t.match(passwords[0], /BEGIN understudy/)
  t.notOk(
    (await service.call<string>('GET', `/v1/operations/${body.id}/log`)).body.includes('kept:5432'),
    'and is in no log',
  )

  await lab.exec('repmgr', ['sh', '-c', 'echo "node_id=7" >/etc/repmgr.conf'])
  const refused = await service.call<Problem>('POST', '/v1/clusters/kept/nodes?wait=60', { body: node(repmgr) })
  t.equal(refused.status, 409)
  t.match(refused.body.detail, /repmgr\.conf belongs to a repmgr cluster/)
  t.equal((await lab.exec('repmgr', ['cat', '/etc/repmgr.conf'])).stdout.trim(), 'node_id=7')
})
