/** A node's row of the status, and what is wrong with it where that is worth telling of the cluster. Pure. */
import type { Finding } from './diagnosis.js'
import { divergedFrom } from './divergence.js'
import { type Lsn, lagBytes, laterLsn, parseLsn } from './lsn.js'
import type { Cluster, ClusterNode } from './model.js'
import { isAlive, type Observation, type Probe, type ProbeFailure } from './observation.js'
import { bareSlot, describeSlots, orphanProblem } from './server-slots.js'
import { slotFinding, slotName } from './slot.js'
import type { NodeStatus } from './status.js'
import { dataNodes, isWitness, locationOf, priorityOf, upstreamOf } from './topology.js'

/** What is known of the cluster while its nodes are looked at, one by one. */
export interface View {
  cluster: Cluster
  /** Only answers of this cluster's own servers. */
  ours(node: string): Observation | undefined
  primary: ClusterNode | undefined
  identifier: string | undefined
}

/** Of what repmgr says more can be told once every row is there. */
interface Row {
  status: Omit<NodeStatus, 'metadata'>
  findings: Finding[]
}

/** What a row has before anything was learnt from its server. */
type Blank = Omit<Row['status'], 'state' | 'problem'>

/** Past one of them a standby is told of as lagging: repmgr's own limit for a warning, and what takes a while to send. */
const LAGGING_MS = 300_000
const LAGGING_BYTES = 1024 ** 3

/** wal_receiver_status_interval, by default: so old can be what a server knows of how far its standbys are. */
const REPORTED_EVERY_MS = 10_000

export function rowOf(view: View, node: ClusterNode, probe: Probe | undefined): Row {
  const nothing: Blank = {
    name: node.name,
    nodeId: node.nodeId,
    host: node.host,
    location: locationOf(node),
    priority: priorityOf(node),
    role: 'unknown',
    failure: null,
    upstream: null,
    receiver: null,
    timeline: null,
    lsn: null,
    writtenLsn: null,
    receivedLsn: null,
    replayedLsn: null,
    lagBytes: null,
    lagMs: null,
    syncState: null,
    slot: null,
    slots: null,
    applyDelayMs: null,
    conflicts: null,
    serverVersion: null,
    startedAt: null,
  }
  if (!probe) return silentRow(view, node, nothing, { reason: 'not_asked', detail: 'not asked' })
  if ('failure' in probe) return silentRow(view, node, nothing, probe.failure)
  const { observation: said } = probe
  const common: Blank = {
    ...nothing,
    timeline: said.timeline,
    slots: describeSlots(view.cluster, said.slots, streamsFrom(view, node)),
    serverVersion: said.serverVersion,
    startedAt: said.startedAt,
  }
  if (isWitness(node)) return { status: witnessStatus(view, common, said), findings: [] }
  if (said.systemIdentifier !== view.identifier) {
    const problem = `It is another database cluster (system identifier ${said.systemIdentifier}, this one has ${view.identifier}).`
    return { status: { ...common, state: 'foreign', problem }, findings: [] }
  }
  const orphans = orphanProblem(node.name, common.slots ?? [])
  if (said.inRecovery) return standbyRow(view, node, common, said, orphans === undefined ? [] : [orphans])
  const lsn = said.currentLsn ?? null
  const written = { lsn, writtenLsn: lsn, lagBytes: 0, lagMs: 0 }
  return {
    status: { ...common, ...written, role: 'primary', state: 'running', problem: orphans ?? null },
    findings: [],
  }
}

/** Whether others are to stream from this node; unknown while nobody knows who the primary is. */
function streamsFrom({ cluster: { nodes }, primary }: View, node: ClusterNode) {
  if (!primary) return undefined
  return (other: ClusterNode) =>
    other !== primary && !isWitness(other) && upstreamOf(other, nodes, primary).name === node.name
}

function silentRow(view: View, node: ClusterNode, nothing: Blank, failure: ProbeFailure): Row {
  const blank = { ...nothing, failure, state: 'unreachable' as const, problem: failure.detail }
  if (isWitness(node)) {
    const detail = `${node.name}, the witness, does not answer.`
    return { status: { ...blank, role: 'witness' }, findings: [{ code: 'witness_down', detail }] }
  }
  // Its slot is not on its own server: it says how long it may stay away.
  const { upstream, slot } = expectedUpstream(view, node)
  const lost = upstream && slotFinding(node.name, upstream.name, slot)
  const silence =
    failure.reason === 'starting_up'
      ? 'lives, and accepts no connections for now'
      : isAlive(failure)
        ? 'lives, but does not let this service in'
        : 'does not answer'
  return {
    status: { ...blank, slot: slot ? bareSlot(slot) : null },
    findings: [{ code: 'standby_down', detail: `${node.name} ${silence}.` }, ...(lost ? [lost] : [])],
  }
}

