import fc from 'fast-check'
import t from 'tap'
import { type ClusterNode, newNode } from '../../src/cluster/model.js'
import { majorityOf, newestBegun, readTrace, type VoteTrace, votersOf } from '../../src/cluster/voters.js'

const node = (name: string, more: Partial<ClusterNode> = {}): ClusterNode => ({
  ...newNode({ name, host: name, ssh: { user: 'admin', hostKey: `SHA256:${'A'.repeat(43)}` } }, 1),
  ...more,
})
const trace = (more: Partial<VoteTrace> = {}): VoteTrace => ({ node: 'pg2', operation: 'op_1', epoch: 1, ...more })

t.test('standbys and witnesses vote, old primaries do not', async t => {
  const nodes = [node('pg1'), node('pg2'), node('pg3'), node('w1', { kind: 'witness' })]
  t.same(
    votersOf(nodes, ['pg1']).map(({ name }) => name),
    ['pg2', 'pg3', 'w1'],
  )
  t.same(
    votersOf(nodes, ['pg1', 'pg2']).map(({ name }) => name),
    ['pg3', 'w1'],
  )
})

t.test('how many are needed, the store counted', async t => {
  t.same([1, 2, 3, 4].map(majorityOf), [2, 2, 3, 3])
})

t.test('any two majorities share a voter', async () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 8 }),
      fc.array(fc.boolean(), { minLength: 9, maxLength: 9 }),
      (nodes, asked) => {
        const all = nodes + 1
        const one = asked.slice(0, all).filter(Boolean).length
        return !(one >= majorityOf(nodes) && all - one >= majorityOf(nodes))
      },
    ),
    { numRuns: 2000 },
  )
})

t.test('what a voter remembers is its own, and can be read', async t => {
  t.same(readTrace(JSON.stringify(trace()), 'pg2'), trace())
  t.equal(readTrace(JSON.stringify(trace()), 'pg3'), undefined, 'a copy of its data directory is not its vote')
  for (const text of [undefined, null, '', 'nonsense', '{}', '"text"', 'null'])
    t.equal(readTrace(text, 'pg2'), undefined, String(text))
})

t.test('the newest promotion that was begun', async t => {
  const traces = new Map([
    ['pg2', trace({ epoch: 5 })],
    ['pg3', trace({ epoch: 3, candidate: 'pg2' })],
    ['w1', trace({ epoch: 4, candidate: 'pg3' })],
  ])
  t.match(newestBegun(traces), { voter: 'w1', trace: { candidate: 'pg3' } })
  t.equal(newestBegun(new Map([['pg2', trace()]])), undefined)
  t.match(newestBegun(traces, 3), { voter: 'w1' })
  t.equal(newestBegun(traces, 4), undefined, 'of those it is known what came of them')
})
