import t from 'tap'
import type { Bench } from '../../jobs/bench.js'
import { restartCluster } from '../../jobs/restart-cluster.js'
import { type RollingWork, rollingEnds, rollingPlan } from '../../jobs/rolling.js'
import type { Handover } from '../../src/cluster/handover.js'
import type { ClusterNode } from '../../src/cluster/model.js'
import { isInWholeStep, mayExchangeRoles } from '../../src/operations/operation.js'
import { type Step, stepsOf } from '../../src/operations/step.js'
import { benchOf, type Found, primary, standby, stopped, witness } from './fixtures/bench.js'

const OPERATION = 'op_01KAR3QJ7ZC0V7W0M2E9T1X5YB'
const first: Handover = { operation: OPERATION, from: 'pg1', to: 'pg2', phase: 'standbys' }
const three = { pg1: primary, pg2: standby, pg3: standby }

function bench(
  found: Record<string, Found>,
  {
    handover,
    upstreams = {},
    absent = [],
  }: { handover?: Handover; upstreams?: Record<string, string>; absent?: string[] } = {},
): Bench {
  const made = benchOf(found, { absent, built: true })
  const nodes = made.cluster.nodes.map(node => {
    const upstream = upstreams[node.name]
    return upstream === undefined ? node : { ...node, upstream }
  })
  return {
    ...made,
    operationId: OPERATION,
    cluster: { ...made.cluster, nodes, ...(handover === undefined ? {} : { handover }) },
  }
}

const ids = (of: Bench, input: { switchBack?: boolean; confirm?: string; to?: string } = {}) =>
  stepsOf(restartCluster.plan(of, input)).map(({ id }) => id)
const restarts = (of: Bench) => ids(of).filter(id => /\/(restart|exchange)$/.test(id))

t.test('the order: who passes on after those below it, the primary by an exchange, the witness last', async t => {
  t.same(restarts(bench(three)), ['pg2/restart', 'pg3/restart', 'cluster/exchange'])
  t.same(restarts(bench(three, { upstreams: { pg3: 'pg2' } })), ['pg3/restart', 'pg2/restart', 'cluster/exchange'])
  t.same(restarts(bench({ ...three, w1: witness })), ['pg2/restart', 'pg3/restart', 'cluster/exchange', 'w1/restart'])
})

t.test('each standby streams again before the next is touched', async t => {
  const plan = restartCluster.plan(bench(three), {})
  t.same(
    plan.slice(0, 3).map(({ tracks }) => tracks.map(track => track.map(({ id }) => id))),
    [[['pg2/restart', 'pg2/follow-again']], [['pg3/restart', 'pg3/follow-again']], [['cluster/turn']]],
  )
})

t.test('no two steps of a plan have the same id, also with a way back', async t => {
  const all = ids(bench({ ...three, w1: witness }), { switchBack: true })
  t.same(
    all.filter((id, at) => all.indexOf(id) !== at),
    [],
  )
  t.ok(all.includes('cluster/exchange-back'))
})

t.test('taken up: the steps that are left have the ids that they had', async t => {
  const before = ids(bench(three), { switchBack: true })
  const exchanged = { pg1: stopped({ ...standby, timeline: 5 }), pg2: { ...primary, timeline: 6 }, pg3: standby }
  const back = { pg1: { ...standby, timeline: 6 }, pg2: stopped({ ...standby, timeline: 6 }), pg3: standby }
  const table: [string, Bench, string][] = [
    [
      'at a standby, which is down just now',
      bench({ ...three, pg3: stopped(standby) }, { handover: first }),
      'pg2/restart',
    ],
    ['before the exchange', bench(three, { handover: { ...first, phase: 'exchange' } }), 'cluster/turn'],
    ['after it', bench(exchanged, { handover: { ...first, phase: 'exchange' } }), 'cluster/turn'],
    [
      'on the way back',
      bench(back, { handover: { ...first, from: 'pg2', to: 'pg1', phase: 'back' } }),
      'cluster/turn-back',
    ],
  ]
  for (const [what, now, from] of table)
    t.same(ids(now, { switchBack: true }), before.slice(before.indexOf(from)), what)
  const other = bench(exchanged, { handover: { ...first, operation: 'op_01KAR3QJ7ZC0V7W0M2E9T1X5YC' } })
  t.throws(() => ids(other), { code: 'step-out-of-order' }, 'another operation begins from what there is')
})

