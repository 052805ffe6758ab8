/**
 * From what each server says of itself to what the cluster is. Pure: observations in, status out. Who is primary is
 * read from the servers, never from the store.
 */
import { type Static, type TSchema, Type } from 'typebox'
import { type ArchiveObservation, ArchiveStatus, describeArchive } from './archive-status.js'
import { Diagnosis, diagnose, type Finding } from './diagnosis.js'
import { lagBytes, laterLsn, parseLsn } from './lsn.js'
import type { Cluster, ClusterNode } from './model.js'
import { Pause, pauseInForce } from './pause.js'
import { leftPaused, type RepmgrdObservation } from './repmgrd.js'
import { ReplicationSlot, slotFinding, slotName } from './slot.js'
import { dataNodes, isWitness, upstreamOf } from './topology.js'

/** `type: [string, null]` where the schema is of one simple type, which reads better in the contract than a union. */
const nullable = <T extends TSchema & { type?: string }>(schema: T) =>
  Type.Unsafe<Static<T> | null>(
    schema.type === undefined || schema.type === 'object'
      ? { anyOf: [schema, { type: 'null' }] }
      : { ...schema, type: [schema.type, 'null'] },
  )

/** What one PostgreSQL server answered; times are read on the server, ages are in milliseconds. */
export interface Observation {
  inRecovery: boolean
  systemIdentifier: string
  serverVersion: string
  timeline: number
  /** Primary: current write position. Standby: the greater of received and replayed. */
  currentLsn?: string
  receivedLsn?: string
  replayedLsn?: string
  /** Milliseconds since the last replayed commit; null where nothing was replayed yet. */
  replayAgeMs?: number | null
  receiver?: { status: string; upstreamHost: string; slotName: string | null }
  /** Who streams from this server: by application_name, which is the node's name. */
  streams: { applicationName: string; state: string; syncState: string; replayLagMs: number | null }[]
  slots: ReplicationSlot[]
  /** Standby: for how long each commit waits before it is applied; 0 where none does. */
  applyDelayMs?: number
  startedAt: string
  /** Of a primary. */
  archive?: ArchiveObservation
  /** Where repmgr is installed. */
  repmgrd?: RepmgrdObservation
}

export type Probe =
  | { node: string; observation: Observation }
  | { node: string; failure: { reason: string; detail: string } }

