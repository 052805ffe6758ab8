import t from 'tap'
import type { Cluster, ClusterNode } from '../../src/cluster/model.js'
import { describeReadiness, type Facts, type StandbyFacts } from '../../src/cluster/readiness.js'
import type { ClusterStatus, NodeStatus } from '../../src/cluster/status.js'

const node = (nodeId: number, change: Partial<ClusterNode> = {}): ClusterNode => ({
  name: `pg${nodeId}`,
  nodeId,
  host: `192.0.2.${10 + nodeId}`,
  ssh: { user: 'admin', port: 22, hostKey: 'SHA256:x' },
  ...change,
})
const row = (name: string, change: Partial<NodeStatus> = {}): NodeStatus => ({
  name,
  nodeId: Number(name.slice(2)),
  host: name,
  location: 'default',
  priority: 100,
  role: 'standby',
  state: 'streaming',
  failure: null,
  upstream: 'pg1',
  receiver: null,
  timeline: 3,
  lsn: '0/5000000',
  writtenLsn: null,
  receivedLsn: '0/5000000',
  replayedLsn: '0/5000000',
  lagBytes: 0,
  lagMs: 0,
  syncState: 'async',
  slot: null,
  slots: [],
  applyDelayMs: null,
  conflicts: null,
  metadata: null,
  serverVersion: '15.18',
  startedAt: null,
  problem: null,
  ...change,
})
const primaryRow = row('pg1', { role: 'primary', state: 'running', upstream: null })
const standby: StandbyFacts = {
  replayPaused: false,
  promotionPending: false,
  replayBlocked: false,
  settings: { max_connections: 100 },
  slotsLeft: 10,
  sendersLeft: 10,
}

interface Situation {
  nodes?: ClusterNode[]
  rows?: NodeStatus[]
  facts?: Partial<Facts>
}

function judge({ nodes = [node(1), node(2), node(3)], rows, facts = {} }: Situation) {
  const cluster = { name: 'orders', postgresVersion: 15, port: 5432, nodes } as unknown as Cluster
  const status: ClusterStatus = {
    cluster: 'orders',
    primary: 'pg1',
    timeline: 3,
    systemIdentifier: '7',
    diagnosis: { code: 'healthy', detail: 'fine', evidence: [] },
    nodes: rows ?? [primaryRow, row('pg2'), row('pg3')],
    archive: null,
    observedAt: '2026-03-01T12:00:00.000Z',
    operation: null,
    pause: null,
  }
  return describeReadiness(cluster, status, {
    primary: { settings: { max_connections: 100 }, checksumsOrHints: true },
    standbys: new Map(nodes.map(({ name }) => [name, standby])),
    fence: { reachable: true },
    hasFenceHook: false,
    store: { may: true },
    ...facts,
  })
}

t.test('a healthy cluster', async t => {
  t.match(judge({}), {
    ready: true,
    successor: 'pg2',
    expectedLossBytes: 0,
    obstacles: [],
    fence: { method: 'ssh' },
    candidates: [
      { node: 'pg2', fit: true, rank: 1 },
      { node: 'pg3', fit: true, rank: 2 },
    ],
  })
})

t.test('the order of candidates: WAL, priority, node id', async t => {
  const order = (situation: Situation) => judge(situation).candidates.map(({ node, rank }) => [node, rank])
  t.same(order({ rows: [primaryRow, row('pg2', { lsn: '0/4FFFFFF' }), row('pg3')] }), [
    ['pg3', 1],
    ['pg2', 2],
  ])
  t.same(order({ nodes: [node(1), node(2), node(3, { priority: 200 })] }), [
    ['pg3', 1],
    ['pg2', 2],
  ])
  t.same(
    order({
      nodes: [node(1), node(2), node(3, { priority: 200 })],
      rows: [primaryRow, row('pg2'), row('pg3', { lsn: '0/4000000' })],
    }),
    [
      ['pg2', 1],
      ['pg3', 2],
    ],
    'a commit is worth more than a priority',
  )
  t.equal(
    judge({ rows: [primaryRow, row('pg2', { lsn: '0/4FFFF00' }), row('pg3', { lsn: '0/1' })] }).expectedLossBytes,
    256,
  )
})

