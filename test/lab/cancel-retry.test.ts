import t from 'tap'
import type { Operation, PlanPreview } from '../../src/operations/operation.js'
import { ended, fillDatabase, freezeClone, psql, startLabTest, stepIn } from '../fixtures/lab.js'
import { eventually, startRedis } from '../fixtures/redis.js'

/** Whoever calls an operation off finds nothing of it on the hosts, and whoever retries it loses nothing. */
t.test('operations are cancelled and retried', { timeout: 890_000 }, async t => {
  const redis = await startRedis(t)
  const { lab, node, addHosts, start } = await startLabTest(t, 'cancel')
  const api = await start({ REDIS_URL: redis.url, UNDERSTUDY_ROLES: 'api' })
  const worker = () => start({ REDIS_URL: redis.url, UNDERSTUDY_ROLES: 'worker' })
  const [pg1, pg2] = await addHosts(['pg1', 'pg2'])
  if (!pg1 || !pg2) throw new Error('no hosts')
  const build = { name: 'orders', postgresVersion: 15, nodes: [node(pg1)], bootstrap: true }
  const post = <T = Operation>(path: string, body?: object, headers: Record<string, string> = {}) =>
    api.call<T>('POST', path, { ...(body === undefined ? {} : { body }), headers })
  const end = (id: string) => ended(() => api, id, 600_000)
  const log = async (id: string) => (await api.call<string>('GET', `/v1/operations/${id}/log`)).body

  /** What belongs to an operation and still runs on a host, detached or not, and what it has left of its own. */
  const leftOn = async (host: string) => {
    const running = await lab.exec(host, ['pgrep', '-fa', 'pg_basebackup|apt-get|dpkg|understudy-guard|repmgr'], {
      reject: false,
    })
    const units = await lab.exec(host, ['systemctl', 'list-units', '--no-legend', '--plain', 'understudy-*'])
    const jobs = await lab.exec(host, ['ls', '-A', '/var/lib/understudy/jobs'], { reject: false })
    return [running, units, jobs].map(({ stdout }) => stdout.trim()).filter(text => text !== '')
  }

  let first = ''
  await t.test('the same request twice with one Idempotency-Key is one operation', async t => {
    const key = { 'idempotency-key': '"4f7c1c1e-build-orders"' }
    const answers = await Promise.all([1, 2, 3].map(() => post('/v1/clusters?reference=CHG-1', build, key)))
    t.same(
      answers.map(({ status }) => status),
      [202, 202, 202],
    )
    t.equal(new Set(answers.map(({ body }) => body.id)).size, 1)
    first = answers[0]?.body.id ?? ''
    t.equal((await post('/v1/clusters?reference=CHG-2', build, key)).status, 422, 'another request with it is refused')
    const { body: list } = await api.call<{ items: Operation[] }>('GET', '/v1/operations')
    t.same(
      list.items.map(({ id, reference }) => [id, reference]),
      [[first, 'CHG-1']],
    )
  })

  await t.test('one that waits for a worker is cancelled at once, and can be retried', async t => {
    const { status, body } = await post(`/v1/operations/${first}/cancel?reference=CHG-3`)
    t.equal(status, 200)
    t.match(body, { state: 'cancelled', cancelRequest: { by: 'admin', reference: 'CHG-3' }, turns: 0 })
    t.match(body.error, { code: 'cancelled', outcome: 'not_started' })
    t.equal((await post(`/v1/operations/${first}/cancel`)).status, 409, 'and not again')
    const retried = await post(`/v1/operations/${first}/retry`)
    t.equal(retried.status, 202)
    t.match(retried.body, { id: first, state: 'queued', retries: 1, lastRetry: { by: 'admin' } })
    t.equal((await post(`/v1/operations/${first}/retry`)).status, 409, 'it has not ended')
  })

  let working = await worker()
  await t.test('in the middle of installing packages', async t => {
    await stepIn(() => api, first, 'pg1/packages', ['running'], 300_000)
    await eventually(async () => (await log(first)).includes('pg1/packages | '), 120_000)
    t.equal((await post(`/v1/operations/${first}/cancel`)).status, 202)
    t.equal((await post(`/v1/operations/${first}/cancel`)).status, 202, 'twice is fine')
    const operation = await end(first)
    t.match(operation, { state: 'cancelled', error: { code: 'cancelled', outcome: 'failed_partial' } })
    t.equal(operation.error?.step, 'pg1/packages')
    t.same(await leftOn('pg1'), [], 'nothing of it is left on the host')

    await post(`/v1/operations/${first}/retry`)
    const again = await end(first)
    t.equal(again.state, 'succeeded', JSON.stringify(again.error))
    t.equal(again.turns, 2)
    const refused = await post<{ operation: string; type: string }>(`/v1/operations/${first}/retry`)
    t.equal(refused.status, 409)
    t.match(refused.body, { type: '/problems/not-retryable', operation: `/v1/operations/${first}` })
  })
  await fillDatabase(lab, 'pg1', 300)

  let standby = ''
  const cloning = async () => {
    await freezeClone(lab, 'pg1', 'pg2')
    t.ok((await leftOn('pg2')).length > 0, 'the clone is seen')
  }
  const slots = () => psql(lab, 'pg1', 'SELECT count(*) FROM pg_stat_progress_basebackup')
  const marker = async () =>
    (
      await lab.exec('pg2', [
        'sh',
        '-c',
        'cat /var/lib/understudy/*.json 2>/dev/null || grep -rl cloning /var/lib/understudy',
      ])
    ).stdout

  await t.test('in the middle of a clone', async t => {
    const { body } = await post('/v1/clusters/orders/nodes', node(pg2))
    standby = body.id
    await cloning()
    const begun = performance.now()
    t.equal((await post(`/v1/operations/${standby}/cancel?wait=60`)).status, 200)
    t.comment(`cancelled within ${Math.round(performance.now() - begun)} ms`)
    const operation = await end(standby)
    t.match(operation, {
      state: 'cancelled',
      error: { code: 'cancelled', outcome: 'failed_partial', step: 'pg2/clone', node: 'pg2' },
    })
    t.same(await leftOn('pg2'), [], 'no process, no unit and no file of it is left')
    await eventually(async () => (await slots()) === '0', 60_000)
    t.match(await marker(), /cloning/, 'the half-made copy is marked')
    const { body: blocked } = await post<{ detail: string }>('/v1/clusters/orders/nodes', { ...node(pg2), name: 'pg3' })
    t.match(blocked.detail, /host of pg2/)
  })

  await t.test('interrupted in the middle of a clone, without a worker', async t => {
    t.equal((await post(`/v1/operations/${standby}/retry`)).status, 202)
    await cloning()
    await working.kill()
    t.equal((await post(`/v1/operations/${standby}/cancel`)).status, 202, 'the clone goes on: a worker has to end it')
    t.ok((await leftOn('pg2')).length > 0)
    working = await worker()
    const operation = await end(standby)
    t.match(operation, { state: 'cancelled', turns: 3, error: { outcome: 'failed_partial' } })
    t.equal(operation.steps.find(({ id }) => id === 'pg2/clone')?.state, 'failed', 'no step runs any more')
    t.same(await leftOn('pg2'), [])
    t.match(await log(standby), /end orders-pg2-clone/)
  })

  await t.test('a retry finishes it', async t => {
    await post(`/v1/operations/${standby}/retry?reference=CHG-9`)
    const operation = await end(standby)
    t.equal(operation.state, 'succeeded', JSON.stringify(operation.error))
    t.match(operation, { retries: 2, lastRetry: { by: 'admin', reference: 'CHG-9' } })
    t.equal(await psql(lab, 'pg1', "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"), '1')
    t.same(await leftOn('pg2').then(left => left.filter(text => !text.includes('repmgrd'))), [])
  })

  await t.test('a plan is carried out as it was shown, or not at all', async t => {
    const whole = { ...build, nodes: [node(pg1), node(pg2)] }
    const plan = async () => (await post<PlanPreview>('/v1/clusters?dryRun=true', whole)).body
    const shown = await plan()
    t.equal((await plan()).planId, shown.planId, 'the same plan has the same name')
    t.equal(shown.stepsThatWouldRun, 0)
    const run = await post(`/v1/clusters?planId=${shown.planId}`, whole)
    t.equal(run.status, 202)
    const done = await end(run.body.id)
    t.equal(done.state, 'succeeded', JSON.stringify(done.error))

    const before = (await plan()).planId
    await lab.exec('pg1', ['sh', '-c', 'echo "# by hand" >> /etc/repmgr.conf'])
    const stale = await post(`/v1/clusters?planId=${before}`, whole)
    const refused = await end(stale.body.id)
    t.match(refused, { state: 'failed', error: { code: 'plan-changed', outcome: 'not_started' } })
    t.match(refused.error?.detail, /: pg1\/repmgr-conf now would run \([^;]*different\)\.$/, 'what differs is named')
    t.match((await lab.exec('pg1', ['cat', '/etc/repmgr.conf'])).stdout, /# by hand/, 'nothing was done')
    const changed = await plan()
    t.not(changed.planId, before)
    t.equal(changed.stepsThatWouldRun, 1)
    const mended = await post(`/v1/clusters?planId=${changed.planId}`, whole)
    const last = await end(mended.body.id)
    t.equal(last.state, 'succeeded', JSON.stringify(last.error))
    t.notMatch((await lab.exec('pg1', ['cat', '/etc/repmgr.conf'])).stdout, /# by hand/)
  })
})
