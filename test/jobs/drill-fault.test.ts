import t from 'tap'
import { reasonsNotToStart } from '../../jobs/steps/drill-fault.js'
import type { ClusterNode } from '../../src/cluster/model.js'
import type { Promotion } from '../../src/cluster/promotion.js'
import type { VoteTrace } from '../../src/cluster/voters.js'
import type { Standing } from '../../src/postgres/freeze.js'

const nodes = [1, 2, 3].map(
  (nodeId): ClusterNode => ({
    name: `pg${nodeId}`,
    nodeId,
    host: `192.0.2.1${nodeId}`,
    ssh: { user: 'admin', port: 22, hostKey: 'SHA256:x' },
  }),
)
const witness: ClusterNode = { ...(nodes[0] as ClusterNode), name: 'eye', nodeId: 4, kind: 'witness' }
const standing = { timeline: 5, promotionPending: false } as Standing
const both = [['pg2', standing] as const, ['pg3', standing] as const]
const trace = (change: Partial<VoteTrace>): VoteTrace => ({ node: 'pg3', operation: 'op_1', epoch: 7, ...change })

const reasons = (
  standbys: readonly (readonly [string, Standing])[],
  traces: Record<string, VoteTrace> = {},
  promotion?: Promotion,
) =>
  reasonsNotToStart({ nodes: [...nodes, witness], ...(promotion ? { promotion } : {}) }, { name: 'pg1' }, 5, {
    standbys: new Map(standbys),
    traces: new Map(Object.entries(traces)),
  })

t.test('an old primary is started again only where nobody else can be one', async t => {
  t.same(reasons(both), [])
  t.same(reasons(both.slice(0, 1)), ['pg3 does not answer as a standby'], 'promoted by hand, it does not either')
  t.same(reasons([]), ['pg2 does not answer as a standby', 'pg3 does not answer as a standby'])
  t.same(
    reasons([
      ['pg2', { ...standing, promotionPending: true }],
      ['pg3', standing],
    ]),
    ['pg2 was told to become the primary'],
  )
  t.same(
    reasons([
      ['pg2', standing],
      ['pg3', { ...standing, timeline: 6 }],
    ]),
    ['pg3 has seen timeline 6'],
  )
})

t.test('what a voter remembers of a promotion counts until it is known what came of it', async t => {
  t.same(reasons(both, { pg3: trace({}) }), [], 'a vote alone tells nobody')
  t.same(reasons(both, { pg3: trace({ candidate: 'pg2' }) }), ['a promotion of pg2 was begun'])
  t.same(reasons(both, { eye: trace({ node: 'eye', candidate: 'pg2' }) }), ['a promotion of pg2 was begun'])
  const settled = { operation: 'op_0', epoch: 7, state: 'promoted', to: 'pg1', replaced: [], unfenced: [], at: '' }
  t.same(reasons(both, { pg3: trace({ candidate: 'pg2' }) }, settled as Promotion), [])
  t.same(reasons(both, { pg3: trace({ candidate: 'pg2', epoch: 8 }) }, settled as Promotion), [
    'a promotion of pg2 was begun',
  ])
})