t.test('why not each of them, and what to do', async t => {
  const said = (change: Partial<StandbyFacts>) => ({
    facts: {
      standbys: new Map([
        ['pg2', { ...standby, ...change }],
        ['pg3', standby],
      ]),
    },
  })
  const table: [Situation, RegExp][] = [
    [
      { rows: [primaryRow, row('pg2', { state: 'unreachable', problem: 'timed out' }), row('pg3')] },
      /does not answer \(timed out\)/,
    ],
    [{ rows: [primaryRow, row('pg2', { state: 'foreign' }), row('pg3')] }, /another database cluster/],
    [{ rows: [primaryRow, row('pg2', { timeline: 2 }), row('pg3')] }, /is on timeline 2, and the primary on 3/],
    [{ rows: [primaryRow, row('pg2', { state: 'detached' }), row('pg3')] }, /receives no WAL/],
    [{ rows: [primaryRow, row('pg2', { role: 'primary' }), row('pg3')] }, /accepts writes itself/],
    [{ facts: { standbys: new Map([['pg3', standby]]) } }, /could not be asked/],
    [said({ replayPaused: true }), /it is paused/],
    [said({ replayBlocked: true }), /a query holds it back/],
    [said({ promotionPending: true }), /told to become a primary/],
    [said({ settings: { max_connections: 50 } }), /max_connections = 50, and the primary 100/],
    [said({ slotsLeft: 1 }), /room for 1 more streams/],
  ]
  for (const [situation, why] of table) {
    const readiness = judge(situation)
    t.equal(readiness.successor, 'pg3', String(why))
    t.equal(readiness.ready, false)
    t.match(readiness.candidates.find(({ node }) => node === 'pg2')?.why, why)
    const obstacle = readiness.obstacles.find(({ node }) => node === 'pg2')
    t.match(obstacle?.detail, why)
    t.match(obstacle?.remedy, /.\.$/)
  }
})

t.test('what is so by intention is no obstacle', async t => {
  const readiness = judge({
    nodes: [node(1), node(2), node(3, { priority: 0 }), node(4, { kind: 'witness' })],
    rows: [primaryRow, row('pg2'), row('pg3'), row('pg4', { role: 'witness', state: 'running' })],
  })
  t.match(readiness, { ready: true, obstacles: [] })
  t.match(readiness.candidates.slice(1), [
    { node: 'pg3', fit: false, why: /priority 0/ },
    { node: 'pg4', fit: false, why: /witness/ },
  ])
})

t.test('what stands in the way of the whole', async t => {
  const details = (situation: Situation) =>
    judge(situation)
      .obstacles.map(({ detail }) => detail)
      .join(' ')
  t.match(details({ nodes: [node(1)], rows: [primaryRow] }), /has no standby/)
  const two = { nodes: [node(1), node(2)], rows: [primaryRow, row('pg2')] }
  t.equal(details(two), '')
  t.match(
    details({ ...two, facts: { store: { may: false, reason: 'its appendfsync is no' } } }),
    /needs 2 of 2 votes, and could have 1: the store may not vote: its appendfsync is no\./,
  )
  const away = row('pg2', { state: 'unreachable', problem: 'no route' })
  t.match(details({ ...two, rows: [primaryRow, away] }), /could have 1: pg2 does not answer \(no route\)\./)
  t.match(
    details({ facts: { fence: { reachable: false, reason: 'no route to host.' } } }),
    /does not let this service in: no route/,
  )
  t.match(details({ facts: { primary: { settings: {}, checksumsOrHints: false } } }), /could not be rewound/)
  t.equal(judge({ facts: { fence: { reachable: false, reason: 'no route' } } }).fence.method, 'none')
  const hooked = judge({ facts: { fence: { reachable: false, reason: 'no route' }, hasFenceHook: true } })
  t.match(hooked, { ready: true, fence: { method: 'hook', detail: /no route.*hook would be told/ } })
})