t.test('a standby that is away is in the way of a restart, and not of roles that are half exchanged', async t => {
  const away = { absent: ['pg3'] }
  const found = { pg1: primary, pg2: standby }
  t.throws(() => ids(bench(found, away)), { code: 'node-away', message: /pg3 does not answer/ })
  t.throws(() => ids(bench(found, { ...away, handover: first })), { code: 'node-away' })
  const half = { pg1: stopped(standby), pg2: standby }
  t.ok(ids(bench(half, { ...away, handover: { ...first, phase: 'exchange' } })).includes('cluster/exchange'))
})

t.test('what must not begin, or not go on', async t => {
  t.throws(() => ids(bench({ ...three, pg3: stopped(standby) })), { code: 'step-out-of-order' })
  t.throws(() => ids(bench(three), { to: 'pg1' }), { code: 'no-successor' })
  const moved = { pg1: { ...standby, timeline: 2 }, pg2: { ...primary, timeline: 2 }, pg3: { ...standby, timeline: 2 } }
  t.throws(() => ids(bench(moved, { handover: first })), { code: 'roles-changed', message: /^pg2 is the primary now/ })
  const third = { pg1: standby, pg2: standby, pg3: { ...primary, timeline: 9 } }
  t.throws(() => ids(bench(third, { handover: { ...first, phase: 'exchange' } })), {
    code: 'primary-unclear',
    message: /pg3 accepts writes/,
  })
})

t.test('one node alone is restarted where it is, and only where its name is given', async t => {
  const made = bench({ pg1: primary })
  const alone = { ...made, cluster: { ...made.cluster, nodes: made.cluster.nodes.slice(0, 1) } }
  t.throws(() => ids(alone), { code: 'confirmation-required', message: /nobody can write/ })
  t.same(ids(alone, { confirm: 'pg1' }), ['pg1/restart'])
})

t.test('the turn of the primary', async t => {
  const context = { signal: AbortSignal.timeout(1000), log: () => undefined }
  const step = (id: string): Step => ({
    id,
    kind: 'change',
    title: id,
    actions: [],
    check: async () => ({ done: true }),
  })
  const planned = (needed: boolean) => {
    const kept: Handover[] = []
    const of: Bench = {
      ...bench(three, { handover: first }),
      keepHandover: async change => void kept.push(change(first)),
    }
    const work: RollingWork = {
      name: 'restart',
      renew: (node: ClusterNode) => [step(`${node.name}/restart`)],
      isDone: async () => (needed ? { done: false, reason: 'it is old' } : { done: true, note: 'it is new' }),
    }
    const steps = new Map(
      stepsOf(rollingPlan(of, rollingEnds(of, {}), work, { switchBack: true })).map(each => [each.id, each] as const),
    )
    const check = async (id: string) => {
      const found = steps.get(id)
      if (found?.kind !== 'change') throw new Error(`no ${id}`)
      return found.check(context)
    }
    return { kept, steps, check }
  }

  await t.test('one that needs none keeps its role, and there is no way back', async t => {
    const { check, kept } = planned(false)
    for (const id of ['cluster/turn', 'cluster/exchange', 'cluster/turn-back', 'cluster/exchange-back', 'pg1/start'])
      t.match(await check(id), { done: true, note: 'pg1 needs no turn: it is new' }, id)
    t.same(kept, [], 'and nothing is written down')
  })

  await t.test(
    'one that needs it: written down before it begins, and the way back with the ends exchanged',
    async t => {
      const { check, kept, steps } = planned(true)
      const act = {
        ...context,
        operationId: OPERATION,
        epoch: 1,
        draining: context.signal,
        progress: () => undefined,
        note: () => undefined,
        decide: () => undefined,
        report: () => undefined,
      }
      t.match(await check('cluster/turn'), { done: false })
      await steps.get('cluster/turn')?.actions[0]?.perform(act)
      t.match(await check('cluster/turn'), { done: true })
      t.match(await check('cluster/turn-back'), { done: false, reason: 'pg2 is the primary' })
      await steps.get('cluster/turn-back')?.actions[0]?.perform(act)
      t.same(kept, [
        { ...first, phase: 'exchange' },
        { ...first, from: 'pg2', to: 'pg1', phase: 'back' },
      ])
      await t.rejects(check('cluster/exchange'), /without asking anybody/, 'the exchange looks at the servers')
    },
  )
})

t.test('the way back is not called off in its middle either', async t => {
  t.equal(isInWholeStep([{ id: 'cluster/exchange-back', state: 'running' }]), true)
  t.ok(mayExchangeRoles('restart-cluster'))
})
