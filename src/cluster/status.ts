/**
 * From what each server says of itself to what the cluster is. Pure: observations in, status out. Who is primary is
 * read from the servers, never from the store.
 */
import { type Static, type TSchema, Type } from 'typebox'
import { lagBytes, laterLsn, parseLsn } from './lsn.js'
import type { Cluster } from './model.js'

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
  slots: { name: string; active: boolean; retainedBytes: number | null }[]
  startedAt: string
}

export type Probe =
  | { node: string; observation: Observation }
  | { node: string; failure: { reason: string; detail: string } }

export const NodeStatus = Type.Object(
  {
    name: Type.String(),
    host: Type.String(),
    role: Type.Enum(['primary', 'standby', 'unknown'], {
      title: 'NodeRole',
      description: 'As the server itself says.',
    }),
    state: Type.Enum(['running', 'streaming', 'catching_up', 'detached', 'unreachable', 'foreign'], {
      title: 'NodeState',
      description:
        'running: a primary that answers. streaming, catching_up: a standby that follows. detached: a standby without ' +
        'a stream. unreachable: no answer. foreign: it answers, but is another database cluster.',
    }),
    upstream: nullable(Type.String({ description: 'Name of the node that it streams from.' })),
    timeline: nullable(Type.Integer()),
    lsn: nullable(Type.String({ description: 'Primary: written. Standby: the later of received and replayed.' })),
    lagBytes: nullable(Type.Integer({ description: 'Behind the primary; 0 on the primary.' })),
    lagMs: nullable(
      Type.Integer({ description: 'Age of what is not replayed yet; 0 where all that was received is replayed.' }),
    ),
    syncState: nullable(Type.String({ examples: ['async'] })),
    slot: nullable(
      Type.Object(
        {
          name: Type.String(),
          active: Type.Boolean(),
          retainedBytes: nullable(Type.Integer({ description: 'WAL that the primary keeps for it.' })),
        },
        {
          additionalProperties: false,
          title: 'ReplicationSlot',
          description: 'The slot on the primary that keeps WAL for this standby.',
        },
      ),
    ),
    serverVersion: nullable(Type.String({ examples: ['15.18'] })),
    startedAt: nullable(Type.String({ format: 'date-time' })),
    problem: nullable(Type.String({ description: 'What is wrong with this node, in words.' })),
  },
  { additionalProperties: false, title: 'NodeStatus', description: 'One node as it answered just now.' },
)
export type NodeStatus = Static<typeof NodeStatus>

export const Diagnosis = Type.Object(
  {
    code: Type.Enum(
      [
        'healthy',
        'not_built',
        'standby_down',
        'standby_detached',
        'no_primary',
        'primary_unreachable_from_here',
        'two_primaries',
        'unreachable',
        'foreign_node',
      ],
      { title: 'DiagnosisCode', description: 'For programs; more may come, so take an unknown one for "not healthy".' },
    ),
    detail: Type.String({ description: 'The same for people.' }),
  },
  { additionalProperties: false, title: 'Diagnosis', description: 'What the answers of all nodes mean together.' },
)
export type Diagnosis = Static<typeof Diagnosis>

export const ClusterStatus = Type.Object(
  {
    cluster: Type.String(),
    primary: nullable(Type.String({ description: 'Name of the one node that accepts writes.' })),
    timeline: nullable(Type.Integer()),
    systemIdentifier: nullable(Type.String()),
    diagnosis: Diagnosis,
    nodes: Type.Array(NodeStatus),
    observedAt: Type.String({ format: 'date-time' }),
    operation: nullable(Type.String({ description: 'The operation that is changing this cluster now.' })),
  },
  { additionalProperties: false, title: 'ClusterStatus', description: 'A cluster as its servers answered just now.' },
)
export type ClusterStatus = Static<typeof ClusterStatus>

