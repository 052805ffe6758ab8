import t from 'tap'
import type { Bench } from '../../jobs/bench.js'
import { refuseOvertaken } from '../../jobs/switchover.js'
import type { ClusterNode } from '../../src/cluster/model.js'
import { isInWholeStep } from '../../src/operations/operation.js'
import type { ServerState } from '../../src/postgres/inspect.js'

type Found = Partial<Pick<ServerState, 'inRecovery' | 'timeline'>>
const node = (name: string, nodeId: number) => ({ name, nodeId, host: name }) as ClusterNode

t.test('a switchover that is taken up, where somebody made another primary meanwhile', async t => {
  const nodes = [node('pg1', 1), node('pg2', 2), node('pg3', 3)]
  const [pg1, pg2] = nodes
  if (!pg1 || !pg2) throw new Error('no nodes')
  const verdict = (found: Record<string, Found | undefined>) => {
    const bench = {
      cluster: { name: 'orders', nodes },
      absent: new Map(Object.entries(found).flatMap(([name, state]) => (state ? [] : [[name, 'silent'] as const]))),
      found: ({ name }: ClusterNode) => ({
        server: { marker: { cluster: 'orders', node: name, state: 'in-use' }, everStarted: true, ...found[name] },
      }),
    } as unknown as Bench
    try {
      refuseOvertaken(bench, pg1, pg2)
      return 'goes on'
    } catch (error) {
      return error instanceof Error ? error.message : String(error)
    }
  }
  const standby = { inRecovery: true, timeline: 4 }
  const stopped = { timeline: 4 }
  const table: [string, Record<string, Found | undefined>, RegExp][] = [
    ['nothing has happened yet', { pg1: { inRecovery: false, timeline: 4 }, pg2: standby, pg3: standby }, /^goes on$/],
    ['the old one is stopped', { pg1: stopped, pg2: standby, pg3: standby }, /^goes on$/],
    ['it is through', { pg1: stopped, pg2: { inRecovery: false, timeline: 5 }, pg3: standby }, /^goes on$/],
    [
      'it is through, and the others follow',
      {
        pg1: { inRecovery: true, timeline: 5 },
        pg2: { inRecovery: false, timeline: 5 },
        pg3: { inRecovery: true, timeline: 5 },
      },
      /^goes on$/,
    ],
    ['a sibling is away', { pg1: stopped, pg2: standby, pg3: undefined }, /^goes on$/],
    [
      'a third one writes',
      { pg1: stopped, pg2: standby, pg3: { inRecovery: false, timeline: 5 } },
      /pg3 accepts writes/,
    ],
    [
      'a third one has seen a newer timeline',
      { pg1: stopped, pg2: standby, pg3: { inRecovery: true, timeline: 5 } },
      /pg3 has seen timeline 5/,
    ],
    [
      'both write',
      { pg1: { inRecovery: false, timeline: 4 }, pg2: { inRecovery: false, timeline: 5 }, pg3: standby },
      /pg1 and pg2 both accept writes/,
    ],
  ]
  for (const [what, found, said] of table) t.match(verdict(found), said, what)
})

t.test('what has begun to exchange the roles is not called off', async t => {
  t.equal(isInWholeStep([{ id: 'cluster/exchange', state: 'running' }]), true)
  t.equal(isInWholeStep([{ id: 'cluster/exchange', state: 'changed' }]), false)
  t.equal(isInWholeStep([{ id: 'pg1/clone', state: 'running' }]), false)
})
