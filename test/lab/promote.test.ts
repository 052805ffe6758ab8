/** Manual failover on real hosts: whatever takes the primary away, a client that writes, and a second look at who accepts writes. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import type { Problem } from '../../src/api/problems.js'
import type { Cluster } from '../../src/cluster/model.js'
import type { ClusterStatus } from '../../src/cluster/status.js'
import type { Decision } from '../../src/operations/decision.js'
import type { Operation, PlanPreview } from '../../src/operations/operation.js'
import type { AuditEvent } from '../../src/store/event.js'
import { ended, psql, startLabTest, stepIn } from '../fixtures/lab.js'
import { eventually } from '../fixtures/redis.js'
import { lostRows, overlaps, prepareWriter, startWriter, type Writer, writerAccess } from '../fixtures/writer.js'

const UNIT = 'postgresql@15-main'

t.test('a standby takes the place of a primary that is lost', { timeout: 880_000 }, async t => {
  const { lab, node, addHosts, start, stateDirectory } = await startLabTest(t, 'promote', { postgres: true })
  const hosts = await addHosts(['pg1', 'pg2', 'pg3'])
  const addresses = hosts.map(({ address }) => address)
  let service = await start()
  const call = <T = Operation & Problem>(query = '', body: unknown = {}) =>
    service.call<T>('POST', `/v1/clusters/orders/promote${query}`, { body })
  const status = async () => (await service.call<ClusterStatus>('GET', '/v1/clusters/orders/status')).body
  const healthy = (primary: string) =>
    eventually(async () => {
      const now = await status()
      return now.diagnosis.code === 'healthy' && now.primary === primary ? now : undefined
    }, 60_000)
  const show = (host: string) =>
    lab.exec(
      host,
      ['sudo', '-u', 'postgres', '/usr/lib/postgresql/15/bin/repmgr', '-f', '/etc/repmgr.conf', 'cluster', 'show'],
      { reject: false },
    )
  const decisionOf = ({ steps }: Operation) =>
    steps.find(({ id }) => id === 'cluster/promotion')?.decision ?? ({} as Partial<Decision>)
  const whoIsWho = async () => {
    const { primary, nodes } = await status()
    const old = primary ?? ''
    return { old, standbys: nodes.filter(({ role }) => role === 'standby').map(({ name }) => name) }
  }
  const rejoin = async (t: Test, name: string) => {
    const { body } = await service.call<Operation>('POST', `/v1/clusters/orders/nodes/${name}/rejoin`, {
      body: { confirm: name },
    })
    const operation = await ended(() => service, body.id)
    t.equal(operation.state, 'succeeded', `rejoin of ${name}: ${JSON.stringify(operation.error)}`)
  }
  /** The one that was promoted leads, every one of the others follows it, and repmgr says so on each host. */
  const isWhole = async (t: Test, primary: string) => {
    const now = await healthy(primary)
    t.same(
      now.nodes.map(({ name, role, upstream }) => [name, role, upstream]),
      hosts.map(({ name }) => (name === primary ? [name, 'primary', null] : [name, 'standby', primary])),
    )
    for (const { name } of hosts) {
      const { exitCode, stdout } = await show(name)
      t.equal(exitCode, 0, `repmgr cluster show on ${name}: ${stdout}`)
      const left =
        "SELECT count(*) FROM pg_file_settings WHERE name = 'understudy.vote' OR (name = 'wal_receiver_timeout' AND setting = '1ms')"
      t.equal(await psql(lab, name, left), '0', `nothing of the vote is left on ${name}`)
    }
  }
  /** Two never write at a time, and what is lost is no more than what was measured on the old primary’s disk. */
  const isSafe = async (t: Test, writer: Writer, primary: string, { loss }: Partial<Decision>) => {
    const report = await writer.end()
    t.same(overlaps(report), [], 'no two accepted writes at a time')
    const lost = await lostRows(lab, primary, report)
    t.ok(lost.length <= (loss?.commits ?? Number.POSITIVE_INFINITY), `${lost.length} rows are lost: ${loss?.detail}`)
    t.comment(`writes refused for ${report.gaps.map(({ ms }) => ms).join(', ')} ms; ${lost.length} rows lost`)
    return report
  }

  const { body: built } = await service.call<Operation>('POST', '/v1/clusters?wait=60', {
    body: { name: 'orders', postgresVersion: 15, nodes: hosts.map(node), access: writerAccess(lab), bootstrap: true },
  })
  t.equal((await ended(() => service, built.id)).state, 'succeeded')
  await prepareWriter(lab, 'pg1')

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
    const operation = await ended(() => service, accepted[0]?.body.id ?? '')
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
    const { body: cluster } = await service.call<Cluster>('GET', '/v1/clusters/orders')
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
    const operation = await ended(() => service, body.id)
    t.equal(operation.state, 'succeeded', JSON.stringify(operation.error))
    t.equal(decisionOf(operation).chosen, ahead)
    t.equal(await psql(lab, ahead, 'SELECT count(*) FROM written WHERE id < 0'), '2000')
    await lab.unblock(behind)
    await rejoin(t, old)
    await isWhole(t, ahead)
  })

  await t.test('a hung primary, and a standby that is down', async t => {
    const { old, standbys } = await whoIsWho()
    const [left = '', down = ''] = standbys
    await lab.powerOff(down)
    const writer = await startWriter(t, lab, addresses)
    await sleep(1000)
    await lab.signal(old, 'postgres', 'SIGSTOP')
    const { body } = await call('?wait=60')
    const operation = await ended(() => service, body.id)
    t.equal(operation.state, 'succeeded', JSON.stringify(operation.error))
    t.match(decisionOf(operation), {
      chosen: left,
      votes: { needed: 2, of: 3, given: [{}, {}], missing: [{ who: down }] },
      fencing: [{ node: old, method: 'ssh' }],
    })
    await isSafe(t, writer, left, decisionOf(operation))
    await lab.powerOn(down)
    await rejoin(t, down)
    await rejoin(t, old)
    await isWhole(t, left)
  })

  await t.test('cut off from here and not from its standbys: it lives', async t => {
    const { old } = await whoIsWho()
    await lab.block(old, { from: 'gateway', to: 'gateway' })
    const { body } = await call()
    t.match(body, { status: 409, type: '/problems/primary-alive', detail: /Seen from pg\d, it accepts connections/ })
    await lab.unblock(old)
    await healthy(old)
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
    await service.stop()
    service = await start({ UNDERSTUDY_FENCE_COMMAND: hook })
    const { body } = await call('?wait=60')
    const operation = await ended(() => service, body.id)
    t.equal(operation.state, 'succeeded', JSON.stringify(operation.error))
    const decision = decisionOf(operation)
    t.match(decision.fencing, [{ node: old, method: 'hook', detail: 'The fence hook answered: outlet 7 is off' }])
    const primary = decision.chosen ?? ''
    await isSafe(t, writer, primary, decision)

    // Somebody switches it on again, and starts its server by hand: it is found, and a rejoin stops it.
    await lab.powerOn(old)
    await lab.exec(old, ['systemctl', 'start', UNIT], { reject: false })
    await eventually(async () => (await status()).diagnosis.code === 'two_primaries', 60_000)
    t.match(await service.call('POST', `/v1/clusters/orders/nodes/${old}/rejoin?wait=60`, { body: {} }), {
      status: 409,
    })
    await rejoin(t, old)
    await isWhole(t, primary)
  })

  await t.test('by force, although the primary lives: it is stopped, and the audit trail says so', async t => {
    const { old } = await whoIsWho()
    const writer = await startWriter(t, lab, addresses)
    await sleep(1000)
    const { body } = await call('?wait=60', { force: true, confirm: 'orders' })
    const operation = await ended(() => service, body.id)
    t.equal(operation.state, 'succeeded', JSON.stringify(operation.error))
    t.match(operation, { forced: true })
    const decision = decisionOf(operation)
    t.match(decision.risks, [new RegExp(`${old} lives: it is stopped`)])
    await isSafe(t, writer, decision.chosen ?? '', decision)
    const { body: trail } = await service.call<{ items: AuditEvent[] }>(
      'GET',
      '/v1/events?cluster=orders&type=operation-created',
    )
    t.match(
      trail.items.find(({ operation: id }) => id === operation.id)?.summary,
      'promote of orders was asked for, by force.',
    )
    await rejoin(t, old)
    await isWhole(t, decision.chosen ?? '')
  })

  await t.test('a worker that dies in the middle: one primary, whoever goes on', async t => {
    for (const line of ['votes, and their standbys are frozen', 'fenced: ssh', 'was told', 'is the primary']) {
      const { old } = await whoIsWho()
      const writer = await startWriter(t, lab, addresses)
      await sleep(500)
      await lab.signal(old, 'postgres', 'SIGKILL')
      const { body } = await call()
      await stepIn(() => service, body.id, 'cluster/promotion', ['running', 'changed'])
      await eventually(async () => {
        const { body: log } = await service.call<string>('GET', `/v1/operations/${body.id}/log`)
        return log.includes(line)
      }, 30_000).catch(() => t.comment(`"${line}" was not seen`))
      await service.kill()
      service = await start()
      const operation = await ended(() => service, body.id)
      t.equal(operation.state, 'succeeded', `killed after "${line}": ${JSON.stringify(operation.error)}`)
      const { primary } = await status()
      t.not(primary, old)
      const report = await writer.end()
      t.same(overlaps(report), [], 'no two accepted writes at a time')
      await rejoin(t, old)
      await isWhole(t, primary ?? '')
    }
  })
})
