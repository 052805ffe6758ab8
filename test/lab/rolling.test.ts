/** From node to node, under a client that writes: a restart of the whole cluster, settings, an upgrade; and workers that die. */
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { goldenTree } from '../../lab/lab.js'
import type { Problem } from '../../src/api/problems.js'
import type { Cluster } from '../../src/cluster/model.js'
import type { ClusterStatus } from '../../src/cluster/status.js'
import type { Operation, PlanPreview } from '../../src/operations/operation.js'
import { ended, psql, startLabTest, stepIn } from '../fixtures/lab.js'
import { startPackageMirror } from '../fixtures/package-mirror.js'
import { eventually } from '../fixtures/redis.js'
import { lostRows, overlaps, prepareWriter, startWriter, writerAccess } from '../fixtures/writer.js'

t.test('from node to node', { timeout: 880_000 }, async t => {
  const { lab, node, addHosts, start } = await startLabTest(t, 'rolling', { suite: 'trixie', postgres: true })
  const hosts = await addHosts(['pg1', 'pg2', 'pg3'])
  const names = hosts.map(({ name }) => name)
  let service = await start()
  const description = {
    name: 'orders',
    postgresVersion: 17,
    nodes: hosts.map(node),
    access: writerAccess(lab),
    bootstrap: true,
  }
  const call = <T = Operation & Problem>(path: string, body: unknown = {}, method = 'POST') =>
    service.call<T>(method, `/v1/clusters/orders/${path}`, { body })
  const done = async (id: string) => {
    const operation = await ended(() => service, id, 400_000)
    t.equal(operation.state, 'succeeded', JSON.stringify(operation.error))
    return operation
  }
  const healthy = (primary: string) =>
    eventually(async () => {
      const { body } = await service.call<ClusterStatus>('GET', '/v1/clusters/orders/status')
      return body.diagnosis.code === 'healthy' && body.primary === primary ? body : undefined
    }, 60_000)
  const started = () =>
    Promise.all(names.map(host => psql(lab, host, 'SELECT extract(epoch FROM pg_postmaster_start_time())')))
  const timeline = async (primary: string) =>
    Number.parseInt((await psql(lab, primary, 'SELECT pg_walfile_name(pg_current_wal_lsn())')).slice(0, 8), 16)
  const sh = async (host: string, script: string) =>
    (await lab.exec(host, ['sh', '-c', script], { reject: false })).stdout.trim()
  const states = ({ steps }: Operation) => Object.fromEntries(steps.map(({ id, state }) => [id, state]))
  const writing = () =>
    startWriter(
      t,
      lab,
      hosts.map(({ address }) => address),
    )
  /** What a client has seen: nothing lost, and nobody beside the primary. */
  const undisturbed = async (t: Test, writer: Awaited<ReturnType<typeof writing>>, primary: string) => {
    const report = await writer.end()
    t.ok(report.acknowledged.length > 100, `${report.acknowledged.length} rows were acknowledged`)
    t.same(await lostRows(lab, primary, report), [], 'none of them is lost')
    t.same(overlaps(report), [], 'no two accepted writes at a time')
    const gaps = report.gaps.map(({ ms }) => ms)
    t.comment(`writes refused for ${gaps.join(', ')} ms`)
    await psql(lab, primary, 'TRUNCATE written')
  }

  const { body: built } = await service.call<Operation>('POST', '/v1/clusters', { body: description })
  await done(built.id)
  await prepareWriter(lab, 'pg1')

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
    await stepIn(() => service, body.id, 'pg3/restart', ['running', 'changed'])
    await service.kill()
    service = await start()
    await stepIn(() => service, body.id, 'cluster/exchange', ['running', 'changed'])
    await service.kill()
    service = await start()
    await stepIn(() => service, body.id, 'cluster/exchange-back', ['running', 'changed'])
    await service.kill()
    service = await start()
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
    const { body: cluster } = await service.call<{ handover?: unknown }>('GET', '/v1/clusters/orders')
    t.equal(cluster.handover, undefined, 'nothing is left in the record')
  })

  const installed = (host: string) => sh(host, 'dpkg-query -W postgresql-17 | cut -f2')
  const newer = '17.99-0+lab1'

  await t.test('an upgrade: a node that fails stops it with the primary as it was, and a retry goes on', async t => {
    const mirror = await startPackageMirror(t, lab, {
      from: join(goldenTree('trixie'), 'srv/debian'),
      suite: 'trixie-pgdg',
      packages: {
        'postgresql-17': newer,
        'postgresql-client-17': newer,
        'postgresql-17-repmgr': undefined,
        'repmgr-common': undefined,
      },
    })
    const packages = { source: 'mirror', mirror: { uri: mirror.uri, signingKey: mirror.signingKey }, hold: true }
    const settings = { max_connections: 250, work_mem: '48MB' }
    const { bootstrap: _bootstrap, ...described } = { ...description, settings, packages }
    await done((await service.call<Operation>('PUT', '/v1/clusters/orders', { body: described })).body.id)
    const older = await installed('pg1')

    t.match(await call('upgrade', { version: '16.3-1' }), {
      status: 422,
      body: { detail: /no version of PostgreSQL 17/ },
    })
    const { body: plan } = await call<PlanPreview>('upgrade?dryRun=true')
    for (const name of ['pg2', 'pg3'])
      t.match(
        plan.steps.find(({ id }) => id === `${name}/upgrade`)?.reason,
        `postgresql-17 is ${older} and becomes ${newer}`,
      )
    t.equal(await installed('pg2'), older)

    const before = await started()
    const starts = () =>
      Promise.all(
        names.map(host => sh(host, 'grep -c "starting PostgreSQL" /var/log/postgresql/postgresql-17-main.log')),
      )
    const startsBefore = await starts()
    await sh('pg1', "printf '#!/bin/sh\\nexit 0\\n' >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d")
    await sh('pg3', "echo 'pre-invoke=false' >/etc/dpkg/dpkg.cfg.d/broken")
    const writer = await writing()
    await sleep(1000)
    const { body } = await call('upgrade')
    const failed = await ended(() => service, body.id, 400_000)
    t.match(failed.error, { step: 'pg3/upgrade', remedy: /the primary, were not touched.*retry the operation/s })
    t.same(await Promise.all(names.map(installed)), [older, newer, older])
    t.same(
      (await started()).map((time, index) => time === before[index]),
      [true, false, true],
    )
    await healthy('pg1')
    t.match(await sh('pg3', 'ls /usr/sbin/policy-rc.d* /run/understudy-upgrade 2>/dev/null'), /^$/, 'nothing is left')

    await sh('pg3', 'rm /etc/dpkg/dpkg.cfg.d/broken')
    await service.call('POST', `/v1/operations/${body.id}/retry`)
    const operation = await done(body.id)
    t.equal(states(operation)['pg2/restart'], 'changed')
    await healthy('pg2')
    t.same(await Promise.all(names.map(installed)), [newer, newer, newer])
    t.same(
      (await starts()).map((count, index) => Number(count) - Number(startsBefore[index])),
      [1, 1, 1],
      'each server was started once: by nobody but the service',
    )
    for (const name of names) {
      t.match(
        await sh(name, 'cat /var/log/apt/term.log'),
        /policy-rc\.d (?:denied|returned 101)/,
        `the package of ${name} wanted to`,
      )
      t.match(await sh(name, 'apt-mark showhold'), /^postgresql-17$/m, 'held as before')
    }
    t.equal(await sh('pg1', 'cat /usr/sbin/policy-rc.d'), '#!/bin/sh\nexit 0', 'what an owner has there is back')
    await undisturbed(t, writer, 'pg2')
    const { body: cluster } = await service.call<Cluster>('GET', '/v1/clusters/orders')
    t.same(
      cluster.nodes.map(({ installed }) => installed?.['postgresql-17']),
      [newer, newer, newer],
    )
    t.equal(cluster.handover, undefined)
    const again = await done((await call('upgrade')).body.id)
    t.equal(again.result?.changedSteps, 0, 'a second time nothing')
  })
})
