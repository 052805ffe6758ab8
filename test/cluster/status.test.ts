import t from 'tap'
import { type Cluster, newCluster } from '../../src/cluster/model.js'
import { type ReplicationSlot, slotName } from '../../src/cluster/slot.js'
import { describeStatus, type Observation, type Probe } from '../../src/cluster/status.js'

const OURS = '7300000000000000001'
const THEIRS = '7300000000000000002'
const NOW = '2026-03-01T12:00:00.000Z'
const STARTED = '2026-02-01T00:00:00.000Z'

const ssh = { user: 'admin', hostKey: `SHA256:${'A'.repeat(43)}` }
const described = newCluster(
  {
    name: 'orders',
    postgresVersion: 15,
    nodes: [
      { name: 'pg1', host: '10.0.0.1', ssh },
      { name: 'pg2', host: '10.0.0.2', ssh },
      { name: 'pg3', host: '10.0.0.3', ssh },
    ],
  },
  NOW,
)
const built: Cluster = { ...described, builtAt: NOW, systemIdentifier: OURS }

type Stream = Observation['streams'][number]
const stream = (applicationName: string, change: Partial<Stream> = {}): Stream => ({
  applicationName,
  state: 'streaming',
  syncState: 'async',
  replayLagMs: 3,
  ...change,
})
const slot = (nodeId: number, change: Partial<ReplicationSlot> = {}): ReplicationSlot => ({
  name: slotName(nodeId),
  active: true,
  retainedBytes: 0,
  walStatus: 'reserved',
  safeWalBytes: 10_000_000_000,
  ...change,
})
const common = {
  systemIdentifier: OURS,
  serverVersion: '15.18',
  timeline: 3,
  startedAt: STARTED,
  streams: [],
  slots: [],
}
const primary = (node: string, change: Partial<Observation> = {}): Probe => ({
  node,
  observation: {
    ...common,
    inRecovery: false,
    currentLsn: '0/5000000',
    replayAgeMs: null,
    streams: [stream('pg2'), stream('pg3')],
    slots: [slot(2, { retainedBytes: 100 }), slot(3)],
    ...change,
  },
})
const standby = (node: string, change: Partial<Observation> = {}, upstreamHost = '10.0.0.1'): Probe => ({
  node,
  observation: {
    ...common,
    inRecovery: true,
    receivedLsn: '0/5000000',
    replayedLsn: '0/5000000',
    replayAgeMs: 40,
    receiver: { status: 'streaming', upstreamHost, slotName: 'repmgr_slot_2' },
    ...change,
  },
})
const detached = (node: string, change: Partial<Observation> = {}): Probe => {
  const probe = standby(node, change)
  if ('observation' in probe) delete probe.observation.receiver
  return probe
}
const down = (node: string): Probe => ({ node, failure: { reason: 'refused', detail: `${node} refused` } })

const witness = (node: string): Probe => ({
  node,
  observation: { ...common, systemIdentifier: THEIRS, inRecovery: false, currentLsn: '0/1500000', replayAgeMs: null },
})
const withThird = (change: Partial<Cluster['nodes'][number]>): Cluster => ({
  ...built,
  nodes: built.nodes.map(node => (node.name === 'pg3' ? { ...node, ...change } : node)),
})
const cascaded = withThird({ upstream: 'pg2' })
const watched = withThird({ kind: 'witness' })

interface Situation {
  cluster?: Cluster
  probes: Probe[]
  code: string
  detail?: RegExp
  primary?: string | null
  timeline?: number | null
  systemIdentifier?: string | null
  nodes?: Record<string, object>
}

