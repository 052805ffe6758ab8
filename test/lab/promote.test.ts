/** Manual failover on real hosts, under a client that writes, with a second look at who accepts writes. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import type { Cluster } from '../../src/cluster/model.js'
import type { PlanPreview } from '../../src/operations/operation.js'
import { ended, psql } from '../fixtures/lab.js'
import { startPromoteTest } from '../fixtures/promote.js'
import { eventually } from '../fixtures/redis.js'
import { startWriter } from '../fixtures/writer.js'

const UNIT = 'postgresql@15-main'

t.test('a standby takes the place of a primary that is lost', { timeout: 880_000 }, async t => {
  const {
    lab,
    hosts,
    addresses,
    stateDirectory,
    now,
    start,
    call,
    status,
    healthy,
    decisionOf,
    whoIsWho,
    rejoin,
    isWhole,
    isSafe,
  } = await startPromoteTest(t, 'promote')

  await t.test('refused while the primary lives', async t => {
    const { status: code, body } = await call()
    t.match(
      [code, body.type, body.detail],
      [409, '/problems/primary-alive', /pg1 lives: It answers, and accepts writes/],
    )
    t.match(await call('?dryRun=true'), { status: 409, body: { type: '/problems/primary-alive' } })
    t.match(await call('', { to: 'pg9' }), { status: 404 })
    const forced = await call('', { force: true })
    t.match(forced.body, {
      type: '/problems/confirmation-required',
      detail: /pg1 lives: it is stopped.*confirm set to "orders"/s,
    })
    t.match(await call('', { force: true, confirm: 'pg1' }), { status: 409 })
    await healthy('pg1')
  })

  await t.test('kill -9 of the primary’s postmaster, and three clients at once', async t => {
    const { old } = await whoIsWho()
    const writer = await startWriter(t, lab, addresses)
    await sleep(1000)
    await lab.signal(old, 'postgres', 'SIGKILL')
    const answers = await Promise.all([call(), call(), call()])
    const accepted = answers.filter(answer => answer.status === 202)
    t.equal(
      accepted.length,
      1,
      `one operation: ${JSON.stringify(answers.map(answer => [answer.status, answer.body.detail]))}`,
    )
    for (const answer of answers)
      if (answer.status !== 202) t.match(answer, { status: 409, body: { operation: /op_/ } })
    const operation = await ended(() => now.service, accepted[0]?.body.id ?? '')
    t.equal(operation.state, 'succeeded', JSON.stringify(operation.error))
    const decision = decisionOf(operation)
    t.match(decision, {
      replaced: [old],
      votes: { needed: 2, of: 3, missing: [] },
      fencing: [{ node: old, method: 'ssh', detail: /standby\.signal is on its disk/ }],
      risks: [],
      loss: { commits: Number },
    })
    t.comment(JSON.stringify(decision.times))
    const primary = decision.chosen ?? ''
    await isSafe(t, writer, primary, decision)
    const { body: cluster } = await now.service.call<Cluster>('GET', '/v1/clusters/orders')
    t.match(cluster.promotion, {
      state: 'promoted',
      to: primary,
      replaced: [old],
      unfenced: [],
      timeline: 2,
      switchLsn: /^0\//,
    })
    t.match(await lab.exec(old, ['ls', '/var/lib/postgresql/15/main/standby.signal']), { exitCode: 0 })
    await rejoin(t, old)
    await isWhole(t, primary)
  })

  await t.test('two standbys at different positions: the one that has more, and never less without a word', async t => {
    const { old, standbys } = await whoIsWho()
    const [ahead = '', behind = ''] = standbys
    await lab.block(behind, { from: old, to: old })
    await psql(lab, old, 'INSERT INTO written SELECT -i FROM generate_series(1, 2000) i')
    await psql(lab, old, 'SELECT pg_switch_wal()')
    await lab.signal(old, 'postgres', 'SIGKILL')
    const less = await call('', { to: behind, maxLossBytes: 0 })
    t.match(less.body, {
      status: 409,
      detail: new RegExp(`${ahead} has \\d+ bytes of WAL that ${behind} does not have`),
    })
    const { body: plan } = await call<PlanPreview>('?dryRun=true')
    t.equal(plan.steps.find(({ id }) => id === 'cluster/promotion')?.verdict, 'would_run')
    const { body } = await call('?wait=60')
    const operation = await ended(() => now.service, body.id)
    t.equal(operation.state, 'succeeded', JSON.stringify(operation.error))
    t.equal(decisionOf(operation).chosen, ahead)
    t.equal(await psql(lab, ahead, 'SELECT count(*) FROM written WHERE id < 0'), '2000')
    await lab.unblock(behind)
    await rejoin(t, old)
    await isWhole(t, ahead)
  })

  await t.test('power-off: refused without a proof, done with a fence hook', async t => {
    const { old, standbys } = await whoIsWho()
    const writer = await startWriter(t, lab, addresses)
    await sleep(1000)
    await lab.powerOff(old)
    const { body: refused } = await call()
    t.match(refused, {
      status: 409,
      type: '/problems/promotion-unsafe',
      detail: new RegExp(`${old} cannot be fenced: .*no fence hook is set.*`),
    })
    const { body: risky } = await call('', { force: true })
    t.match(risky, {
      type: '/problems/confirmation-required',
      detail: /may still run and accept writes: two primaries/,
    })
    for (const name of standbys)
      t.equal(await psql(lab, name, 'SELECT count(*) FROM pg_file_settings WHERE name = $$understudy.vote$$'), '0')

    // The power switch: it checks whom it is asked to cut off.
    const hook = join(stateDirectory, 'power-switch')
    await writeFile(
      hook,
      `#!/bin/sh\n[ "$1 $2 $3" = "orders ${old} ${hosts.find(({ name }) => name === old)?.address}" ] || exit 1\necho "outlet 7 is off"\n`,
      { mode: 0o755 },
    )
    await now.service.stop()
    now.service = await start({ UNDERSTUDY_FENCE_COMMAND: hook })
    const { body } = await call('?wait=60')
    const operation = await ended(() => now.service, body.id)
    t.equal(operation.state, 'succeeded', JSON.stringify(operation.error))
    const decision = decisionOf(operation)
    t.match(decision.fencing, [{ node: old, method: 'hook', detail: 'The fence hook answered: outlet 7 is off' }])
    const primary = decision.chosen ?? ''
    await isSafe(t, writer, primary, decision)

    // Somebody switches it on again, and starts its server by hand: it is found, and a rejoin stops it.
    await lab.powerOn(old)
    await lab.exec(old, ['systemctl', 'start', UNIT], { reject: false })
    await eventually(async () => (await status()).diagnosis.code === 'two_primaries', 60_000)
    t.match(await now.service.call('POST', `/v1/clusters/orders/nodes/${old}/rejoin?wait=60`, { body: {} }), {
      status: 409,
    })
    await rejoin(t, old)
    await isWhole(t, primary)
  })
})
