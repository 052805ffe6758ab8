import t from 'tap'
import type { RecordedPromotion } from '../../src/cluster/diagnosis.js'
import type { MetadataNode } from '../../src/cluster/metadata.js'
import { type Cluster, newCluster } from '../../src/cluster/model.js'
import type { FailureReason, Observation, Probe, SlotObservation } from '../../src/cluster/observation.js'
import { slotName } from '../../src/cluster/slot.js'
import { describeStatus } from '../../src/cluster/status.js'

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
const slot = (nodeId: number, change: Partial<SlotObservation> = {}): SlotObservation => ({
  name: slotName(nodeId),
  kind: 'physical',
  temporary: false,
  database: null,
  usedBy: null,
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
type Answer = Extract<Probe, { observation: Observation }>
const primary = (node: string, change: Partial<Observation> = {}): Answer => ({
  node,
  at: NOW,
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
const standby = (node: string, change: Partial<Observation> = {}, upstreamHost = '10.0.0.1'): Answer => ({
  node,
  at: NOW,
  observation: {
    ...common,
    inRecovery: true,
    receivedLsn: '0/5000000',
    replayedLsn: '0/5000000',
    replayAgeMs: 40,
    receiver: { status: 'streaming', upstreamHost, slotName: 'repmgr_slot_2', lastMessageAgeMs: 200 },
    ...change,
  },
})
const detached = (node: string, change: Partial<Observation> = {}): Answer => {
  const probe = standby(node, change)
  delete probe.observation.receiver
  return probe
}
const down = (node: string, reason: FailureReason = 'refused'): Probe => ({
  node,
  at: NOW,
  failure: { reason, detail: `${node} ${reason}` },
})

const witness = (node: string): Answer => ({
  node,
  at: NOW,
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
      standby('pg3', { receivedLsn: '1/10', replayedLsn: '1/10' }),
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
      standby('pg2', {
        receiver: { status: 'waiting', upstreamHost: '10.0.0.1', slotName: null, lastMessageAgeMs: null },
      }),
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
    detail: /pg1 \(timeline 3\) and pg2 \(timeline 4\) both accept writes\. This service has no promotion on record/,
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
      primary('pg1', { streams: [stream('pg2', { replayLagMs: 3_600_900 }), stream('pg3')] }),
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
  'where each node is, and how it receives': {
    probes: [primary('pg1'), standby('pg2', { receivedLsn: '0/4000000', replayedLsn: '0/4F00000' }), standby('pg3')],
    code: 'healthy',
    nodes: {
      pg1: {
        ...{ nodeId: 1, location: 'default', priority: 100, failure: null, receiver: null, conflicts: null },
        ...{ lsn: '0/5000000', writtenLsn: '0/5000000', receivedLsn: null, replayedLsn: null },
      },
      pg2: {
        ...{ lsn: '0/4F00000', writtenLsn: null, receivedLsn: '0/4000000', replayedLsn: '0/4F00000' },
        receiver: { status: 'streaming', upstreamHost: '10.0.0.1', slot: 'repmgr_slot_2', lastMessageAgeMs: 200 },
        slots: [],
      },
    },
  },
  'queries that a standby cancelled are counted': {
    probes: [
      primary('pg1'),
      standby('pg2', {
        conflicts: { tablespace: 0, lock: 1, snapshot: 20, bufferPin: 300, deadlock: 0, logicalSlot: 4000 },
      }),
      standby('pg3'),
    ],
    code: 'healthy',
    nodes: { pg2: { conflicts: { total: 4321, snapshot: 20 } }, pg3: { conflicts: null } },
  },
  'slots: for whom each is, and which ones keep WAL for nobody': {
    probes: [
      primary('pg1', {
        streams: [stream('pg2'), stream('barman')],
        slots: [
          slot(2),
          slot(3, { active: false, retainedBytes: 500 }),
          slot(1, { active: false, retainedBytes: 70 }),
          slot(9, { active: false, retainedBytes: 4096 }),
          slot(9, { name: 'never_used', active: false, retainedBytes: null, walStatus: null }),
          slot(9, { name: 'barman', usedBy: 'barman' }),
          slot(9, { name: 'copy', active: false, temporary: true }),
          slot(9, { name: 'feed', kind: 'logical', database: 'shop', active: false, retainedBytes: 9 }),
        ],
      }),
      standby('pg2', { slots: [slot(3, { active: false, retainedBytes: 8 })] }),
      down('pg3'),
    ],
    code: 'standby_down',
    nodes: {
      pg1: {
        slots: [
          { name: 'barman', node: null, usedBy: 'barman', orphan: false },
          { name: 'copy', temporary: true, orphan: false },
          { name: 'feed', kind: 'logical', database: 'shop', node: null, orphan: false, retainedBytes: 9 },
          { name: 'never_used', orphan: true },
          { name: 'repmgr_slot_1', node: 'pg1', orphan: true },
          { name: 'repmgr_slot_2', node: 'pg2', orphan: false },
          { name: 'repmgr_slot_3', node: 'pg3', orphan: false, retainedBytes: 500 },
          { name: 'repmgr_slot_9', node: null, orphan: true },
        ],
        problem:
          'WAL is kept for nobody by repmgr_slot_1 (70 bytes), repmgr_slot_9 (4096 bytes): where nobody is to come back for it, pg_drop_replication_slot on pg1 lets it go.',
      },
      pg2: { slots: [{ name: 'repmgr_slot_3', node: 'pg3', orphan: true }], problem: /repmgr_slot_3 \(8 bytes\)/ },
      pg3: { slots: null },
    },
  },
  'without a primary nobody can say which slots of ours are left over': {
    probes: [down('pg1'), detached('pg2', { slots: [slot(3, { active: false })] }), detached('pg3')],
    code: 'no_primary',
    primary: null,
    nodes: { pg2: { slots: [{ name: 'repmgr_slot_3', orphan: false }] } },
  },
  'far behind in time': {
    probes: [
      primary('pg1', { streams: [stream('pg2', { replayLagMs: 400_000 }), stream('pg3')] }),
      standby('pg2', { replayedLsn: '0/4F00000', replayAgeMs: 900_000 }),
      standby('pg3'),
    ],
    code: 'standby_lagging',
    detail: /^pg2 is far behind: it has not replayed for 410 s what it received\./,
    nodes: { pg2: { lagMs: 410_000, problem: /far behind/ } },
  },
  'a first write after a quiet day is no lag of a day': {
    probes: [primary('pg1'), standby('pg2', { replayedLsn: '0/4F00000', replayAgeMs: 86_400_000 }), standby('pg3')],
    code: 'healthy',
    nodes: { pg2: { lagMs: 10_003 } },
  },
  'far behind in bytes': {
    probes: [
      primary('pg1', { currentLsn: '0/60000000', streams: [stream('pg2', { state: 'catchup' }), stream('pg3')] }),
      standby('pg2'),
      standby('pg3', { receivedLsn: '0/60000000', replayedLsn: '0/60000000' }),
    ],
    code: 'standby_lagging',
    detail: /pg2 is far behind: it lacks 1526726656 bytes of WAL/,
  },
  'delayed on purpose, and late beyond that': {
    probes: [
      primary('pg1', { streams: [stream('pg2', { replayLagMs: 4_000_000 }), stream('pg3')] }),
      standby('pg2', { replayedLsn: '0/4000000', replayAgeMs: 4_000_000, applyDelayMs: 3_600_000 }),
      standby('pg3'),
    ],
    code: 'standby_lagging',
  },
  'diverged: it has replayed what the new primary never had': {
    probes: [
      primary('pg1', { timeline: 3, history: '1\t0/2000000\tx\n2\t0/4000000\tx\n', streams: [] }),
      detached('pg2', { timeline: 2, history: '1\t0/2000000\tx\n', replayedLsn: '0/4000028' }),
      detached('pg3', { timeline: 2, history: '1\t0/2000000\tx\n', replayedLsn: '0/4000000' }),
    ],
    code: 'standby_diverged',
    detail:
      /^pg2 cannot follow pg1: it has replayed timeline 2 up to 0\/4000028, and its history parts from the primary's, which is on timeline 3, at 0\/4000000\. POST .*\/pg2\/rejoin.* pg2 receives no WAL\. pg3 receives no WAL\.$/,
    nodes: { pg2: { problem: /cannot follow pg1/ }, pg3: { problem: /^It receives no WAL/ } },
  },
  'diverged: two timelines of one number that began at different points': {
    probes: [
      primary('pg1', { timeline: 2, history: '1\t0/4000000\tx\n', streams: [] }),
      detached('pg2', { timeline: 2, history: '1\t0/3000000\tx\n' }),
      detached('pg3', { timeline: 1 }),
    ],
    code: 'standby_diverged',
    detail: /pg2 cannot follow pg1.*at 0\/3000000\. .*pg3 cannot follow pg1.*at 0\/4000000\. /,
  },
  'a history that is half written says nothing': {
    probes: [
      primary('pg1', { timeline: 3, history: '', streams: [] }),
      detached('pg2', { timeline: 2, history: '1\t0/2000000\tx\n' }),
      detached('pg3', { timeline: 2 }),
    ],
    code: 'standby_detached',
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

/** What repmgr writes while pg1 is the primary. */
const registered = (change: Record<number, Partial<MetadataNode>> = {}): MetadataNode[] =>
  built.nodes.map(({ name, nodeId, host }) => ({
    nodeId,
    name,
    type: nodeId === 1 ? 'primary' : 'standby',
    active: true,
    upstreamNodeId: nodeId === 1 ? null : 1,
    conninfo: `host=${host} port=5432 user=repmgr password=secret`,
    priority: 100,
    location: 'default',
    ...change[nodeId],
  }))
const knowing = (probe: Answer, rows = registered()): Answer => ({ ...probe, metadata: { rows } })
const look = (probes: Probe[], cluster = built, promotion?: RecordedPromotion) =>
  describeStatus(cluster, probes, { now: NOW, operation: null, ...(promotion ? { promotion } : {}) })

t.test('a silent primary: what can be told from how it is silent', async t => {
  const cases: [FailureReason, string, RegExp][] = [
    [
      'refused',
      'primary_unreachable',
      /pg1, the primary, refuses connections.*Whether it crashed or was stopped, only its host/,
    ],
    [
      'timed_out',
      'primary_unreachable',
      /pg1, the primary, does not answer \(timed out\), and no standby receives from it/,
    ],
    ['other', 'primary_unreachable', /does not answer \(other\)/],
    ['starting_up', 'primary_starting', /pg1, the primary, lives, and accepts no connections for now/],
    ['too_many_connections', 'primary_unreachable_from_here', /lives, but does not let this service in: pg1 too_many/],
    ['authentication', 'primary_unreachable_from_here', /lives, but does not let this service in/],
    ['tls', 'primary_unreachable_from_here', /lives, but does not let this service in/],
  ]
  for (const [reason, code, detail] of cases) {
    const { diagnosis, nodes } = look([down('pg1', reason), knowing(detached('pg2')), knowing(detached('pg3'))])
    t.equal(diagnosis.code, code, reason)
    t.match(diagnosis.detail, detail)
    t.match(nodes[0], { state: 'unreachable', failure: { reason, detail: `pg1 ${reason}` } })
    t.strictSame(diagnosis.evidence[0], { node: 'pg1', observed: `does not answer: pg1 ${reason}`, at: NOW, reason })
  }
  const followed = look([down('pg1', 'timed_out'), knowing(standby('pg2')), knowing(detached('pg3'))])
  t.match(followed.diagnosis, {
    code: 'primary_unreachable_from_here',
    detail: /pg1 does not answer us, but pg2 still receives from it \(last message 200 ms before\)/,
  })
  const other = registered({ 1: { type: 'standby' }, 2: { type: 'primary' } })
  t.equal(
    look([down('pg1'), knowing(detached('pg2')), knowing(detached('pg3'), other)]).diagnosis.code,
    'no_primary',
    'where the nodes do not agree on which one it was, nothing is said of it',
  )
  t.match(
    look([down('pg1'), knowing(detached('pg2')), knowing(detached('pg3'), other)], built, { to: 'pg1', timeline: 3 })
      .diagnosis.code,
    'primary_unreachable',
    'but for the promotion that is on record',
  )
  const demoted = [knowing(detached('pg1')), knowing(detached('pg2')), knowing(detached('pg3'))]
  t.match(look(demoted).diagnosis, { code: 'no_primary', detail: /pg1, which was the primary, is in recovery/ })
  const handover = { operation: 'op_1', from: 'pg1', to: 'pg2' }
  t.match(
    look([down('pg1'), knowing(detached('pg2')), knowing(detached('pg3'))], { ...built, handover }).diagnosis.detail,
    /switchover from pg1 to pg2 was begun.*op_1\/retry/,
  )
})

t.test('a standby that lives and is silent', async t => {
  const said = (reason: FailureReason) => look([primary('pg1'), down('pg2', reason), standby('pg3')]).diagnosis.detail
  t.equal(said('refused'), 'pg2 does not answer.')
  t.equal(said('starting_up'), 'pg2 lives, and accepts no connections for now.')
  t.equal(said('too_many_connections'), 'pg2 lives, but does not let this service in.')
})

t.test('two primaries: which one the last promotion made, where it is on record', async t => {
  const probes = [primary('pg1'), primary('pg2', { timeline: 4 }), standby('pg3')]
  t.match(look(probes, built, { to: 'pg2', timeline: 4 }).diagnosis, {
    code: 'two_primaries',
    detail:
      'pg1 (timeline 3) and pg2 (timeline 4) both accept writes. The last promotion that this service made was that of pg2, to timeline 4. Stop the one that must not, before anything else.',
  })
})

t.test('repmgr.nodes beside the facts', async t => {
  const probes = (rows: MetadataNode[]) => [
    knowing(primary('pg1'), rows),
    knowing(standby('pg2'), rows),
    knowing(standby('pg3'), rows),
  ]
  t.equal(look(probes(registered())).diagnosis.code, 'healthy')
  const cases: Record<string, [MetadataNode[], RegExp]> = {
    'no row': [registered().slice(0, 2), /does not have pg3 \(node 3\), which is a standby\./],
    'a name': [registered({ 3: { name: 'pg8' } }), /has node 3 as pg8, and it is pg3\./],
    'a type': [registered({ 3: { type: 'primary' } }), /has pg3 as a primary, and it is a standby\./],
    inactive: [registered({ 3: { active: false } }), /has pg3 as inactive, and it runs\./],
    'an upstream': [registered({ 3: { upstreamNodeId: 2 } }), /has pg3 as a standby of pg2, and it streams from pg1\./],
    'no upstream': [registered({ 3: { upstreamNodeId: null } }), /has pg3 as a standby of nobody, and it streams/],
    'an upstream of the primary': [registered({ 1: { upstreamNodeId: 2 } }), /has pg1 as one that streams from pg2/],
    'an address': [
      registered({ 3: { conninfo: 'host=10.9.9.9 port=5433' } }),
      /has pg3 at 10\.9\.9\.9:5433, and it is at 10\.0\.0\.3:5432\./,
    ],
    'a priority': [registered({ 3: { priority: 7 } }), /has pg3 with priority 7, and it is to have 100\./],
    'a location': [registered({ 3: { location: 'oulu' } }), /has pg3 at location oulu, and it is to be at default\./],
    'a stranger': [
      [...registered(), { ...registered()[2], nodeId: 7, name: 'old' } as MetadataNode],
      /has a standby old \(node 7\), which is no node of orders\./,
    ],
  }
  for (const [what, [rows, words]] of Object.entries(cases)) {
    const { diagnosis, nodes } = look(probes(rows))
    t.equal(diagnosis.code, 'metadata_drift', what)
    t.match(diagnosis.detail, /^repmgr\.nodes on pg1, pg2, pg3 /, what)
    t.match(diagnosis.detail, words, what)
    t.equal(nodes[1]?.metadata?.disagreements.length, 1, what)
    t.equal(diagnosis.evidence.filter(({ observed }) => observed.startsWith('repmgr.nodes')).length, 3, what)
  }
  t.notMatch(JSON.stringify(look(probes(registered()))), /secret/, 'connection strings are not shown')
})

t.test('repmgr.nodes on one server only', async t => {
  const wrong = registered({ 3: { priority: 7 } })
  const on3 = (probe: Answer) => [knowing(primary('pg1')), knowing(standby('pg2')), knowing(probe, wrong)]
  t.match(look(on3(detached('pg3', { replayedLsn: '0/4000000', replayAgeMs: 60_000 }))).diagnosis, {
    detail: /receives no WAL\. repmgr\.nodes on pg3 has pg3 with priority 7/,
  })
  const replaying = standby('pg3', { replayedLsn: '0/4FFFFFF', replayAgeMs: 300 })
  const late = look(on3(replaying))
  t.equal(late.diagnosis.code, 'healthy', 'a moment behind the primary, its rows are those of a moment ago')
  t.equal(late.nodes[2]?.metadata?.disagreements.length, 1, 'which is not hidden')
  t.equal(look([knowing(primary('pg1'), wrong), knowing(replaying, wrong)]).diagnosis.code, 'standby_down')
  t.match(
    look([knowing(primary('pg1'), wrong), knowing(standby('pg2')), knowing(replaying, wrong)]).diagnosis.detail,
    /repmgr\.nodes on pg1, pg3 has/,
  )
  const seen = witness('pg3')
  const role = { type: 'witness', priority: 0 }
  t.equal(
    look(
      [knowing(primary('pg1'), registered({ 3: role })), standby('pg2'), knowing(seen, registered({ 3: role }))],
      watched,
    ).diagnosis.code,
    'healthy',
  )
  t.match(
    look([primary('pg1'), standby('pg2'), knowing(seen, registered({ 3: { ...role, upstreamNodeId: 2 } }))], watched)
      .diagnosis,
    { code: 'metadata_drift', detail: /on pg3 has pg3 as the witness of pg2, and pg1 is the primary/ },
  )
})

t.test('repmgr.nodes and nodes that do not answer', async t => {
  const after = registered({
    1: { active: false },
    2: { type: 'primary', upstreamNodeId: null },
    3: { upstreamNodeId: 2 },
  })
  const promoted = (rows: MetadataNode[]) =>
    look([
      down('pg1'),
      knowing(primary('pg2', { streams: [stream('pg3')], slots: [slot(3)] }), rows),
      knowing(standby('pg3', {}, '10.0.0.2'), rows),
    ]).diagnosis.detail
  t.equal(promoted(after), 'pg1 does not answer.', 'a lost primary is left as an inactive one')
  const active = after.map(row => ({ ...row, active: true }))
  t.match(promoted(active), /has pg1, which does not answer, as an active primary, and pg2 is the primary/)
  t.equal(
    look([knowing(primary('pg1')), down('pg2'), knowing(standby('pg3'))]).diagnosis.detail,
    'pg2 does not answer.',
  )
  const unread: Answer = { ...primary('pg1'), metadata: { failure: 'canceled' } }
  const { diagnosis, nodes } = look([unread, standby('pg2'), standby('pg3')])
  t.match(diagnosis, { code: 'metadata_drift', detail: /repmgr\.nodes cannot be read on pg1: canceled/ })
  t.match(nodes[0], { state: 'running', metadata: null, problem: /cannot be read there: canceled/ })
})

t.test('the evidence: what each node answered, and when', async t => {
  const later = '2026-03-01T12:00:01.000Z'
  const { diagnosis } = look([{ ...primary('pg1'), at: later }, standby('pg2'), detached('pg3')])
  t.strictSame(diagnosis.evidence, [
    { node: 'pg1', observed: 'accepts writes on timeline 3, and has written up to 0/5000000', at: later },
    {
      node: 'pg2',
      observed:
        'is in recovery on timeline 3, received up to 0/5000000, replayed up to 0/5000000; its WAL receiver is streaming, from pg1, and last heard from it 200 ms before',
      at: NOW,
    },
    {
      node: 'pg3',
      observed:
        'is in recovery on timeline 3, received up to 0/5000000, replayed up to 0/5000000; it has no WAL receiver',
      at: NOW,
    },
  ])
  t.match(look([primary('pg1', { systemIdentifier: THEIRS })]).diagnosis.evidence, [
    { node: 'pg1', observed: `answers, and has system identifier ${THEIRS}` },
    { node: 'pg2', observed: 'was not asked', reason: 'not_asked' },
  ])
})

t.test('it says when it looked, and what is changing the cluster', async t => {
  const status = describeStatus(built, [], { now: NOW, operation: 'op_1' })
  t.match(status, { cluster: 'orders', observedAt: NOW, operation: 'op_1' })
  t.equal(slotName(12), 'repmgr_slot_12')
})