/** A server of its own, with an identifier of its own; one with ours holds the data, and is nobody's witness. */
function witnessStatus({ identifier, primary }: View, common: Blank, said: Observation): Row['status'] {
  if (said.inRecovery || said.systemIdentifier === identifier) {
    const problem =
      'It is described as a witness, and holds a copy of a database cluster: a witness has a server of its own.'
    return { ...common, state: 'foreign', problem }
  }
  return { ...common, role: 'witness', state: 'running', upstream: primary?.name ?? null, problem: null }
}

function standbyRow(view: View, node: ClusterNode, common: Blank, said: Observation, known: string[]): Row {
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
  // The two servers were asked at different instants: a standby asked later can be in front of the primary's answer.
  const behindBytes = position && head ? Math.max(0, lagBytes(head, position)) : null
  const lagMs = lagOf(said, position, state, behindBytes, stream?.replayLagMs)

  const findings: Finding[] = []
  const problems: string[] = [...known]
  const find = (finding: Finding) => {
    findings.push(finding)
    problems.push(finding.detail)
  }
  const parted = primary && ours(primary.name)
  const divergence = parted && divergedFrom(said, parted)
  if (primary && divergence !== undefined) {
    find({
      code: 'standby_diverged',
      detail: `${node.name} cannot follow ${primary.name}: ${divergence}. POST /v1/clusters/${cluster.name}/nodes/${node.name}/rejoin brings it back; what it alone has is measured and kept.`,
      evidence: [primary, node].map(({ name }) => ({
        node: name,
        observed: `its timeline ${ours(name)?.timeline} has the history ${oneLine(ours(name)?.history)}`,
      })),
    })
  }
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
  if (lost) find(lost)
  const late = streaming ? lagging(node.name, behindBytes, lagMs, said.applyDelayMs ?? 0) : undefined
  if (late) find(late)
  return {
    status: {
      ...common,
      role: 'standby',
      state,
      upstream: upstream?.name ?? null,
      receiver: said.receiver
        ? {
            status: said.receiver.status,
            upstreamHost: said.receiver.upstreamHost,
            slot: said.receiver.slotName,
            lastMessageAgeMs: said.receiver.lastMessageAgeMs,
          }
        : null,
      lsn: position ?? null,
      receivedLsn: said.receivedLsn ?? null,
      replayedLsn: said.replayedLsn ?? null,
      lagBytes: behindBytes,
      lagMs,
      syncState: stream?.syncState ?? null,
      slot: slot ? bareSlot(slot) : null,
      applyDelayMs: said.applyDelayMs || null,
      conflicts: said.conflicts
        ? { total: Object.values(said.conflicts).reduce((sum, one) => sum + one, 0), ...said.conflicts }
        : null,
      problem: problems.length === 0 ? null : problems.join(' '),
    },
    findings,
  }
}

/**
 * Without a stream, or before it has caught up, nobody told it what it lacks: then its last commit's age is the answer. That
 * is too much where nobody had written for a while; the upstream has measured it, and is told often how far it is.
 */
function lagOf(
  said: Observation,
  position: Lsn | undefined,
  state: NodeStatus['state'],
  behindBytes: number | null,
  replayLagMs: number | null | undefined,
): number | null {
  const allReplayed = position !== undefined && position === said.replayedLsn
  if (allReplayed && (state === 'streaming' || behindBytes === 0)) return 0
  const ageMs = said.replayAgeMs ?? null
  if (state !== 'streaming' || typeof replayLagMs !== 'number') return ageMs
  const measuredMs = replayLagMs + REPORTED_EVERY_MS
  return ageMs === null ? measuredMs : Math.min(ageMs, measuredMs)
}

function lagging(name: string, bytes: number | null, lagMs: number | null, applyDelayMs: number): Finding | undefined {
  const late = lagMs !== null && lagMs - applyDelayMs > LAGGING_MS
  if (!late && (bytes ?? 0) < LAGGING_BYTES) return undefined
  const what = late
    ? `has not replayed for ${Math.round((lagMs ?? 0) / 1000)} s what it received`
    : `lacks ${bytes} bytes of WAL`
  return {
    code: 'standby_lagging',
    detail: `${name} is far behind: it ${what}. Look for a paused replay, a long query that holds it back, a slow disk or network.`,
    evidence: [
      { node: name, observed: `is ${bytes ?? 'an unknown number of'} bytes and ${lagMs ?? 'unknown'} ms behind` },
    ],
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

const oneLine = (history = '') => {
  const lines = history.split('\n').flatMap(line => {
    const [timeline, end] = line.trim().split(/\s+/)
    return timeline && end ? [`${timeline} until ${end}`] : []
  })
  return lines.length === 0 ? 'of the first timeline alone' : lines.join(', ')
}
