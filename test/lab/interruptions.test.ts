import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import type { LabService } from '../../lab/service.js'
import type { ClusterStatus } from '../../src/cluster/status.js'
import type { Operation } from '../../src/operations/operation.js'
import { ended, fillDatabase, freezeClone, psql, startLabTest, stepIn, thawClone } from '../fixtures/lab.js'
import { eventually, startRedis } from '../fixtures/redis.js'

/** Whatever goes away in the middle of an operation, it comes to its end once, or says what is left. */
t.test('what is interrupted is taken up again', { timeout: 900_000 }, async t => {
  const redis = await startRedis(t)
  const { lab, node, addHosts, start } = await startLabTest(t, 'interrupt', { postgres: true })
  const api = await start({ REDIS_URL: redis.url, UNDERSTUDY_ROLES: 'api' })
  const worker = () => start({ REDIS_URL: redis.url, UNDERSTUDY_ROLES: 'worker' })
  let working: LabService = await worker()

  const [pg1] = await addHosts(['pg1'])
  if (!pg1) throw new Error('no host')
  const { body: built } = await api.call<Operation>('POST', '/v1/clusters', {
    body: { name: 'orders', postgresVersion: 15, nodes: [node(pg1)], bootstrap: true },
  })
  t.equal((await ended(() => api, built.id)).state, 'succeeded')
  await fillDatabase(lab, 'pg1', 400)

  /** Begins to add a standby, and stops its clone in the middle. */
  const cloning = async (name: string, options = {}) => {
    const [host] = await addHosts([name], options)
    if (!host) throw new Error('no host')
    const { status, body } = await api.call<Operation>('POST', '/v1/clusters/orders/nodes', { body: node(host) })
    if (status !== 202) throw new Error(JSON.stringify(body))
    await freezeClone(lab, 'pg1', name)
    return { host, id: body.id }
  }
  const streams = async (name: string) =>
    (await api.call<ClusterStatus>('GET', '/v1/clusters/orders/status')).body.nodes.find(row => row.name === name)
      ?.state
  const log = async (id: string) => (await api.call<string>('GET', `/v1/operations/${id}/log`)).body

  await t.test(
    'the worker is killed in the middle of a clone: the next one finds it and waits for its end',
    async t => {
      await psql(lab, 'pg1', 'ALTER SYSTEM SET log_replication_commands = on')
      await psql(lab, 'pg1', 'SELECT pg_reload_conf()')
      const { id } = await cloning('pg2')
      const copies = async () =>
        (await lab.exec('pg2', ['pgrep', '-f', 'bin/pg_basebackup'], { reject: false })).stdout.trim()
      const before = await copies()
      await working.kill()
      working = await worker()
      await eventually(async () => (await log(id)).includes('is on the host already (running)'), 60_000)
      t.match(before, /^\d/)
      t.equal(await copies(), before, 'the same processes, and no second copy beside them')
      const { body: now } = await api.call<Operation>('GET', `/v1/operations/${id}`)
      t.equal(now.turns, 2)
      await thawClone(lab, 'pg2')
      const operation = await ended(() => api, id)
      t.equal(operation.state, 'succeeded', JSON.stringify(operation.error))
      const asked = [
        'grep',
        '-c',
        'received replication command: BASE_BACKUP',
        '/var/log/postgresql/postgresql-15-main.log',
      ]
      t.equal((await lab.exec('pg1', asked)).stdout.trim(), '1', 'the primary was asked for one copy')
      t.ok(
        (operation.steps.find(step => step.id === 'pg2/clone')?.progress?.doneBytes ?? 0) > 0,
        'its progress was seen',
      )
      t.equal(await streams('pg2'), 'streaming')
      t.equal((await lab.exec('pg2', ['ls', '-A', '/var/lib/understudy/jobs'])).stdout.trim(), '')
    },
  )

  await t.test(
    'the worker is stopped in the middle of a clone: it lets go at once, and the next one goes on',
    async t => {
      const { id } = await cloning('pg3')
      const begun = performance.now()
      await working.stop()
      t.ok(performance.now() - begun < 15_000, 'a stop does not wait for the clone')
      const { body: left } = await api.call<Operation>('GET', `/v1/operations/${id}`)
      t.equal(left.state, 'interrupted')
      await thawClone(lab, 'pg3')
      working = await worker()
      const operation = await ended(() => api, id)
      t.equal(operation.state, 'succeeded', JSON.stringify(operation.error))
      t.equal(await streams('pg3'), 'streaming')
    },
  )

  await t.test('Redis is killed for a while: the operation waits for it and goes on', async t => {
    const { id } = await cloning('pg4')
    await redis.kill()
    const away = await api.call('GET', '/v1/clusters')
    t.equal(away.status, 503, 'whoever asks is told')
    await thawClone(lab, 'pg4')
    // Longer than a lease, and long enough for the clone to end meanwhile.
    await sleep(12_000)
    await redis.start()
    const operation = await ended(() => api, id)
    t.equal(operation.state, 'succeeded', JSON.stringify(operation.error))
    t.equal(operation.turns, 1, 'by the same worker')
    t.equal(await streams('pg4'), 'streaming')
  })

  await t.test('the disk fills up during a clone', async t => {
    const { host, id } = await cloning('pg5', { postgresDiskBytes: 1100 * 1024 * 1024 })
    await lab.fill('pg5', '/var/lib/postgresql', 4 * 1024 * 1024)
    await thawClone(lab, 'pg5')
    const operation = await ended(() => api, id)
    t.equal(operation.state, 'failed')
    t.equal(operation.error?.code, 'disk-full')
    t.equal(operation.error?.outcome, 'failed_partial')
    t.match(operation.error?.remedy, /Free space on pg5/)
    t.match(operation.error?.output, /No space left on device/)
    t.equal(await streams('pg2'), 'streaming', 'the others were not touched')

    await t.test('with room again, the same call goes on from there', async t => {
      await lab.unfill('pg5', '/var/lib/postgresql')
      const { status, body } = await api.call<Operation>('POST', '/v1/clusters/orders/nodes', { body: node(host) })
      t.equal(status, 202)
      const again = await ended(() => api, body.id)
      t.equal(again.state, 'succeeded', JSON.stringify(again.error))
      t.equal(again.steps.find(step => step.id === 'pg5/packages')?.state, 'unchanged', 'what was done stays done')
      t.equal(await streams('pg5'), 'streaming')
    })
  })

  await t.test('a disk that is too small is found out before the clone', async t => {
    const [host] = await addHosts(['pg6'], { postgresDiskBytes: 160 * 1024 * 1024 })
    if (!host) throw new Error('no host')
    const { body } = await api.call<Operation>('POST', '/v1/clusters/orders/nodes', { body: node(host) })
    const operation = await ended(() => api, body.id)
    t.equal(operation.error?.code, 'disk-full')
    t.match(operation.error?.detail, /a clone needs/)
  })

  await t.test('the host is powered off in the middle of a clone, and comes back', async t => {
    const { host, id } = await cloning('pg7')
    await lab.powerOff('pg7')
    await lab.powerOn('pg7')
    const operation = await ended(() => api, id)
    // Whether the worker noticed before the host was back is a matter of moments; what was left must be sound either way.
    if (operation.state === 'failed') {
      t.match(operation.error?.outcome, /unknown|failed_partial/)
      const { body } = await api.call<Operation>('POST', '/v1/clusters/orders/nodes', { body: node(host) })
      t.equal((await ended(() => api, body.id)).state, 'succeeded')
    } else {
      t.equal(operation.state, 'succeeded')
    }
    t.equal(await streams('pg7'), 'streaming')
  })

  t.equal(await psql(lab, 'pg1', "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"), '5')
})

t.test('the whole service is killed, with its embedded Redis left behind', { timeout: 300_000 }, async t => {
  const { lab, node, addHosts, start } = await startLabTest(t, 'embedded', { postgres: true })
  const [pg1] = await addHosts(['pg1'])
  if (!pg1) throw new Error('no host')
  let service = await start()
  const { body } = await service.call<Operation>('POST', '/v1/clusters', {
    body: { name: 'orders', postgresVersion: 15, nodes: [node(pg1)], bootstrap: true },
  })
  await stepIn(() => service, body.id, 'pg1/packages', ['running'])
  await service.kill()
  service = await start()
  const operation = await ended(() => service, body.id)
  t.equal(operation.state, 'succeeded', JSON.stringify(operation.error))
  t.equal(operation.turns, 2)
  t.equal(await psql(lab, 'pg1', 'SELECT 1'), '1')
})