const situations: Record<string, Situation> = {
  'everything is well': {
    probes: [primary('pg1'), standby('pg2'), standby('pg3')],
    code: 'healthy',
    detail: /pg1 accepts writes and every standby follows/,
    nodes: {
      pg1: {
        role: 'primary',
        state: 'running',
        upstream: null,
        timeline: 3,
        lsn: '0/5000000',
        lagBytes: 0,
        lagMs: 0,
        syncState: null,
        slot: null,
        serverVersion: '15.18',
        startedAt: STARTED,
        problem: null,
      },
      pg2: {
        role: 'standby',
        state: 'streaming',
        upstream: 'pg1',
        timeline: 3,
        lsn: '0/5000000',
        lagBytes: 0,
        lagMs: 0,
        syncState: 'async',
        slot: { name: 'repmgr_slot_2', active: true, retainedBytes: 100 },
        problem: null,
      },
    },
  },
  'the answers come in another order': {
    probes: [standby('pg3'), standby('pg2'), primary('pg1')],
    code: 'healthy',
    nodes: { pg1: { role: 'primary' }, pg3: { role: 'standby' } },
  },
  'the primary is another node than the first': {
    probes: [
      standby('pg1', {}, '10.0.0.2'),
      primary('pg2', { streams: [stream('pg1'), stream('pg3')] }),
      standby('pg3', {}, '10.0.0.2'),
    ],
    code: 'healthy',
    primary: 'pg2',
    nodes: { pg1: { role: 'standby', upstream: 'pg2', lagBytes: 0 }, pg2: { role: 'primary', lagBytes: 0 } },
  },
  'nobody has written for a day: the last commit is old, and nothing lags': {
    probes: [primary('pg1'), standby('pg2', { replayAgeMs: 86_400_000 }), standby('pg3', { replayAgeMs: null })],
    code: 'healthy',
    nodes: { pg2: { lagMs: 0 }, pg3: { lagMs: 0 } },
  },
  'received, and not replayed yet': {
    probes: [primary('pg1'), standby('pg2', { replayedLsn: '0/4F00000', replayAgeMs: 1500 }), standby('pg3')],
    code: 'healthy',
    nodes: { pg2: { state: 'streaming', lsn: '0/5000000', lagBytes: 0, lagMs: 1500 } },
  },
  'received less than replayed, as after a restart from the archive': {
    probes: [primary('pg1'), standby('pg2', { receivedLsn: '0/4000000' }), standby('pg3')],
    code: 'healthy',
    nodes: { pg2: { lsn: '0/5000000', lagBytes: 0, lagMs: 0 } },
  },
  'a gap in bytes': {
    probes: [primary('pg1'), standby('pg2', { receivedLsn: '0/4000000', replayedLsn: '0/4000000' }), standby('pg3')],
    code: 'healthy',
    nodes: { pg2: { lagBytes: 0x1000000, lagMs: 0 } },
  },
  'a gap over the border of the halves': {
    probes: [
      primary('pg1', { currentLsn: '1/10' }),
      standby('pg2', { receivedLsn: '0/FFFFFFF0', replayedLsn: '0/FFFFFFF0' }),
      standby('pg3'),
    ],
    code: 'healthy',
    nodes: { pg2: { lagBytes: 0x20 } },
  },
  'a standby that was asked later is in front of what the primary said': {
    probes: [primary('pg1'), standby('pg2', { receivedLsn: '0/5000100', replayedLsn: '0/5000100' }), standby('pg3')],
    code: 'healthy',
    nodes: { pg2: { lsn: '0/5000100', lagBytes: 0, lagMs: 0 } },
  },
  'catching up: what it has is replayed, and it lacks a lot': {
    probes: [
      primary('pg1', { streams: [stream('pg2', { state: 'catchup' }), stream('pg3')] }),
      standby('pg2', { receivedLsn: '0/1000000', replayedLsn: '0/1000000', replayAgeMs: 60_000 }),
      standby('pg3'),
    ],
    code: 'healthy',
    nodes: { pg2: { state: 'catching_up', lagBytes: 0x4000000, lagMs: 60_000, problem: null } },
  },
  'detached: old, although it has replayed all that it ever received': {
    probes: [
      primary('pg1', {
        streams: [stream('pg3')],
        slots: [slot(2, { active: false, retainedBytes: 5_000_000 })],
      }),
      detached('pg2', { receivedLsn: '0/4000000', replayedLsn: '0/4000000', replayAgeMs: 3_600_000 }),
      standby('pg3'),
    ],
    code: 'standby_detached',
    detail: /pg2 receives no WAL/,
    nodes: {
      pg2: {
        role: 'standby',
        state: 'detached',
        upstream: null,
        lagBytes: 0x1000000,
        lagMs: 3_600_000,
        syncState: null,
        slot: { name: 'repmgr_slot_2', active: false, retainedBytes: 5_000_000 },
        problem: /stream from pg1 is down/,
      },
    },
  },
  'detached, and nothing is missing yet': {
    probes: [primary('pg1', { streams: [stream('pg3')] }), detached('pg2', { replayAgeMs: 9000 }), standby('pg3')],
    code: 'standby_detached',
    nodes: { pg2: { state: 'detached', lagBytes: 0, lagMs: 0 } },
  },
  'a receiver that waits is no stream': {
    probes: [
      primary('pg1', { streams: [] }),
      standby('pg2', { receiver: { status: 'waiting', upstreamHost: '10.0.0.1', slotName: null } }),
      standby('pg3'),
    ],
    code: 'standby_detached',
    nodes: { pg2: { state: 'detached', upstream: 'pg1' } },
  },
  'a standby that has replayed nothing yet': {
    probes: [
      primary('pg1'),
      detached('pg2', { receivedLsn: undefined, replayedLsn: undefined, replayAgeMs: null } as never),
      standby('pg3'),
    ],
    code: 'standby_detached',
    nodes: { pg2: { lsn: null, lagBytes: null, lagMs: null } },
  },
  'one standby does not answer': {
    probes: [primary('pg1', { streams: [stream('pg3')] }), down('pg2'), standby('pg3')],
    code: 'standby_down',
    detail: /pg2 does not answer/,
    nodes: {
      pg2: {
        role: 'unknown',
        state: 'unreachable',
        problem: 'pg2 refused',
        lsn: null,
        lagBytes: null,
        host: '10.0.0.2',
      },
    },
  },
  'one standby was not asked': {
    probes: [primary('pg1'), standby('pg3')],
    code: 'standby_down',
    nodes: { pg2: { state: 'unreachable', problem: 'not asked' } },
  },
  'one is down and one detached: the worse one is the diagnosis': {
    probes: [primary('pg1', { streams: [] }), down('pg2'), detached('pg3')],
    code: 'standby_down',
  },
  'nobody answers, before it was built': {
    cluster: described,
    probes: [down('pg1'), down('pg2'), down('pg3')],
    code: 'not_built',
    primary: null,
    timeline: null,
    systemIdentifier: null,
  },
  'nobody answers, after it was built': {
    probes: [down('pg1'), down('pg2'), down('pg3')],
    code: 'unreachable',
    detail: /network/,
    primary: null,
    timeline: null,
    systemIdentifier: OURS,
  },
  'two accept writes': {
    probes: [primary('pg1'), primary('pg2', { timeline: 4 }), standby('pg3')],
    code: 'two_primaries',
    detail: /pg1 and pg2 both accept writes/,
    primary: null,
    timeline: null,
    nodes: {
      pg1: { role: 'primary' },
      pg2: { role: 'primary', timeline: 4 },
      pg3: { role: 'standby', lagBytes: null },
    },
  },
  'two accept writes and the third is down': {
    probes: [primary('pg1'), primary('pg2'), down('pg3')],
    code: 'two_primaries',
    primary: null,
  },
  'the primary is down and nobody follows it': {
    probes: [down('pg1'), detached('pg2'), detached('pg3')],
    code: 'no_primary',
    primary: null,
    nodes: { pg2: { state: 'detached', lagBytes: null } },
  },
  'all are standbys': {
    probes: [standby('pg1', {}, '10.0.0.2'), standby('pg2'), standby('pg3')],
    code: 'no_primary',
    primary: null,
  },
  'the primary does not answer us, but a standby still streams from it': {
    probes: [down('pg1'), standby('pg2'), detached('pg3')],
    code: 'primary_unreachable_from_here',
    detail: /pg1 does not answer us, but pg2 still receives from it/,
    primary: null,
    nodes: { pg2: { state: 'streaming', upstream: 'pg1', lagBytes: null, lagMs: 0 } },
  },
  'cascaded: the third follows the second, as it is described': {
    cluster: cascaded,
    probes: [
      primary('pg1', { streams: [stream('pg2')], slots: [slot(2)] }),
      standby('pg2', { streams: [stream('pg3')], slots: [slot(3, { retainedBytes: 7 })] }),
      standby('pg3', {}, '10.0.0.2'),
    ],
    code: 'healthy',
    nodes: {
      pg3: { upstream: 'pg2', state: 'streaming', lagBytes: 0, syncState: 'async', slot: { retainedBytes: 7 } },
    },
  },
  'cascaded: the lag is counted from the primary': {
    cluster: cascaded,
    probes: [
      primary('pg1', { streams: [stream('pg2')] }),
      standby('pg2', { streams: [stream('pg3')], receivedLsn: '0/4000000', replayedLsn: '0/4000000' }),
      standby('pg3', { receivedLsn: '0/4000000', replayedLsn: '0/4000000' }, '10.0.0.2'),
    ],
    code: 'healthy',
    nodes: { pg3: { lagBytes: 0x1000000 } },
  },
  'cascaded: its upstream is down, and both are told': {
    cluster: cascaded,
    probes: [primary('pg1', { streams: [], slots: [slot(2, { active: false })] }), down('pg2'), detached('pg3')],
    code: 'standby_down',
    detail: /pg2 does not answer\. pg3 receives no WAL: pg2, which it streams from, does not answer/,
    nodes: {
      pg2: { slot: { active: false } },
      pg3: { state: 'detached', slot: null, problem: /stream from pg2 is down/ },
    },
  },
  'cascaded: what it streams from has lost its WAL': {
    cluster: cascaded,
    probes: [
      primary('pg1', { streams: [stream('pg2')] }),
      standby('pg2', { slots: [slot(3, { active: false, walStatus: 'lost' })] }),
      detached('pg3'),
    ],
    code: 'slot_lost',
    detail: /pg2 has removed WAL that pg3 had not received/,
  },
  'cascaded: it streams from another node than is described': {
    cluster: cascaded,
    probes: [primary('pg1'), standby('pg2'), standby('pg3')],
    code: 'standby_detached',
    detail:
      /pg3 streams from pg1, and is to stream from pg2: POST \/v1\/clusters\/orders\/nodes\/pg3\/follow moves it there/,
    nodes: {
      pg3: { state: 'streaming', upstream: 'pg1', slot: { name: 'repmgr_slot_3' }, problem: /is to stream from pg2/ },
    },
  },
  'cascaded: the one that it streams from became the primary': {
    cluster: cascaded,
    probes: [
      standby('pg1', {}, '10.0.0.2'),
      primary('pg2', { streams: [stream('pg1'), stream('pg3')], slots: [slot(1), slot(3)] }),
      standby('pg3', {}, '10.0.0.2'),
    ],
    code: 'healthy',
    primary: 'pg2',
    nodes: { pg1: { slot: { name: 'repmgr_slot_1' } }, pg3: { upstream: 'pg2' } },
  },
  'cascaded: that it still follows says nothing of the primary': {
    cluster: cascaded,
    probes: [down('pg1'), down('pg2'), standby('pg3', {}, '10.0.0.2')],
    code: 'no_primary',
    primary: null,
  },
  'one streams from another standby, and nobody asked for that': {
    probes: [
      primary('pg1', { streams: [stream('pg2')] }),
      standby('pg2', { streams: [stream('pg3')] }),
      standby('pg3', {}, '10.0.0.2'),
    ],
    code: 'standby_detached',
    detail: /pg3 streams from pg2, and is to stream from pg1/,
    nodes: { pg3: { upstream: 'pg2', state: 'streaming', lagBytes: 0, syncState: 'async' } },
  },
  'delayed: what waits its time is no trouble': {
    probes: [
      primary('pg1'),
      standby('pg2', { replayedLsn: '0/4000000', replayAgeMs: 3_601_000, applyDelayMs: 3_600_000 }),
      standby('pg3', { applyDelayMs: 0 }),
    ],
    code: 'healthy',
    nodes: {
      pg2: { lagBytes: 0, lagMs: 3_601_000, applyDelayMs: 3_600_000, problem: null },
      pg3: { applyDelayMs: null },
    },
  },
  'a witness is neither a primary nor foreign': {
    cluster: watched,
    probes: [primary('pg1'), standby('pg2'), witness('pg3')],
    code: 'healthy',
    nodes: { pg3: { role: 'witness', state: 'running', upstream: 'pg1', lsn: null, lagBytes: null, slot: null } },
  },
  'a witness that is asked first does not say which cluster this is': {
    cluster: { ...watched, nodes: [...watched.nodes].reverse(), systemIdentifier: undefined } as never,
    probes: [witness('pg3'), primary('pg1', { streams: [] }), down('pg2')],
    code: 'standby_down',
    systemIdentifier: OURS,
  },
  'a witness is down': {
    cluster: watched,
    probes: [primary('pg1'), standby('pg2'), down('pg3')],
    code: 'witness_down',
    detail: /^pg3, the witness, does not answer\.$/,
    nodes: { pg3: { role: 'witness', state: 'unreachable', problem: 'pg3 refused' } },
  },
  'only the witness is left': {
    cluster: watched,
    probes: [down('pg1'), down('pg2'), witness('pg3')],
    code: 'no_primary',
    primary: null,
    nodes: { pg3: { role: 'witness', upstream: null } },
  },
  'a witness that holds a copy of the data is none': {
    cluster: watched,
    probes: [primary('pg1'), standby('pg2'), standby('pg3')],
    code: 'foreign_node',
    detail: /pg3/,
    nodes: { pg3: { role: 'unknown', state: 'foreign', problem: /described as a witness/ } },
  },
  'the upstream is no node of ours': {
    probes: [primary('pg1'), standby('pg2', {}, '192.0.2.99'), standby('pg3')],
    code: 'healthy',
    nodes: { pg2: { upstream: null, state: 'streaming' } },
  },
  'a node runs another database cluster': {
    probes: [
      primary('pg1', { streams: [stream('pg3')] }),
      primary('pg2', { systemIdentifier: THEIRS }),
      standby('pg3'),
    ],
    code: 'foreign_node',
    detail: /pg2 runs another database cluster/,
    primary: 'pg1',
    nodes: {
      pg2: { role: 'unknown', state: 'foreign', serverVersion: '15.18', lsn: null, problem: new RegExp(THEIRS) },
    },
  },
  'a foreign primary does not make two primaries, nor one': {
    probes: [primary('pg1', { systemIdentifier: THEIRS }), standby('pg2'), standby('pg3')],
    code: 'foreign_node',
    primary: null,
  },
  'the identifier is not recorded yet: the majority says it': {
    cluster: described,
    probes: [primary('pg1'), standby('pg2'), standby('pg3', { systemIdentifier: THEIRS })],
    code: 'foreign_node',
    primary: 'pg1',
    systemIdentifier: OURS,
    nodes: { pg3: { state: 'foreign' } },
  },
  'what is recorded counts more than the majority': {
    probes: [
      primary('pg1'),
      standby('pg2', { systemIdentifier: THEIRS }),
      standby('pg3', { systemIdentifier: THEIRS }),
    ],
    code: 'foreign_node',
    detail: /pg2, pg3/,
    primary: 'pg1',
    systemIdentifier: OURS,
  },
  synchronous: {
    probes: [
      primary('pg1', { streams: [stream('pg2', { syncState: 'sync' }), stream('pg3', { syncState: 'potential' })] }),
      standby('pg2'),
      standby('pg3'),
    ],
    code: 'healthy',
    nodes: { pg2: { syncState: 'sync' }, pg3: { syncState: 'potential' } },
  },
  'a slot whose WAL is gone, and a standby that is away: it cannot come back': {
    probes: [
      primary('pg1', {
        streams: [stream('pg3')],
        slots: [slot(2, { active: false, retainedBytes: null, walStatus: 'lost', safeWalBytes: null }), slot(3)],
      }),
      down('pg2'),
      standby('pg3'),
    ],
    code: 'slot_lost',
    detail: /^pg1 has removed WAL that pg2 .* cloned anew.* pg2 does not answer\.$/,
    nodes: { pg2: { state: 'unreachable', slot: { walStatus: 'lost', retainedBytes: null } } },
  },
  'a slot whose WAL is gone, and a standby that asks for it in vain': {
    probes: [
      primary('pg1', { streams: [stream('pg3')], slots: [slot(2, { active: false, walStatus: 'lost' }), slot(3)] }),
      detached('pg2'),
      standby('pg3'),
    ],
    code: 'slot_lost',
    detail: /pg2 receives no WAL/,
    nodes: { pg2: { state: 'detached', problem: /stream from pg1 is down.*has removed WAL.*cloned anew/ } },
  },
  'a slot that is about to lose what its standby needs': {
    probes: [
      primary('pg1', { slots: [slot(2, { walStatus: 'unreserved', safeWalBytes: -4_000_000 }), slot(3)] }),
      standby('pg2'),
      standby('pg3'),
    ],
    code: 'slot_at_risk',
    detail: /pg1 is about to remove WAL that pg2 needs.*raise max_slot_wal_keep_size on pg1/,
    nodes: { pg2: { state: 'streaming', slot: { safeWalBytes: -4_000_000 }, problem: /past max_slot_wal_keep_size/ } },
  },
  'a slot that keeps more than usual is a slot that does its work': {
    probes: [primary('pg1', { slots: [slot(2, { walStatus: 'extended' }), slot(3)] }), standby('pg2'), standby('pg3')],
    code: 'healthy',
    nodes: { pg2: { slot: { walStatus: 'extended' }, problem: null } },
  },
  'a standby without a slot': {
    probes: [primary('pg1', { slots: [slot(2)] }), standby('pg2'), standby('pg3')],
    code: 'healthy',
    nodes: { pg3: { slot: null } },
  },
  'one node alone': {
    cluster: { ...built, nodes: built.nodes.slice(0, 1) },
    probes: [primary('pg1', { streams: [], slots: [] })],
    code: 'healthy',
  },
}

