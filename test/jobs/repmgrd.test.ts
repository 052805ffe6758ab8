import t from 'tap'
import { followNode } from '../../jobs/follow-node.js'
import { restartNode } from '../../jobs/restart-node.js'
import { withRepmgrdHeld } from '../../jobs/steps/repmgrd.js'
import { stopNode } from '../../jobs/stop-node.js'
import { switchover } from '../../jobs/switchover.js'
import type { RepmgrdHold } from '../../src/cluster/repmgrd.js'
import { type Plan, stepsOf } from '../../src/operations/step.js'
import { benchOf, primary, standby } from './fixtures/bench.js'

const bench = benchOf({ pg1: primary, pg2: standby, pg3: standby }, { absent: [], built: true })
let kept: RepmgrdHold | undefined
const record = {
  read: async () => kept,
  write: async (hold: RepmgrdHold | undefined) => {
    kept = hold
  },
}
const ids = (plan: Plan) => stepsOf(withRepmgrdHeld(bench, record, plan)).map(({ id }) => id)

t.test('it is held still from before the first change to the end', async t => {
  const around = ids(restartNode.plan(bench, { node: 'pg2' }))
  t.same([around[0], around.at(-1)], ['cluster/pause-repmgrd', 'cluster/unpause-repmgrd'])
  const exchange = ids(switchover.plan(bench, {}))
  t.same(exchange.slice(0, 2), ['cluster/ready', 'cluster/pause-repmgrd'], 'a refusal pauses nobody')
  t.equal(exchange.at(-1), 'cluster/unpause-repmgrd')
  t.same(withRepmgrdHeld(bench, record, []), [], 'a plan that changes nothing stays as it is')
  for (const { holdsRepmgrd } of [switchover, followNode, restartNode, stopNode]) t.ok(holdsRepmgrd)
})

t.test('whose it is to unpause it', async t => {
  const step = stepsOf(withRepmgrdHeld(bench, record, stopNode.plan(bench, { node: 'pg2' }))).at(-1)
  if (step?.kind !== 'change') throw new Error('no step')
  const check = (operationId?: string) =>
    step.check({ signal: AbortSignal.timeout(1000), log: () => undefined, ...(operationId ? { operationId } : {}) })
  kept = undefined
  t.match(await check(), { done: false }, 'a dry run shows it')
  t.match(await check('op_1'), { done: true })
  kept = { operation: 'op_1', nodes: ['pg1', 'pg2'] }
  t.match(await check('op_1'), { done: false, reason: 'it is paused on pg1, pg2' })
  t.match(await check('op_2'), { done: true }, 'not another operation’s')
  kept = { ...kept, kept: 'no server accepts writes' }
  t.match(await check('op_1'), { done: true, note: 'it stays paused on pg1, pg2: no server accepts writes' })
})
