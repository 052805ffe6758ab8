/** Manual failover where more is wrong than the primary: a standby is down, the network is cut, the worker dies, somebody insists. */
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import type { AuditEvent } from '../../src/store/event.js'
import { ended, stepIn } from '../fixtures/lab.js'
import { startPromoteTest } from '../fixtures/promote.js'
import { eventually } from '../fixtures/redis.js'
import { overlaps, startWriter } from '../fixtures/writer.js'

t.test('a standby takes the place of a primary, and more is wrong', { timeout: 880_000 }, async t => {
  const { lab, addresses, now, start, call, status, healthy, decisionOf, whoIsWho, rejoin, isWhole, isSafe } =
    await startPromoteTest(t, 'further')

  await t.test('a hung primary, and a standby that is down', async t => {
    const { old, standbys } = await whoIsWho()
    const [left = '', down = ''] = standbys
    await lab.powerOff(down)
    const writer = await startWriter(t, lab, addresses)
    await sleep(1000)
    await lab.signal(old, 'postgres', 'SIGSTOP')
    const { body } = await call('?wait=60')
    const operation = await ended(() => now.service, body.id)
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

  await t.test('by force, although the primary lives: it is stopped, and the audit trail says so', async t => {
    const { old } = await whoIsWho()
    const writer = await startWriter(t, lab, addresses)
    await sleep(1000)
    const { body } = await call('?wait=60', { force: true, confirm: 'orders' })
    const operation = await ended(() => now.service, body.id)
    t.equal(operation.state, 'succeeded', JSON.stringify(operation.error))
    t.match(operation, { forced: true })
    const decision = decisionOf(operation)
    t.match(decision.risks, [new RegExp(`${old} lives: it is stopped`)])
    await isSafe(t, writer, decision.chosen ?? '', decision)
    const { body: trail } = await now.service.call<{ items: AuditEvent[] }>(
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
      await stepIn(() => now.service, body.id, 'cluster/promotion', ['running', 'changed'])
      await eventually(async () => {
        const { body: log } = await now.service.call<string>('GET', `/v1/operations/${body.id}/log`)
        return log.includes(line)
      }, 30_000).catch(() => t.comment(`"${line}" was not seen`))
      await now.service.kill()
      now.service = await start()
      const operation = await ended(() => now.service, body.id)
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
