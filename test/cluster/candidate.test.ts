import fc from 'fast-check'
import t from 'tap'
import { type ChoicePolicy, chooseCandidate, type FrozenStandby } from '../../src/cluster/candidate.js'
import { lsnBytes, parseLsn } from '../../src/cluster/lsn.js'
import { type ClusterNode, newNode } from '../../src/cluster/model.js'

const node = (id: number, more: Partial<ClusterNode> = {}): ClusterNode => ({
  ...newNode(
    { name: `pg${id}`, host: `192.0.2.1${id}`, ssh: { user: 'admin', hostKey: `SHA256:${'A'.repeat(43)}` } },
    id,
  ),
  ...more,
})
const OURS = '7300000000000000001'
const standby = (id: number, lsn: string | undefined, more: Partial<FrozenStandby> = {}): FrozenStandby => ({
  node: node(id),
  systemIdentifier: OURS,
  timeline: 3,
  lsn: lsn === undefined ? undefined : parseLsn(lsn),
  replays: true,
  promotionPending: false,
  ...more,
})
const policy: ChoicePolicy = { systemIdentifier: OURS, timeline: 0, to: undefined, maxLossBytes: 0 }
const objectionTo = (one: FrozenStandby, more: Partial<ChoicePolicy> = {}) =>
  chooseCandidate([one], { ...policy, ...more }).verdicts[0]?.objection

t.test('the one that has the most', async t => {
  t.equal(chooseCandidate([standby(2, '0/3000000'), standby(3, '0/3000060')], policy).candidate?.name, 'pg3')
  // As text the second is greater.
  t.equal(chooseCandidate([standby(2, '10/0'), standby(3, '9/FFFFFFFF')], policy).candidate?.name, 'pg2')
})

t.test('of equals the one with the highest priority, then the lowest node id', async t => {
  const preferred = { ...standby(3, '0/3000000'), node: node(3, { priority: 200 }) }
  t.equal(chooseCandidate([standby(2, '0/3000000'), preferred], policy).candidate?.name, 'pg3')
  t.equal(chooseCandidate([standby(3, '0/3000000'), standby(2, '0/3000000')], policy).candidate?.name, 'pg2')
})

t.test('why one cannot be promoted', async t => {
  t.match(objectionTo(standby(2, undefined)), /no position/)
  t.match(objectionTo(standby(2, '0/1', { systemIdentifier: '1' })), /another database cluster/)
  t.match(objectionTo(standby(2, '0/1'), { timeline: 4 }), /on timeline 3, and the cluster was on timeline 4/)
  t.match(objectionTo(standby(2, '0/1', { promotionPending: true })), /told to become a primary/)
  t.match(objectionTo(standby(2, '0/1', { tooLow: 'has max_connections = 10, and the primary 20' })), /shut down/)
  t.match(
    objectionTo(standby(2, '0/1', { replays: false, heldBackBy: 'it is paused' })),
    /does not replay: it is paused/,
  )
  t.match(objectionTo({ ...standby(2, '0/1'), node: node(2, { applyDelayMs: 1000 }) }), /delayed/)
  const never = { ...standby(2, '0/1'), node: node(2, { priority: 0 }) }
  t.match(objectionTo(never), /priority 0/)
  t.equal(objectionTo(never, { to: 'pg2' }), undefined, 'unless somebody asks for it')
})

t.test('who was asked for has less: by how much, and than whom', async t => {
  const choice = chooseCandidate([standby(2, '0/3000000'), standby(3, '0/3000100')], { ...policy, to: 'pg2' })
  t.match(choice, { candidate: { name: 'pg2' }, behindBytes: 0x100, better: 'pg3' })
  // Although that one could not be promoted itself.
  const unfit = standby(3, '0/3000100', { replays: false })
  t.match(chooseCandidate([standby(2, '0/3000000'), unfit], policy), { behindBytes: 0x100, better: 'pg3' })
  t.equal(chooseCandidate([standby(2, '0/1')], { ...policy, to: 'pg9' }).candidate, undefined)
})

t.test('whoever is chosen: nobody without an objection has more, and each of the others has a verdict', async () => {
  const arbitrary = fc.array(
    fc.record({
      lsn: fc.nat({ max: 6 }),
      timeline: fc.integer({ min: 1, max: 3 }),
      replays: fc.boolean(),
      promotionPending: fc.boolean(),
      priority: fc.integer({ min: 0, max: 2 }),
    }),
    { maxLength: 6 },
  )
  fc.assert(
    fc.property(arbitrary, all => {
      const frozen = all.map(({ lsn, priority, ...rest }, index) => ({
        ...standby(index + 1, `0/${lsn}`, rest),
        node: node(index + 1, { priority }),
      }))
      const { candidate, verdicts, behindBytes } = chooseCandidate(frozen, policy)
      const fit = frozen.filter((_, index) => verdicts[index]?.objection === undefined)
      if (verdicts.length !== frozen.length || (candidate === undefined) !== (fit.length === 0)) return false
      const chosen = frozen.find(one => one.node === candidate)
      if (!chosen?.lsn) return candidate === undefined
      const own = lsnBytes(chosen.lsn)
      const most = frozen
        .filter(({ timeline }) => timeline === chosen.timeline)
        .map(({ lsn }) => (lsn ? lsnBytes(lsn) : 0n))
      const best = most.reduce((a, b) => (a > b ? a : b), 0n)
      return fit.every(({ lsn }) => lsn !== undefined && lsnBytes(lsn) <= own) && BigInt(behindBytes) === best - own
    }),
    { numRuns: 3000 },
  )
})
