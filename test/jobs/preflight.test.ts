/** Every operation that makes a node, or copies data onto one, looks first. Nothing is connected to. */
import t from 'tap'
import { addStandby } from '../../jobs/add-standby.js'
import { addWitness } from '../../jobs/add-witness.js'
import type { Bench } from '../../jobs/bench.js'
import { bootstrapCluster } from '../../jobs/bootstrap-cluster.js'
import { cloneNode } from '../../jobs/clone-node.js'
import { provisionNode } from '../../jobs/provision-node.js'
import { rebuildNode } from '../../jobs/rebuild-node.js'
import { rejoinNode } from '../../jobs/rejoin-node.js'
import { type Plan, stepsOf } from '../../src/operations/step.js'
import { bare, benchOf, created, type Found, primary, standby } from './fixtures/bench.js'

const spec = (name: string) => ({ name, host: '10.0.0.9', ssh: { user: 'admin' } })

const cases: [string, Record<string, Found>, (bench: Bench) => Plan, tried: string][] = [
  ['bootstrap-cluster', { pg1: bare, pg2: bare }, bench => bootstrapCluster.plan(bench, {}), 'pg1, pg2'],
  ['provision-node', { pg1: primary, pg2: bare }, bench => provisionNode.plan(bench, { node: 'pg2' }), 'pg1, pg2'],
  ['add-standby', { pg1: primary, pg2: bare }, bench => addStandby.plan(bench, { node: spec('pg2') }), 'pg1, pg2'],
  [
    'add-witness',
    { pg1: primary, pg2: standby, w1: bare },
    bench => addWitness.plan(bench, { node: { ...spec('w1'), kind: 'witness' } }),
    'pg1, pg2, w1',
  ],
  [
    'clone-node',
    { pg1: primary, pg2: created, pg3: standby },
    bench => cloneNode.plan(bench, { node: 'pg2' }),
    'pg2, pg1',
  ],
  [
    'clone-node, of a standby that was used',
    { pg1: primary, pg2: standby, pg3: standby },
    bench => cloneNode.plan(bench, { node: 'pg2', confirm: 'pg2' }),
    'pg2, pg1',
  ],
  [
    'rebuild-node',
    { pg1: primary, pg2: standby, pg3: standby },
    bench => rebuildNode.plan(bench, { node: 'pg2', method: 'clone', confirm: 'pg2' }),
    'pg2, pg1',
  ],
  ['rejoin-node', { pg1: primary, pg2: standby }, bench => rejoinNode.plan(bench, { node: 'pg2' }), 'pg2, pg1'],
]
for (const [title, found, plan, tried] of cases) {
  t.test(title, async t => {
    const built = Object.values(found).includes(primary)
    const [first] = stepsOf(plan(benchOf(found, { absent: [], built })))
    t.match(first, {
      id: 'cluster/checks',
      kind: 'verify',
      title: `check the edges between this service and ${tried}`,
    })
  })
}
