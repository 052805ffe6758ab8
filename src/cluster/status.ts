/**
 * From what each server says of itself to what the cluster is. Pure: observations in, status out. Who is primary is
 * read from the servers, never from the store.
 */
import { type Static, Type } from 'typebox'
import { ArchiveStatus, describeArchive } from './archive-status.js'
import { Diagnosis, diagnose, type Finding, type RecordedPromotion } from './diagnosis.js'
import { answersOf, type Evidence } from './evidence.js'
import { NodeMetadata } from './metadata.js'
import { metadataOfNodes } from './metadata-drift.js'
import type { Cluster } from './model.js'
import { rowOf, type View } from './node-row.js'
import { nullable } from './nullable.js'
import { type Observation, type Probe, ProbeFailure } from './observation.js'
import { Pause, pauseInForce } from './pause.js'
import { leftPaused } from './repmgrd.js'
import { ServerSlot } from './server-slots.js'
import { ReplicationSlot } from './slot.js'
import { dataNodes } from './topology.js'

const count = () => Type.Integer({ minimum: 0 })

export const WalReceiver = Type.Object(
  {
    status: Type.String({ description: 'As pg_stat_wal_receiver has it.', examples: ['streaming'] }),
    upstreamHost: nullable(Type.String({ description: 'The host that it receives from.' })),
    slot: nullable(Type.String({ description: 'The slot there that it streams through.' })),
    lastMessageAgeMs: nullable(
      Type.Integer({
        description:
          'Since upstream was last heard of. Up to half of `wal_sender_timeout` (60 s) where nothing is written.',
      }),
    ),
  },
  { additionalProperties: false, title: 'WalReceiver', description: 'Of a standby: how it receives WAL.' },
)

export const ReplicationConflicts = Type.Object(
  {
    total: count(),
    lock: count(),
    snapshot: count(),
    bufferPin: count(),
    deadlock: count(),
    tablespace: count(),
    logicalSlot: Type.Integer({ minimum: 0, description: 'From PostgreSQL 16 on.' }),
  },
  {
    additionalProperties: false,
    title: 'ReplicationConflicts',
    description:
      'Of a standby: queries that it cancelled because replay could not wait for them, in all its databases, since its statistics were reset.',
  },
)

export const NodeStatus = Type.Object(
  {
    name: Type.String(),
    nodeId: Type.Integer({ description: 'node_id in repmgr’s metadata.' }),
    host: Type.String(),
    location: Type.String({ description: 'As it is described.' }),
    priority: Type.Integer({ description: 'As it is described; 0: never promoted.' }),
    role: Type.Enum(['primary', 'standby', 'witness', 'unknown'], {
      title: 'NodeRole',
      description: 'As the server itself says; a witness as its record says.',
    }),
    state: Type.Enum(['running', 'streaming', 'catching_up', 'detached', 'unreachable', 'foreign'], {
      title: 'NodeState',
      description:
        'running: a primary or a witness that answers. streaming, catching_up: a standby that follows. detached: a standby without ' +
        'a stream. unreachable: no answer. foreign: it answers, but is another database cluster.',
    }),
    failure: nullable(ProbeFailure),
    upstream: nullable(Type.String({ description: 'Name of the node that it streams from.' })),
    receiver: nullable(WalReceiver),
    timeline: nullable(Type.Integer()),
    lsn: nullable(Type.String({ description: 'Primary: written. Standby: the later of received and replayed.' })),
    writtenLsn: nullable(Type.String({ description: 'Of a primary: up to where it has written.' })),
    receivedLsn: nullable(
      Type.String({
        description:
          'Of a standby: up to where it has received by stream since it started. Can be behind `replayedLsn`.',
      }),
    ),
    replayedLsn: nullable(Type.String({ description: 'Of a standby: up to where it has applied.' })),
    lagBytes: nullable(Type.Integer({ description: 'Behind the primary; 0 on the primary.' })),
    lagMs: nullable(
      Type.Integer({
        description:
          'Age of what is not replayed yet, at most; 0 where all that was received is replayed. Where replay is held back on purpose, that is part of it.',
      }),
    ),
    syncState: nullable(Type.String({ examples: ['async'] })),
    slot: nullable(ReplicationSlot),
    slots: nullable(
      Type.Array(ServerSlot, { description: 'Every slot on this server; null where it does not answer.' }),
    ),
    applyDelayMs: nullable(
      Type.Integer({ description: 'By how much its replay is held back, as its server says; null where it is not.' }),
    ),
    conflicts: nullable(ReplicationConflicts),
    metadata: nullable(NodeMetadata),
    serverVersion: nullable(Type.String({ examples: ['15.18'] })),
    startedAt: nullable(Type.String({ format: 'date-time' })),
    problem: nullable(Type.String({ description: 'What is wrong with this node, in words.' })),
  },
  { additionalProperties: false, title: 'NodeStatus', description: 'One node as it answered just now.' },
)
export type NodeStatus = Static<typeof NodeStatus>

