import t from 'tap'
import type { Problem } from '../../src/api/problems.js'
import type { Cluster } from '../../src/cluster/model.js'
import type { SettingsReport } from '../../src/cluster/settings-report.js'
import type { Operation, PlanPreview } from '../../src/operations/operation.js'
import { ended, psql, startLabTest } from '../fixtures/lab.js'

const MANAGED = '/etc/postgresql/15/main/conf.d/understudy.conf'

t.test('postgresql.conf, pgtune: settings from the hardware, overrides, restarts', { timeout: 890_000 }, async t => {
  const { lab, node, addHosts, start } = await startLabTest(t, 'settings', { postgres: true })
  const hosts = await addHosts(['pg1', 'pg2'])
  // What a container host does, so that a machine of another size can be had: a memory of its own to see.
  const memory = async (name: string, megabytes: number) => {
    const script = `umount /proc/meminfo 2>/dev/null; sed "s/^MemTotal:.*/MemTotal: ${megabytes * 1024} kB/" /proc/meminfo > /run/meminfo.new &&
      mv /run/meminfo.new /run/meminfo && mount --bind /run/meminfo /proc/meminfo`
    await lab.exec(name, ['sh', '-c', script])
  }
  await memory('pg1', 4090)
  await memory('pg2', 2045)
  const service = await start()
  const [pg1, pg2] = hosts.map(node)
  const cluster = {
    name: 'orders',
    postgresVersion: 15,
    workload: 'web',
    settings: { log_min_duration_statement: '250ms' },
    nodes: [pg1, { ...pg2, settings: { random_page_cost: 2.5 } }],
  }
  const show = (host: string, name: string) => psql(lab, host, `SHOW ${name}`)
  const both = async (name: string) => Promise.all(['pg1', 'pg2'].map(host => show(host, name)))
  const started = () =>
    Promise.all(['pg1', 'pg2'].map(host => psql(lab, host, 'SELECT pg_postmaster_start_time()::text')))
  const files = () => Promise.all(hosts.map(async ({ name }) => (await lab.exec(name, ['cat', MANAGED])).stdout))
  const bootstrap = async (body: object = cluster) => {
    const answer = await service.call<Operation>('POST', '/v1/clusters', { body: { ...body, bootstrap: true } })
    t.equal(answer.status, 202)
    return ended(() => service, answer.body.id, 600_000)
  }
  const patch = async (body: object) => {
    const answer = await service.call<Operation & Problem>('PATCH', '/v1/clusters/orders/settings', { body })
    return answer.status === 202 ? ended(() => service, answer.body.id, 600_000) : answer.body
  }
  const succeeded = (operation: Operation | Problem): Operation => {
    if (!('state' in operation)) throw new Error(JSON.stringify(operation))
    t.equal(operation.state, 'succeeded', JSON.stringify(operation.error))
    return operation
  }
  const states = ({ steps }: Operation) => Object.fromEntries(steps.map(({ id, state }) => [id, state]))
  const noteOf = ({ steps }: Operation, id: string) => steps.find(step => step.id === id)?.note

  await t.test('what no cluster can have is refused before any host is asked', async t => {
    const { status, body } = await service.call<Problem>('POST', '/v1/clusters', {
      body: { ...cluster, settings: { listen_addresses: 'localhost', shared_preload_libraries: 'pg_stat_statements' } },
    })
    t.equal(status, 422)
    t.equal(body.type, '/problems/setting-refused')
    t.same(
      body.errors?.map(({ pointer }) => pointer),
      ['/settings/listen_addresses', '/settings/shared_preload_libraries'],
    )
  })

  await t.test('computed settings are in effect on both, each from its own host; overrides count', async t => {
    succeeded(await bootstrap())
    t.same(await both('shared_buffers'), ['1GB', '512MB'])
    t.same(await both('effective_cache_size'), ['3GB', '1536MB'])
    t.same(await both('max_connections'), ['200', '200'], 'the same on each node')
    t.same(await both('log_min_duration_statement'), ['250ms', '250ms'], 'asked for, of the cluster')
    t.same(await both('random_page_cost'), ['4', '2.5'], 'asked for, of one node; no disk to ask here')
    t.same(await both('log_statement'), ['none', 'none'])
    t.same(await both('shared_preload_libraries'), ['repmgr', 'repmgr'])
  })

  await t.test('a second run changes nothing, with some megabytes of RAM more', async t => {
    const before = await files()
    await memory('pg1', 4095)
    const operation = succeeded(await bootstrap())
    t.equal(operation.result?.changedSteps, 0, JSON.stringify(operation.steps.filter(s => s.state === 'changed')))
    t.same(await files(), before)
  })

  await t.test('a wrong name, unit, range or place is refused in PostgreSQL’s words; nothing is written', async t => {
    const before = await files()
    const cases: [object, RegExp][] = [
      [{ wrok_mem: '64MB' }, /pg1, pg2: wrok_mem: unrecognized configuration parameter/],
      [{ work_mem: '64XB' }, /work_mem: invalid value .*Valid units for this parameter are/],
      [{ work_mem: '6kB' }, /6 kB is outside the valid range for parameter "work_mem" \(64/],
      [{ wal_compression: 'brotli' }, /wal_compression: invalid value .*Available values/],
      [{ timezone: 'Mars/Olympus' }, /invalid value for parameter "TimeZone"/],
      [{ block_size: 8192 }, /"block_size" cannot be changed/],
      [{ transaction_isolation: 'serializable' }, /transaction_isolation is internal, of a session/],
      [{ shared_preload_libraries: 'repmgr,pg_nothing' }, /there is no library pg_nothing\.so/],
    ]
    for (const [settings, words] of cases) {
      const { status, body } = await service.call<Problem>('PATCH', '/v1/clusters/orders/settings', {
        body: { settings },
      })
      t.equal(status, 422, JSON.stringify(settings))
      t.match(body, { type: '/problems/setting-refused', detail: words })
    }
    const one = await service.call<Problem>('PATCH', '/v1/clusters/orders/settings', {
      body: { nodes: { pg2: { work_mem: 'much' } } },
    })
    t.match(one.body.detail, /^pg2: work_mem: invalid value/, 'asked of the node that it is for')
    t.same(await files(), before)
    const { body: record } = await service.call<Cluster>('GET', '/v1/clusters/orders')
    t.same(record.settings, cluster.settings, 'nor in the record')
  })

  await t.test('a reload is enough: no server is started again', async t => {
    const before = await started()
    const operation = succeeded(
      await patch({
        settings: { work_mem: '48MB', log_min_duration_statement: null },
        nodes: { pg2: { random_page_cost: null } },
      }),
    )
    t.match(noteOf(operation, 'cluster/settings-proof'), /every setting is in effect/)
    t.same(await both('work_mem'), ['48MB', '48MB'])
    t.same(await both('log_min_duration_statement'), ['1s', '1s'], 'computed again')
    t.same(await both('random_page_cost'), ['4', '4'])
    t.same(await started(), before)
  })

  await t.test('what needs a restart is written, said, and waits', async t => {
    const before = await started()
    const operation = succeeded(await patch({ settings: { max_connections: 250, autovacuum_max_workers: 4 } }))
    t.match(noteOf(operation, 'cluster/settings-proof'), /pg1: autovacuum_max_workers; pg2: .*max_connections/)
    t.match(noteOf(operation, 'pg2/settings'), /wait for a restart/)
    t.same(await started(), before)
    t.match((await files())[0], /max_connections = 200 /, 'the primary is not told before every standby has it')
    t.match((await files())[1], /max_connections = 250 /)
    const { body: report } = await service.call<SettingsReport>('GET', '/v1/clusters/orders/settings')
    const row = (name: string, host: number) => report.nodes[host]?.settings.find(setting => setting.name === name)
    t.match(row('max_connections', 1), { inEffect: '200', wanted: 250, source: 'cluster', pendingRestart: true })
    t.match(row('work_mem', 0), { inEffect: '48MB', wanted: '48MB', source: 'cluster', pendingRestart: false })
    t.match(row('shared_buffers', 1), { inEffect: '512MB', wanted: '512MB', computed: '512MB', source: 'computed' })
    const text = await service.call<string>('GET', '/v1/clusters/orders/settings', {
      headers: { accept: 'text/plain' },
    })
    t.match(text.body, /max_connections +200 +200 → 250 +cluster/)
    const again = succeeded(await bootstrap({ ...cluster, ...(await described()) }))
    t.equal(again.result?.changedSteps, 0, 'and a bootstrap starts nothing again either')
    t.same(await started(), before)
  })

  /** The description as it has become. */
  async function described(): Promise<object> {
    const { body } = await service.call<Cluster>('GET', '/v1/clusters/orders')
    return { settings: body.settings, nodes: [pg1, pg2] }
  }

  await t.test('a rolling restart: the standby first, then the primary', async t => {
    const plan = await service.call<PlanPreview>('PATCH', '/v1/clusters/orders/settings?dryRun=true', {
      body: { restart: 'when-needed' },
    })
    t.match(
      plan.body.steps.filter(({ id }) => id.endsWith('/restart')).map(({ id, verdict }) => [id, verdict]),
      [
        ['pg2/restart', 'would_run'],
        ['pg1/restart', 'would_run'],
      ],
    )
    const operation = succeeded(await patch({ restart: 'when-needed' }))
    t.match(states(operation), { 'pg2/restart': 'changed', 'pg1/restart': 'changed', 'pg2/restart-after': 'unchanged' })
    t.same(await both('max_connections'), ['250', '250'])
    t.same(await both('autovacuum_max_workers'), ['4', '4'])
    const [primary, standby] = await started()
    t.ok(String(standby) < String(primary), 'in this order')
    const nothing = succeeded(await patch({ restart: 'when-needed' }))
    t.equal(nothing.result?.changedSteps, 0, 'a second time nothing')
  })

  await t.test('lowered: the primary first, and the standby follows', async t => {
    const operation = succeeded(await patch({ settings: { max_connections: 120 }, restart: 'when-needed' }))
    t.match(states(operation), { 'pg2/restart': 'unchanged', 'pg1/restart': 'changed', 'pg2/restart-after': 'changed' })
    t.same(await both('max_connections'), ['120', '120'])
    t.equal(await psql(lab, 'pg2', 'SELECT status FROM pg_stat_wal_receiver'), 'streaming')
  })

  await t.test('ALTER SYSTEM in the way is said, and refused where it would defeat the call', async t => {
    await psql(lab, 'pg1', "ALTER SYSTEM SET work_mem = '5MB'")
    const { body, status } = await service.call<Problem>('PATCH', '/v1/clusters/orders/settings', {
      body: { settings: { work_mem: '96MB' } },
    })
    t.equal(status, 422)
    t.match(body.detail, /pg1: work_mem is set again in .*postgresql\.auto\.conf line \d+.*ALTER SYSTEM RESET work_mem/)
    const other = succeeded(await patch({ settings: { log_lock_waits: false } }))
    t.match(noteOf(other, 'pg1/settings'), /work_mem is set again in .*postgresql\.auto\.conf line \d+, which counts/)
    await psql(lab, 'pg1', 'ALTER SYSTEM RESET work_mem')
    succeeded(await patch({ settings: { work_mem: '96MB' } }))
    t.same(await both('work_mem'), ['96MB', '96MB'])
  })

  await t.test('a machine that has grown: the plan shows it, and the next run does it', async t => {
    await memory('pg2', 8188)
    const plan = await service.call<PlanPreview>('PATCH', '/v1/clusters/orders/settings?dryRun=true', { body: {} })
    const step = plan.body.steps.find(({ id }) => id === 'pg2/settings')
    t.equal(step?.verdict, 'would_run')
    t.match(JSON.stringify(step?.actions), /shared_buffers = '2GB'/)
    t.equal(plan.body.steps.find(({ id }) => id === 'pg1/settings')?.verdict, 'already_done')
    succeeded(await patch({ restart: 'when-needed' }))
    t.same(await both('shared_buffers'), ['1GB', '2GB'])
  })
})
