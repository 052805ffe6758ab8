/** From node to node, under a client that writes: a restart of the whole cluster, settings; and workers that die. */
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import type { PlanPreview } from '../../src/operations/operation.js'
import { psql, stepIn } from '../fixtures/lab.js'
import { startRollingTest } from '../fixtures/rolling.js'
import { lostRows, overlaps } from '../fixtures/writer.js'

t.test('from node to node', { timeout: 880_000 }, async t => {
  const { lab, names, now, start, call, done, healthy, started, timeline, states, writing, undisturbed } =
    await startRollingTest(t, 'rolling')

  await t.test('a dry run says what would be restarted, and in which order', async t => {
    const before = await started()
    const { status, body } = await call<PlanPreview>('restart?dryRun=true')
    t.equal(status, 200, JSON.stringify(body))
    t.same(
      body.steps.filter(({ id }) => /restart$|turn$|exchange$/.test(id)).map(({ id, verdict }) => [id, verdict]),
      [
        ['pg2/restart', 'would_run'],
        ['pg3/restart', 'would_run'],
        ['cluster/turn', 'would_run'],
        ['cluster/exchange', 'would_run'],
      ],
    )
    t.same(await started(), before)
  })

  await t.test('every server is started again, standbys first, and a standby is the primary then', async t => {
    const before = await started()
    const writer = await writing()
    await sleep(1000)
    const operation = await done((await call('restart')).body.id)
    await healthy('pg2')
    const [pg1 = '', pg2 = '', pg3 = ''] = await started()
    t.same(
      [pg1, pg2, pg3].filter((time, index) => time === before[index]),
      [],
      'each was started again',
    )
    t.ok(Number(pg2) < Number(pg3) && Number(pg3) < Number(pg1), 'in this order')
    t.equal(states(operation)['cluster/proof'], 'verified')
    await undisturbed(t, writer, 'pg2')
  })

  await t.test('where no setting waits for a restart, none is restarted and no role is exchanged', async t => {
    const before = await started()
    const operation = await done((await call('restart', { onlyPending: true })).body.id)
    t.equal(operation.result?.changedSteps, 0)
    t.match(
      operation.steps.find(({ id }) => id === 'cluster/exchange'),
      { state: 'unchanged', note: 'pg2 needs no turn: no setting waits for a restart' },
    )
    t.same(await started(), before)
    await healthy('pg2')
  })

  await t.test('settings: what is raised is so on every standby before one of them takes over', async t => {
    const before = await started()
    const writer = await writing()
    await sleep(1000)
    const change = { settings: { max_connections: 250 }, restart: 'rolling' }
    const operation = await done((await call('settings', change, 'PATCH')).body.id)
    t.equal(states(operation)['cluster/exchange'], 'changed')
    await healthy('pg1')
    t.same(await Promise.all(names.map(host => psql(lab, host, 'SHOW max_connections'))), ['250', '250', '250'])
    t.same(
      (await started()).filter((time, index) => time === before[index]),
      [],
    )
    await undisturbed(t, writer, 'pg1')
    const again = await done((await call('settings', change, 'PATCH')).body.id)
    t.equal(again.result?.changedSteps, 0, 'a second time nothing')
  })

  await t.test('settings that a reload changes: nobody is restarted', async t => {
    const before = await started()
    const change = { settings: { work_mem: '48MB' }, restart: 'rolling' }
    const operation = await done((await call('settings', change, 'PATCH')).body.id)
    t.equal(states(operation)['cluster/exchange'], 'unchanged')
    t.same(await Promise.all(names.map(host => psql(lab, host, 'SHOW work_mem'))), ['48MB', '48MB', '48MB'])
    t.same(await started(), before)
  })

  await t.test(
    'settings: what is lowered has to begin with the primary, which is said before anything is done',
    async t => {
      const { body } = await call(
        'settings?wait=60',
        { settings: { max_connections: 200 }, restart: 'rolling' },
        'PATCH',
      )
      t.match(body, { status: 409, detail: /less of max_connections.*pg1 has to be restarted/ })
      t.same(await Promise.all(names.map(host => psql(lab, host, 'SHOW max_connections'))), ['250', '250', '250'])
    },
  )

  await t.test('a worker killed at a standby, and the next one in the exchange: once there and once back', async t => {
    const before = await started()
    const first = await timeline('pg1')
    const writer = await writing()
    await sleep(1000)
    const { body } = await call('restart', { switchBack: true })
    await stepIn(() => now.service, body.id, 'pg3/restart', ['running', 'changed'])
    await now.service.kill()
    now.service = await start()
    await stepIn(() => now.service, body.id, 'cluster/exchange', ['running', 'changed'])
    await now.service.kill()
    now.service = await start()
    await stepIn(() => now.service, body.id, 'cluster/exchange-back', ['running', 'changed'])
    await now.service.kill()
    now.service = await start()
    const operation = await done(body.id)
    await healthy('pg1')
    t.ok(operation.turns >= 4, `${operation.turns} workers`)
    t.equal(await timeline('pg1'), first + 2, 'the roles were exchanged exactly twice')
    t.same(
      (await started()).filter((time, index) => time === before[index]),
      [],
      'each was started again',
    )
    const report = await writer.end()
    t.same(await lostRows(lab, 'pg1', report), [])
    t.same(overlaps(report), [])
    const { body: cluster } = await now.service.call<{ handover?: unknown }>('GET', '/v1/clusters/orders')
    t.equal(cluster.handover, undefined, 'nothing is left in the record')
  })
})