export const ClusterStatus = Type.Object(
  {
    cluster: Type.String(),
    primary: nullable(Type.String({ description: 'Name of the one node that accepts writes.' })),
    timeline: nullable(Type.Integer()),
    systemIdentifier: nullable(Type.String()),
    diagnosis: Diagnosis,
    nodes: Type.Array(NodeStatus),
    archive: nullable(ArchiveStatus),
    observedAt: Type.String({ format: 'date-time' }),
    operation: nullable(Type.String({ description: 'The operation that is changing this cluster now.' })),
    pause: nullable(Pause),
  },
  { additionalProperties: false, title: 'ClusterStatus', description: 'A cluster as its servers answered just now.' },
)
export type ClusterStatus = Static<typeof ClusterStatus>

/** Puts the answers of all nodes together. `probes` has one entry a node, in any order. */
export function describeStatus(
  cluster: Cluster,
  probes: readonly Probe[],
  context: { now: string; operation: string | null; promotion?: RecordedPromotion },
): ClusterStatus {
  const data = dataNodes(cluster.nodes)
  const byNode = new Map(probes.map(probe => [probe.node, probe]))
  const said = (node: string) => {
    const probe = byNode.get(node)
    return probe && 'observation' in probe ? probe.observation : undefined
  }
  const identifier = cluster.systemIdentifier ?? majorityIdentifier(data.flatMap(({ name }) => said(name) ?? []))
  const ours = (node: string) => {
    const observation = said(node)
    return observation && observation.systemIdentifier === identifier ? observation : undefined
  }
  const primaries = data.flatMap(node => {
    const observation = ours(node.name)
    return observation?.inRecovery === false ? [{ node, timeline: observation.timeline }] : []
  })
  const primary = primaries.length === 1 ? primaries[0]?.node : undefined
  const view: View = { cluster, ours, primary, identifier }
  const rows = cluster.nodes.map(node => rowOf(view, node, byNode.get(node.name)))
  const metadata = metadataOfNodes(
    view,
    rows.map(({ status }) => status),
    byNode,
  )
  const nodes = rows.map(({ status }) => {
    const own = metadata.nodes.get(status.name)
    const problems = [status.problem, own?.problem].filter(problem => typeof problem === 'string')
    return { ...status, metadata: own?.metadata ?? null, problem: problems.length === 0 ? null : problems.join(' ') }
  })
  const archive = primary ? describeArchive(cluster, primary.name, ours(primary.name)?.archive) : null
  const repmgrd = leftPaused({
    said: cluster.nodes.flatMap(({ name }) => ({
      node: name,
      ...(said(name)?.repmgrd ?? { running: false, paused: false }),
    })),
    hold: cluster.repmgrd,
    expected: context.operation !== null || pauseInForce(cluster, Date.parse(context.now)) !== undefined,
  })
  const findings: Finding[] = [
    ...rows.flatMap(({ findings }) => findings),
    ...(primary && archive?.problem ? [archiveFinding(primary.name, archive, archive.problem)] : []),
    ...(repmgrd === undefined ? [] : [{ code: 'repmgrd_paused' as const, detail: repmgrd }]),
    ...metadata.findings,
  ]
  const told = diagnose(
    cluster,
    nodes,
    primaries.map(({ node: { name }, timeline }) => ({ name, timeline })),
    findings,
    context.promotion,
  )
  const facts = findings.flatMap(({ evidence = [] }): Evidence[] =>
    evidence.map(fact => ({ ...fact, at: byNode.get(fact.node)?.at ?? context.now })),
  )
  return {
    cluster: cluster.name,
    primary: primary?.name ?? null,
    timeline: (primary && ours(primary.name)?.timeline) ?? null,
    systemIdentifier: identifier ?? null,
    diagnosis: { ...told, evidence: [...answersOf(cluster, byNode, { identifier, now: context.now }), ...facts] },
    nodes,
    archive,
    observedAt: context.now,
    operation: context.operation,
    pause: pauseInForce(cluster, Date.parse(context.now)) ?? null,
  }
}

function archiveFinding(primary: string, archive: ArchiveStatus, problem: string): Finding {
  const observed = `last archived ${archive.lastArchivedWal ?? 'nothing'}, last failed ${archive.lastFailedWal ?? 'nothing'}, ${archive.waitingSegments} segments wait`
  return { code: 'archive_failing', detail: problem, evidence: [{ node: primary, observed }] }
}

/** Before the record knows the identifier: the one that most nodes have. */
function majorityIdentifier(observations: readonly Observation[]): string | undefined {
  const counts = new Map<string, number>()
  for (const { systemIdentifier } of observations) counts.set(systemIdentifier, (counts.get(systemIdentifier) ?? 0) + 1)
  return [...counts.entries()].sort((a, b) => b[1] - a[1])[0]?.[0]
}
