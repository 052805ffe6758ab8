import t from 'tap'
import type { Problem } from '../../src/api/problems.js'
import type { Access } from '../../src/cluster/access.js'
import type { Cluster } from '../../src/cluster/model.js'
import type { ClusterStatus } from '../../src/cluster/status.js'
import type { Operation, PlanPreview } from '../../src/operations/operation.js'
import { ended, psql, startLabTest } from '../fixtures/lab.js'
import { eventually } from '../fixtures/redis.js'

const HBA = '/etc/postgresql/15/main/pg_hba.conf'

t.test(
  'pg_hba.conf: one managed block, first, for nodes and applications, proven before it counts',
  { timeout: 600_000 },
  async t => {
    const { lab, node, addHosts, start } = await startLabTest(t, 'access', { postgres: true })
    const hosts = await addHosts(['pg1', 'pg2'])
    const [pg1, pg2] = hosts
    if (!pg1 || !pg2) throw new Error('no hosts')
    const service = await start({ UNDERSTUDY_CONTROLLER_ADDRESSES: '192.0.2.200,198.51.100.0/24' })
    const application: Access = [{ address: lab.gateway, databases: ['orders', 'all'], users: ['app', 'o"dd, #1'] }]
    const cluster = { name: 'orders', postgresVersion: 15, nodes: hosts.map(node), access: application }

    const put = (access: Access, query = '?wait=60') =>
      service.call<Operation & Problem & PlanPreview>('PUT', `/v1/clusters/orders/access${query}`, { body: { access } })
    const hba = async (host: string) => (await lab.exec(host, ['cat', HBA])).stdout
    /** Everything of the folder that a change could leave traces in. */
    const traces = async (host: string) =>
      (await lab.exec(host, ['sh', '-c', `ls -l --time-style=full-iso ${HBA}*; ls -A /etc/postgresql/15/main`])).stdout
    const kept = async (host: string) =>
      (await lab.exec(host, ['sh', '-c', `stat -c '%U:%G %a %n' ${HBA}.understudy-* 2>/dev/null || true`])).stdout
        .split('\n')
        .filter(line => line !== '')
    /** What a program on the gateway, where the applications of this lab are, is told. */
    const login = async (host: string, user: string, database: string, password = 'app-password', options = '') => {
      const { stdout, stderr } = await lab.run(
        [
          'psql',
          '-XAtqw',
          '-d',
          `host=${host} user=${user} dbname=${database} connect_timeout=10 ${options}`,
          '-c',
          'SELECT current_user',
        ],
        { reject: false, env: { PGPASSWORD: password } },
      )
      return stdout.trim() || stderr.trim()
    }

    await t.test('a cluster is built with its applications', async t => {
      const { status, body } = await service.call<Operation>('POST', '/v1/clusters', {
        body: { ...cluster, bootstrap: true },
      })
      t.equal(status, 202, JSON.stringify(body))
      const operation = await ended(() => service, body.id)
      t.equal(operation.state, 'succeeded', JSON.stringify(operation.error))
      const record = await service.call<Cluster>('GET', '/v1/clusters/orders')
      t.strictSame(record.body.access, application)
      t.strictSame(record.body.controllers, [lab.gateway], 'what settings name is not recorded: it can be taken back')
      for (const { name } of hosts) {
        t.equal(await psql(lab, name, 'SELECT count(*) FROM pg_hba_file_rules WHERE error IS NOT NULL'), '0')
        t.match(await hba(name), /^# BEGIN understudy/)
        t.match(await hba(name), /^host +repmgr +repmgr +192\.0\.2\.200\/32 +scram-sha-256$/m)
        t.match(await hba(name), /^host +repmgr +repmgr +198\.51\.100\.0\/24 +scram-sha-256$/m)
        t.match(await kept(name), [/^postgres:postgres 640 .*understudy-2\d+T\d+Z$/], 'the package’s file is kept')
      }
    })

    await t.test('an application comes in by its password, to its database, and nobody else does', async t => {
      for (const sql of [
        "CREATE ROLE app LOGIN PASSWORD 'app-password'",
        `CREATE ROLE "o""dd, #1" LOGIN PASSWORD 'app-password'`,
        "CREATE ROLE other LOGIN PASSWORD 'app-password'",
        'CREATE DATABASE orders',
        'CREATE DATABASE "all"',
      ]) {
        await psql(lab, 'pg1', sql)
      }
      t.equal(await login(pg1.address, 'app', 'orders'), 'app')
      t.equal(await login(pg1.address, 'app', 'all'), 'app')
      t.equal(await login(pg1.address, "'o\"dd, #1'", 'orders'), 'o"dd, #1')
      t.match(await login(pg1.address, 'app', 'orders', 'wrong'), /password authentication failed/)
      t.match(
        await login(pg1.address, 'app', 'postgres'),
        /no pg_hba\.conf entry/,
        '"all" is a database, and not all of them',
      )
      t.match(await login(pg1.address, 'other', 'orders'), /no pg_hba\.conf entry/)
      t.equal(
        await eventually(async () => (await login(pg2.address, 'app', 'orders')) === 'app' && 'app', 30_000),
        'app',
      )
    })

    await t.test('the list is changed on every node, the old file is kept, and again changes nothing', async t => {
      const before = await hba('pg1')
      const access: Access = [{ address: '192.0.2.0/24', users: ['app', 'other'] }]
      const plan = await put(access, '?dryRun=true')
      t.equal(plan.body.stepsThatWouldRun, 2)
      t.match(JSON.stringify(plan.body.steps), /host +all +app,other +192\.0\.2\.0\/24/)
      t.equal(await hba('pg1'), before, 'a dry run writes nothing')

      const { status, body } = await put(access)
      t.equal(status, 200, JSON.stringify(body))
      t.strictSame(
        body.steps.filter(({ id }) => id.endsWith('/access')).map(({ id, state }) => [id, state]),
        [
          ['pg2/access', 'changed'],
          ['pg1/access', 'changed'],
        ],
        'the primary last',
      )
      t.equal(await login(pg1.address, 'other', 'orders'), 'other')
      t.equal(await login(pg2.address, 'other', 'postgres'), 'other')
      for (const { name } of hosts) t.equal((await kept(name)).length, 2)
      t.equal((await lab.exec('pg1', ['sh', '-c', `cat $(ls ${HBA}.understudy-2* | tail -1)`])).stdout, before)

      const again = await put(access)
      t.equal(again.body.result?.changedSteps, 0)
      const repeated = await service.call<Problem>('POST', '/v1/clusters', { body: cluster })
      t.equal(repeated.status, 409)
      t.match(repeated.body.errors, [{ pointer: '/access' }])
    })

    await t.test('a list that would lock out who must come in is refused, and nothing is touched', async t => {
      const before = await traces('pg1')
      for (const [entry, why] of [
        [{ address: '192.0.2.0/24', method: 'reject' }, /pg1 \(192\.0\.2\.11\).*this service \(192\.0\.2\.1\)/],
        [{ address: pg2.address, replication: true, method: 'reject' }, /pg2/],
        [{ address: '10.0.0.1/8' }, /10\.0\.0\.0\/8/],
      ] as const) {
        const { status, body } = await put([entry])
        t.equal(status, 422)
        t.match(body.detail, why)
      }
      // Only a worker knows the addresses of the settings.
      const { status, body } = await put([{ address: '192.0.2.200', method: 'reject' }])
      t.equal(status, 409)
      t.match(body.detail, /lock out this service \(192\.0\.2\.200\)/)
      t.equal(await traces('pg1'), before)
    })

    await t.test('a file with a broken line is refused by the server and never in force, nor left behind', async t => {
      await lab.exec('pg2', ['sh', '-c', `printf 'host all all 10.0.0.0/8 nonsense\\n' >> ${HBA}`])
      const [broken, files] = [await hba('pg2'), await traces('pg2')]
      const line = broken.split('\n').findIndex(text => text.includes('nonsense')) + 1
      const { status, body } = await put([])
      t.equal(status, 502)
      const operation = await service.call<Operation>('GET', body.operation ?? '')
      t.match(operation.body.error, { code: 'access-rules-refused', outcome: 'failed_clean', step: 'pg2/access' })
      t.match(
        body.detail,
        new RegExp(`line ${line}: invalid authentication method "nonsense"`),
        'the line as people see it',
      )
      t.equal(await hba('pg2'), broken)
      t.equal(await traces('pg2'), files, 'with its owner, its mode and its time, and nothing beside it')
      t.match(await hba('pg1'), /app,other/, 'the next node was not touched')
      await lab.exec('pg2', ['sed', '-i', '/nonsense/d', HBA])
    })

    await t.test('rules that keep a node out are taken back at once', async t => {
      // pg1 is told another address for pg2 than the one that pg2 comes from: nothing in the list is wrong.
      const before = await hba('pg1')
      const record = (await service.call<Cluster>('GET', '/v1/clusters/orders')).body
      t.ok(record)
      await lab.exec('pg2', ['ip', 'address', 'add', '192.0.2.77/24', 'dev', 'eth0'])
      await lab.exec('pg2', ['ip', 'route', 'replace', `${pg1.address}/32`, 'dev', 'eth0', 'src', '192.0.2.77'])
      const { status, body } = await put([{ address: '203.0.113.0/24', users: ['app'] }])
      t.equal(status, 502, JSON.stringify(body))
      const operation = await service.call<Operation>('GET', body.operation ?? '')
      t.match(operation.body.error, { code: 'access-locked-out', outcome: 'failed_clean', step: 'pg1/access' })
      t.match(body.detail, /pg2 does not come in: .*192\.0\.2\.77/)
      t.equal(await hba('pg1'), before)
      t.equal(await login(pg1.address, 'other', 'orders'), 'other', 'and the old rules are in force again')
      t.notMatch(await traces('pg1'), /unproven/)
      await lab.exec('pg2', ['ip', 'route', 'del', `${pg1.address}/32`])
      await lab.exec('pg2', ['ip', 'address', 'del', '192.0.2.77/24', 'dev', 'eth0'])
    })

    await t.test('what a worker left unproven is proven by the next one', async t => {
      const access: Access = [{ address: '192.0.2.0/24', users: ['app'] }]
      t.equal((await put(access)).status, 200)
      await lab.exec('pg1', ['sh', '-c', `cp -p $(ls ${HBA}.understudy-2* | tail -1) ${HBA}.understudy-unproven`])
      const { body } = await put(access)
      t.strictSame(
        body.steps.filter(({ id }) => id.endsWith('/access')).map(({ id, state }) => [id, state]),
        [
          ['pg2/access', 'unchanged'],
          ['pg1/access', 'changed'],
        ],
      )
      t.notMatch(await traces('pg1'), /unproven/)
    })

    await t.test('five old files are kept, and a standby that is away is named', async t => {
      for (const last of [1, 2, 3]) {
        const { status, body } = await put([{ address: `10.0.0.${last}`, users: ['app'] }])
        t.equal(status, 200, JSON.stringify(body))
      }
      t.equal((await kept('pg1')).length, 5)
      await lab.linkDown('pg2')
      const { body } = await put(application)
      const operation = await ended(() => service, body.id ?? body.operation?.split('/').at(-1) ?? '')
      t.equal(operation.state, 'succeeded', JSON.stringify(operation.error))
      t.equal(operation.steps.find(({ id }) => id === 'pg2/absent')?.state, 'verified')
      await lab.linkUp('pg2')
      const again = await eventually(async () => {
        const answer = await put(application)
        return answer.status === 200 && answer.body.steps.every(({ id }) => !id.endsWith('/absent')) && answer
      }, 90_000)
      t.equal(again.body.steps.find(({ id }) => id === 'pg1/access')?.state, 'unchanged')
      t.match(await hba('pg2'), /o""dd/)
      await eventually(async () => {
        const { body: now } = await service.call<ClusterStatus>('GET', '/v1/clusters/orders/status')
        return now.diagnosis.code === 'healthy'
      }, 60_000)
    })
  },
)