/** Puts the answers of all nodes together. `probes` has one entry a node, in any order. */
export function describeStatus(
  cluster: Cluster,
  probes: readonly Probe[],
  context: { now: string; operation: string | null },
): ClusterStatus {
  const observed = new Map<string, Observation>()
  for (const probe of probes) if ('observation' in probe) observed.set(probe.node, probe.observation)
  const known = cluster.systemIdentifier ?? majorityIdentifier([...observed.values()])
  const ours = (node: string) => {
    const observation = observed.get(node)
    return observation && observation.systemIdentifier === known ? observation : undefined
  }
  const primaries = cluster.nodes.filter(({ name }) => ours(name)?.inRecovery === false)
  const primary = primaries.length === 1 ? primaries[0] : undefined
  const primarySays = primary && ours(primary.name)

  const nodes = cluster.nodes.map((node): NodeStatus => {
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
      serverVersion: null,
      startedAt: null,
    }
    const said = observed.get(node.name)
    if (!said) {
      const probe = probes.find(candidate => candidate.node === node.name)
      return {
        ...nothing,
        state: 'unreachable',
        problem: probe && 'failure' in probe ? probe.failure.detail : 'not asked',
      }
    }
    const common = { ...nothing, timeline: said.timeline, serverVersion: said.serverVersion, startedAt: said.startedAt }
    if (said.systemIdentifier !== known) {
      return {
        ...common,
        state: 'foreign',
        problem: `It is another database cluster (system identifier ${said.systemIdentifier}, this one has ${known}).`,
      }
    }
    if (!said.inRecovery) {
      return {
        ...common,
        role: 'primary',
        state: 'running',
        lsn: said.currentLsn ?? null,
        lagBytes: 0,
        lagMs: 0,
        problem: null,
      }
    }
    const position = laterLsn(lsnOf(said.receivedLsn), lsnOf(said.replayedLsn))
    const head = lsnOf(primarySays?.currentLsn)
    const stream = primarySays?.streams.find(({ applicationName }) => applicationName === node.name)
    const slot = primarySays?.slots.find(({ name }) => name === slotName(node.nodeId))
    const streaming = said.receiver?.status === 'streaming'
    const upstream = cluster.nodes.find(({ host }) => host === said.receiver?.upstreamHost)
    const state = !streaming ? 'detached' : stream && stream.state !== 'streaming' ? 'catching_up' : 'streaming'
    const behindBytes = position && head ? Math.max(0, lagBytes(head, position)) : null
    // Without a stream, or before it has caught up, nobody told it what it lacks: then its last commit's age is the answer.
    const allReplayed = position !== undefined && position === said.replayedLsn
    const caughtUp = allReplayed && (state === 'streaming' || behindBytes === 0)
    return {
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
      problem: streaming ? null : 'It receives no WAL: its stream from the primary is down.',
    }
  })

  return {
    cluster: cluster.name,
    primary: primary?.name ?? null,
    timeline: primarySays?.timeline ?? null,
    systemIdentifier: known ?? null,
    diagnosis: diagnose(
      cluster,
      nodes,
      primaries.map(({ name }) => name),
    ),
    nodes,
    observedAt: context.now,
    operation: context.operation,
  }
}

/** Names of the slots are repmgr's: `repmgr_slot_<node id>`. */
export const slotName = (nodeId: number) => `repmgr_slot_${nodeId}`

function lsnOf(text: string | undefined) {
  return text === undefined ? undefined : parseLsn(text)
}

/** Before the record knows the identifier: the one that most nodes have. */
function majorityIdentifier(observations: readonly Observation[]): string | undefined {
  const counts = new Map<string, number>()
  for (const { systemIdentifier } of observations) counts.set(systemIdentifier, (counts.get(systemIdentifier) ?? 0) + 1)
  return [...counts.entries()].sort((a, b) => b[1] - a[1])[0]?.[0]
}

function diagnose(cluster: Cluster, nodes: readonly NodeStatus[], primaries: readonly string[]): Diagnosis {
  const named = (state: NodeStatus['state']) => nodes.filter(node => node.state === state).map(({ name }) => name)
  const unreachable = named('unreachable')
  const foreign = named('foreign')
  const detached = named('detached')
  if (primaries.length > 1) {
    return {
      code: 'two_primaries',
      detail: `${primaries.join(' and ')} both accept writes. Stop the one that must not, before anything else.`,
    }
  }
  if (unreachable.length === nodes.length) {
    return cluster.builtAt === undefined
      ? {
          code: 'not_built',
          detail: 'No node answers, and the cluster has not been built yet: POST it with "bootstrap": true.',
        }
      : {
          code: 'unreachable',
          detail: 'No node answers from here. Look at the network between this service and the hosts first.',
        }
  }
  if (foreign.length > 0) {
    return { code: 'foreign_node', detail: `${foreign.join(', ')} runs another database cluster than this one.` }
  }
  if (primaries.length === 0) {
    const followed = nodes.find(
      ({ state, upstream }) => state === 'streaming' && upstream && unreachable.includes(upstream),
    )
    return followed
      ? {
          code: 'primary_unreachable_from_here',
          detail: `${followed.upstream} does not answer us, but ${followed.name} still receives from it.`,
        }
      : { code: 'no_primary', detail: 'No node that answers accepts writes.' }
  }
  if (unreachable.length > 0) return { code: 'standby_down', detail: `${unreachable.join(', ')} does not answer.` }
  if (detached.length > 0) return { code: 'standby_detached', detail: `${detached.join(', ')} receives no WAL.` }
  return { code: 'healthy', detail: `${primaries[0]} accepts writes and every standby follows.` }
}
