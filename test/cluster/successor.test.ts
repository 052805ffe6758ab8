import t from 'tap'
import type { ClusterNode } from '../../src/cluster/model.js'
import { successorOf, verdicts } from '../../src/cluster/successor.js'

const node = (nodeId: number, change: Partial<ClusterNode> = {}): ClusterNode => ({
  name: `pg${nodeId}`,
  nodeId,
  host: `192.0.2.${10 + nodeId}`,
  ssh: { user: 'admin', port: 22, hostKey: 'SHA256:x' },
  ...change,
})
const fine = () => ({ away: undefined, standby: true })

t.test('who takes over, and why not each of the others', async t => {
  const pg1 = node(1)
  const table: [string, ClusterNode[], string | undefined, Record<string, RegExp>][] = [
    ['the lowest node id of equals', [pg1, node(3), node(2)], 'pg2', {}],
    ['the highest priority', [pg1, node(2), node(3, { priority: 200 })], 'pg3', {}],
    ['never priority 0', [pg1, node(2, { priority: 0 })], undefined, { pg2: /priority 0/ }],
    ['no delayed one', [pg1, node(2, { applyDelayMs: 1000 }), node(3)], 'pg3', { pg2: /delayed/ }],
    [
      'none that streams from another standby',
      [pg1, node(2, { upstream: 'pg3', priority: 900 }), node(3)],
      'pg3',
      { pg2: /streams from pg3/ },
    ],
    ['no witness', [pg1, node(2, { kind: 'witness' })], undefined, { pg2: /witness/ }],
    ['nobody there', [pg1], undefined, {}],
  ]
  for (const [what, nodes, taken, reasons] of table) {
    const seen = verdicts(nodes, pg1, fine)
    t.equal(successorOf(nodes, seen)?.name, taken, what)
    for (const [name, reason] of Object.entries(reasons)) t.match(seen.find(one => one.node === name)?.unfit, reason)
    t.notOk(
      seen.some(one => one.node === 'pg1'),
      'the primary does not follow itself',
    )
  }
})

t.test('one that does not answer, or is no standby', async t => {
  const nodes = [node(1), node(2), node(3)]
  const [pg1] = nodes
  if (!pg1) throw new Error('no node')
  const seen = verdicts(nodes, pg1, ({ name }) => ({
    away: name === 'pg2' ? 'no route to it' : undefined,
    standby: false,
  }))
  t.match(seen, [
    { node: 'pg2', unfit: /does not answer \(no route to it\)/ },
    { node: 'pg3', unfit: /is not a running standby/ },
  ])
  t.equal(successorOf(nodes, seen), undefined)
})
