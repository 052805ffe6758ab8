/** The planned exchange of roles: ten in a row under a client that writes, what is refused, and a worker that dies. */
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import type { Operation, PlanPreview } from '../../src/operations/operation.js'
import { ended, psql, stepIn } from '../fixtures/lab.js'
import { eventually } from '../fixtures/redis.js'
import { startSwitchoverTest } from '../fixtures/switchover.js'
import { lostRows, overlaps, startWriter } from '../fixtures/writer.js'

const SWITCHOVERS = 10

t.test('a standby and the primary exchange their roles', { timeout: 890_000 }, async t => {
  const { lab, hosts, description, now, start, call, status, healthy, show, slots } = await startSwitchoverTest(
    t,
    'switchover',
  )

  await t.test('a dry run says what would be done, and to whom', async t => {
    const { status: code, body } = await call<PlanPreview>('?dryRun=true')
    t.equal(code, 200)
    t.match(
      body.steps.find(({ id }) => id === 'cluster/exchange'),
      { title: 'stop pg1 and promote pg2', verdict: 'would_run', reason: 'pg1 is the primary' },
    )
    t.equal((await status()).primary, 'pg1')
    t.equal(await slots('pg2'), '', 'nothing was made')
  })

  await t.test('who cannot take over is refused, with the reason', async t => {
    const refused = async (body: unknown) => (await call('?wait=60', body)).body
    t.match(await refused({ to: 'pg1' }), { status: 409, detail: /pg1 is the primary already/ })
    t.match(await call('', { to: 'pg9' }), { status: 404 })
  })

  await t.test(`${SWITCHOVERS} in a row, under a client that writes`, async t => {
    const writer = await startWriter(
      t,
      lab,
      hosts.map(({ address }) => address),
    )
    await sleep(1000)
    const took: number[] = []
    const begins: number[] = []
    for (let turn = 1; turn <= SWITCHOVERS; turn += 1) {
      const to = ['pg2', 'pg3', 'pg1'][turn % 3] as string
      const before = (await status()).primary
      if (before === to) continue
      const begun = performance.now()
      begins.push(Date.now())
      const { body } = await call('', { to })
      const operation = await ended(() => now.service, body.id)
      took.push(Math.round(performance.now() - begun))
      t.equal(operation.state, 'succeeded', `to ${to}: ${JSON.stringify(operation.error)}`)
      const seen = await healthy(to)
      t.same(
        seen.nodes.map(({ name, role, state, upstream, slot }) => [name, role, state, upstream, slot?.active]),
        hosts.map(({ name }) =>
          name === to ? [name, 'primary', 'running', null, undefined] : [name, 'standby', 'streaming', to, true],
        ),
      )
    }
    const report = await writer.end()
    const { primary } = await status()
    t.ok(report.acknowledged.length > 500, `${report.acknowledged.length} rows were acknowledged`)
    t.same(await lostRows(lab, primary ?? '', report), [], 'none of them is lost')
    t.same(overlaps(report), [], 'no two accepted writes at a time')
    const refused = begins.map((begin, index) => {
      const end = begins[index + 1] ?? Number.POSITIVE_INFINITY
      return Math.max(...report.gaps.filter(({ from }) => from >= begin && from < end).map(({ ms }) => ms))
    })
    t.comment(`took ${took.join(', ')} ms; writes refused for ${refused.join(', ')} ms`)
    t.equal(refused.length, SWITCHOVERS)
    for (const { name } of hosts) {
      const { exitCode, stdout } = await show(name)
      t.equal(exitCode, 0, `repmgr cluster show on ${name}: ${stdout}`)
      t.equal(
        await slots(name),
        name === primary
          ? hosts.flatMap((host, index) => (host.name === primary ? [] : [`repmgr_slot_${index + 1} true`])).join(',')
          : '',
        `no slot is left on ${name}`,
      )
    }
  })

  await t.test('a description that is applied afterwards changes nothing', async t => {
    const { body } = await now.service.call<Operation>('POST', '/v1/clusters?wait=60', {
      body: { ...description, bootstrap: true },
    })
    t.equal(body.result?.changedSteps, 0, JSON.stringify(body.steps?.filter(({ state }) => state === 'changed')))
  })

  await t.test('a transaction that is open for long is named, and nothing is touched', async t => {
    const { primary } = await status()
    const slow = lab.exec(primary ?? '', ['sudo', '-u', 'postgres', 'psql', '-XAtqc', 'BEGIN; SELECT pg_sleep(20)'], {
      reject: false,
    })
    await sleep(1500)
    const { body } = await call('?wait=60', { maxTransactionAgeMs: 500 })
    t.match(body.detail, /A transaction of postgres \(psql, process \d+\) on pg\d has been open for \d+ s/)
    t.equal((await status()).primary, primary)
    await psql(
      lab,
      primary ?? '',
      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(20)%' AND pid <> pg_backend_pid()",
    )
    await slow
  })

  await t.test('a worker killed right after the stop: the next one finishes it', async t => {
    const { primary } = await status()
    const { body } = await call('')
    await stepIn(() => now.service, body.id, 'cluster/exchange', ['running', 'changed'])
    await now.service.kill()
    now.service = await start()
    const operation = await ended(() => now.service, body.id, 120_000)
    t.equal(operation.state, 'succeeded', JSON.stringify(operation.error))
    const seen = await eventually(async () => {
      const found = await status()
      return found.diagnosis.code === 'healthy' ? found : undefined
    }, 60_000)
    t.not(seen.primary, primary)
    t.equal(seen.nodes.filter(({ role }) => role === 'primary').length, 1)
  })
})