for (const [what, situation] of Object.entries(situations)) {
  t.test(what, async t => {
    const cluster = situation.cluster ?? built
    const status = describeStatus(cluster, situation.probes, { now: NOW, operation: null })
    t.equal(status.diagnosis.code, situation.code)
    if (situation.detail) t.match(status.diagnosis.detail, situation.detail)
    t.equal(status.primary, situation.primary === undefined ? 'pg1' : situation.primary)
    if (situation.timeline !== undefined) t.equal(status.timeline, situation.timeline)
    if (situation.systemIdentifier !== undefined) t.equal(status.systemIdentifier, situation.systemIdentifier)
    t.strictSame(
      status.nodes.map(({ name }) => name),
      cluster.nodes.map(({ name }) => name),
      'one row a node, in the order of the record',
    )
    for (const [name, wanted] of Object.entries(situation.nodes ?? {})) {
      t.match(
        status.nodes.find(node => node.name === name),
        wanted,
        name,
      )
    }
  })
}

t.test('it says when it looked, and what is changing the cluster', async t => {
  const status = describeStatus(built, [], { now: NOW, operation: 'op_1' })
  t.match(status, { cluster: 'orders', observedAt: NOW, operation: 'op_1' })
  t.equal(slotName(12), 'repmgr_slot_12')
})