export const NodeStatus = Type.Object(
  {
    name: Type.String(),
    host: Type.String(),
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
    upstream: nullable(Type.String({ description: 'Name of the node that it streams from.' })),
    timeline: nullable(Type.Integer()),
    lsn: nullable(Type.String({ description: 'Primary: written. Standby: the later of received and replayed.' })),
    lagBytes: nullable(Type.Integer({ description: 'Behind the primary; 0 on the primary.' })),
    lagMs: nullable(
      Type.Integer({
        description:
          'Age of what is not replayed yet; 0 where all that was received is replayed. Where replay is held back on purpose, that is part of it.',
      }),
    ),
    syncState: nullable(Type.String({ examples: ['async'] })),
    slot: nullable(ReplicationSlot),
    applyDelayMs: nullable(
      Type.Integer({ description: 'By how much its replay is held back, as its server says; null where it is not.' }),
    ),
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

/** A node's row, and what is wrong with it where that is worth telling of the cluster. */
interface Row {
  status: NodeStatus
  findings: Finding[]
}

/** What is known of the cluster while its nodes are looked at, one by one. */
interface View {
  cluster: Cluster
  /** Only answers of this cluster's own servers. */
  ours(node: string): Observation | undefined
  primary: ClusterNode | undefined
  identifier: string | undefined
}

/** Puts the answers of all nodes together. `probes` has one entry a node, in any order. */
export function describeStatus(
  cluster: Cluster,
  probes: readonly Probe[],
  context: { now: string; operation: string | null },
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
  const primaries = data.filter(({ name }) => ours(name)?.inRecovery === false)
  const primary = primaries.length === 1 ? primaries[0] : undefined
  const view: View = { cluster, ours, primary, identifier }
  const rows = cluster.nodes.map(node => rowOf(view, node, byNode.get(node.name)))
  const nodes = rows.map(({ status }) => status)
  const archive = primary ? describeArchive(cluster, primary.name, ours(primary.name)?.archive) : null
  const pause = pauseInForce(cluster, Date.parse(context.now))
  const repmgrd = leftPaused({
    said: cluster.nodes.flatMap(({ name }) => ({
      node: name,
      ...(said(name)?.repmgrd ?? { running: false, paused: false }),
    })),
    hold: cluster.repmgrd,
    expected: context.operation !== null || pause !== undefined,
  })
  const repmgrdFindings: Finding[] = repmgrd === undefined ? [] : [{ code: 'repmgrd_paused', detail: repmgrd }]
  const archiveFindings: Finding[] = archive?.problem ? [{ code: 'archive_failing', detail: archive.problem }] : []
  return {
    cluster: cluster.name,
    primary: primary?.name ?? null,
    timeline: (primary && ours(primary.name)?.timeline) ?? null,
    systemIdentifier: identifier ?? null,
    diagnosis: diagnose(
      cluster,
      nodes,
      primaries.map(({ name }) => name),
      [...rows.flatMap(({ findings }) => findings), ...repmgrdFindings, ...archiveFindings],
    ),
    nodes,
    archive,
    observedAt: context.now,
    operation: context.operation,
    pause: pause ?? null,
  }
}

function rowOf(view: View, node: ClusterNode, probe: Probe | undefined): Row {
  const nothing = {
    name: node.name,
    host: node.host,
    role: 'unknown' as const,
    upstream: null,
    timeline: null,
    lsn: null,
    lagBytes: null,
    lagMs: null,
    syncState: null,
    slot: null,
    applyDelayMs: null,
    serverVersion: null,
    startedAt: null,
  }
  if (!probe || 'failure' in probe) return silentRow(view, node, nothing, probe?.failure.detail ?? 'not asked')
  const { observation: said } = probe
  const common = { ...nothing, timeline: said.timeline, serverVersion: said.serverVersion, startedAt: said.startedAt }
  if (isWitness(node)) return { status: witnessStatus(view, common, said), findings: [] }
  if (said.systemIdentifier !== view.identifier) {
    const problem = `It is another database cluster (system identifier ${said.systemIdentifier}, this one has ${view.identifier}).`
    return { status: { ...common, state: 'foreign', problem }, findings: [] }
  }
  if (said.inRecovery) return standbyRow(view, node, common, said)
  const written = { lsn: said.currentLsn ?? null, lagBytes: 0, lagMs: 0 }
  return { status: { ...common, ...written, role: 'primary', state: 'running', problem: null }, findings: [] }
}

/** What a row has before anything was learnt from its server. */
type Blank = Omit<NodeStatus, 'state' | 'problem'>

function silentRow(view: View, node: ClusterNode, nothing: Blank, problem: string): Row {
  if (isWitness(node)) {
    const detail = `${node.name}, the witness, does not answer.`
    const status = { ...nothing, role: 'witness' as const, state: 'unreachable' as const, problem }
    return { status, findings: [{ code: 'witness_down', detail }] }
  }
  // Its slot is not on its own server: it says how long it may stay away.
  const { upstream, slot } = expectedUpstream(view, node)
  const lost = upstream && slotFinding(node.name, upstream.name, slot)
  return {
    status: { ...nothing, slot: slot ?? null, state: 'unreachable', problem },
    findings: [{ code: 'standby_down', detail: `${node.name} does not answer.` }, ...(lost ? [lost] : [])],
  }
}

/** A server of its own, with an identifier of its own; one with ours holds the data, and is nobody's witness. */
function witnessStatus({ identifier, primary }: View, common: Blank, said: Observation): NodeStatus {
  if (said.inRecovery || said.systemIdentifier === identifier) {
    const problem =
      'It is described as a witness, and holds a copy of a database cluster: a witness has a server of its own.'
    return { ...common, state: 'foreign', problem }
  }
  return { ...common, role: 'witness', state: 'running', upstream: primary?.name ?? null, problem: null }
}

function standbyRow(view: View, node: ClusterNode, common: Blank, said: Observation): Row {
  const { cluster, ours, primary } = view
  const expected = expectedUpstream(view, node).upstream
  const upstream = dataNodes(cluster.nodes).find(({ host }) => host === said.receiver?.upstreamHost)
  const source = upstream ?? expected
  const from = source && ours(source.name)
  const stream = from?.streams.find(({ applicationName }) => applicationName === node.name)
  const slot = from?.slots.find(({ name }) => name === slotName(node.nodeId))
  const streaming = said.receiver?.status === 'streaming'
  const state = !streaming ? 'detached' : stream && stream.state !== 'streaming' ? 'catching_up' : 'streaming'

  const position = laterLsn(lsnOf(said.receivedLsn), lsnOf(said.replayedLsn))
  const head = lsnOf(primary && ours(primary.name)?.currentLsn)
  const behindBytes = position && head ? Math.max(0, lagBytes(head, position)) : null
  // Without a stream, or before it has caught up, nobody told it what it lacks: then its last commit's age is the answer.
  const allReplayed = position !== undefined && position === said.replayedLsn
  const caughtUp = allReplayed && (state === 'streaming' || behindBytes === 0)

  const findings: Finding[] = []
  const problems: string[] = []
  if (!streaming) {
    const silent = expected && expected !== primary && !ours(expected.name)
    const because = silent ? `: ${expected.name}, which it streams from, does not answer` : ''
    findings.push({ code: 'standby_detached', detail: `${node.name} receives no WAL${because}.` })
    problems.push(`It receives no WAL: its stream from ${expected?.name ?? 'the primary'} is down.`)
  } else if (expected && upstream && upstream !== expected) {
    const detail = `streams from ${upstream.name}, and is to stream from ${expected.name}: POST /v1/clusters/${cluster.name}/nodes/${node.name}/follow moves it there.`
    findings.push({ code: 'standby_detached', detail: `${node.name} ${detail}` })
    problems.push(`It ${detail}`)
  }
  const lost = source && slotFinding(node.name, source.name, slot)
  if (lost) {
    findings.push(lost)
    problems.push(lost.detail)
  }
  return {
    status: {
      ...common,
      role: 'standby',
      state,
      upstream: upstream?.name ?? null,
      lsn: position ?? null,
      // The two servers were asked at different instants: a standby asked later can be in front of the primary's answer.
      lagBytes: behindBytes,
      lagMs: caughtUp ? 0 : (said.replayAgeMs ?? null),
      syncState: stream?.syncState ?? null,
      slot: slot ?? null,
      applyDelayMs: said.applyDelayMs || null,
      problem: problems.length === 0 ? null : problems.join(' '),
    },
    findings,
  }
}

/** Whom a standby is to stream from, and its slot there; unknown while nobody knows who the primary is. */
function expectedUpstream({ cluster, ours, primary }: View, node: ClusterNode) {
  if (!primary || primary === node) return {}
  const upstream = upstreamOf(node, cluster.nodes, primary)
  return { upstream, slot: ours(upstream.name)?.slots.find(({ name }) => name === slotName(node.nodeId)) }
}

function lsnOf(text: string | undefined) {
  return text === undefined ? undefined : parseLsn(text)
}

/** Before the record knows the identifier: the one that most nodes have. */
function majorityIdentifier(observations: readonly Observation[]): string | undefined {
  const counts = new Map<string, number>()
  for (const { systemIdentifier } of observations) counts.set(systemIdentifier, (counts.get(systemIdentifier) ?? 0) + 1)
  return [...counts.entries()].sort((a, b) => b[1] - a[1])[0]?.[0]
}
