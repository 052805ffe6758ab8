/**
 * If the primary died now: who would have to take over, why not each of the others, what would be lost, and what stands in
 * the way. Pure: what was read goes in, the answer comes out. The order of candidates is that of the failover's own choice:
 * most WAL first, then priority, then node id.
 */
import { type Static, type TSchema, Type } from 'typebox'
import { lagBytes, lsnBytes, parseLsn } from './lsn.js'
import type { Cluster, ClusterNode } from './model.js'
import type { ClusterStatus, NodeStatus } from './status.js'
import { dataNodes, isWitness, priorityOf } from './topology.js'
import { majorityOf, STORE_VOTER } from './voters.js'

const orNull = <T extends TSchema & { type?: string }>(schema: T) =>
  Type.Unsafe<Static<T> | null>({ ...schema, type: [schema.type, 'null'] })

const Obstacle = Type.Object(
  {
    node: Type.Optional(Type.String({ description: 'The node that it is about, where it is one.' })),
    detail: Type.String({ description: 'What is wrong.' }),
    remedy: Type.String({ description: 'What to do about it.' }),
  },
  { additionalProperties: false, title: 'Obstacle', description: 'Something that would be in the way.' },
)
export type Obstacle = Static<typeof Obstacle>

const Candidate = Type.Object(
  {
    node: Type.String(),
    fit: Type.Boolean({ description: 'Whether it could take over now.' }),
    rank: orNull(Type.Integer({ minimum: 1, description: '1 would take over; null where it is not fit.' })),
    lsn: orNull(Type.String({ description: 'The later of received and replayed.' })),
    behindBytes: orNull(Type.Integer({ description: 'WAL of the primary that it does not have yet.' })),
    why: Type.String({ description: 'Why it would, or would not, take over.' }),
  },
  { additionalProperties: false, title: 'Candidate', description: 'A node that could become the primary, or not.' },
)

export const Readiness = Type.Object(
  {
    cluster: Type.String(),
    ready: Type.Boolean({ description: 'Whether somebody could take over, and nothing stands in the way.' }),
    primary: orNull(Type.String({ description: 'The node that accepts writes now.' })),
    successor: orNull(Type.String({ description: 'The node that would have to take over.' })),
    expectedLossBytes: orNull(
      Type.Integer({ description: 'WAL that the successor does not have yet; null where nobody could take over.' }),
    ),
    fence: Type.Object(
      {
        method: Type.Enum(['ssh', 'hook', 'none'], {
          title: 'FenceMethod',
          description:
            'ssh: its server is ended on its host, and stays so. hook: SSH does not reach it, and the fence hook of this service would cut it off. none: nothing could make sure that it is down.',
        }),
        detail: Type.String(),
      },
      {
        additionalProperties: false,
        title: 'Fence',
        description: 'How the old primary would be kept from accepting writes.',
      },
    ),
    votes: Type.Object(
      {
        needed: Type.Integer({ description: 'A majority.' }),
        of: Type.Integer({ description: 'Every standby, every witness, and the store of this service.' }),
        available: Type.Array(Type.String(), { description: 'Voters that answer now.' }),
        missing: Type.Array(
          Type.Object(
            { voter: Type.String(), reason: Type.String() },
            { additionalProperties: false, title: 'MissingVote', description: 'A voter that could not vote now.' },
          ),
        ),
      },
      {
        additionalProperties: false,
        title: 'AvailableVotes',
        description: 'Whose votes a promotion could have: without a majority nobody is promoted.',
      },
    ),
    candidates: Type.Array(Candidate),
    obstacles: Type.Array(Obstacle),
    observedAt: Type.String({ format: 'date-time' }),
  },
  {
    additionalProperties: false,
    title: 'Readiness',
    description: 'What would happen if the primary died now.',
  },
)
export type Readiness = Static<typeof Readiness>

/** What a standby says of itself beyond its status. */
export interface StandbyFacts {
  replayPaused: boolean
  /** A promotion was asked for and is not through: it becomes a primary by itself. */
  promotionPending: boolean
  /** Sessions that hold the replay back. */
  replayBlocked: boolean
  settings: Record<string, number>
  slotsLeft: number
  sendersLeft: number
}

export interface PrimaryFacts {
  /** Those of which a standby must have as much as its primary. */
  settings: Record<string, number>
  /** pg_rewind needs one of both. */
  checksumsOrHints: boolean
}

export interface Facts {
  primary: PrimaryFacts | undefined
  /** By node. Missing: it could not be asked. */
  standbys: ReadonlyMap<string, StandbyFacts>
  /** Whether the primary's host lets this service in, as root; the reason where it does not. */
  fence: { reachable: true } | { reachable: false; reason: string }
  /** Whether a fence hook is set, for where it does not. */
  hasFenceHook: boolean
  /** Whether the store may vote; the reason where it may not. */
  store: { may: true } | { may: false; reason: string }
}

type Verdict = { unfit: string; remedy: string } | undefined

export function describeReadiness(cluster: Cluster, status: ClusterStatus, facts: Facts): Readiness {
  const obstacles: Obstacle[] = []
  const primary = status.nodes.find(({ name }) => name === status.primary)
  const standbys = cluster.nodes.filter(({ name }) => name !== status.primary)
  const judged = standbys.map(node => {
    const row = status.nodes.find(({ name }) => name === node.name)
    return { node, row, verdict: verdictOn(node, row, status, facts) }
  })
  const position = (row: NodeStatus | undefined) => (row?.lsn ? lsnBytes(parseLsn(row.lsn)) : 0n)
  const fit = judged
    .filter(({ verdict }) => verdict === undefined)
    .sort((a, b) => {
      const ahead = position(b.row) - position(a.row)
      return ahead !== 0n
        ? ahead > 0n
          ? 1
          : -1
        : priorityOf(b.node) - priorityOf(a.node) || a.node.nodeId - b.node.nodeId
    })
  const behind = (row: NodeStatus | undefined) =>
    primary?.lsn && row?.lsn ? Math.max(0, lagBytes(parseLsn(primary.lsn), parseLsn(row.lsn))) : null

  if (!primary) {
    obstacles.push({
      detail: status.diagnosis.detail,
      remedy: 'Find out which node is the primary before anything else.',
    })
  }
  for (const { node, verdict } of judged) {
    // What is so by intention stands in nobody's way.
    if (!verdict || isWitness(node) || priorityOf(node) === 0) continue
    obstacles.push({ node: node.name, detail: `${node.name} ${verdict.unfit}.`, remedy: verdict.remedy })
  }
  if (dataNodes(standbys).length === 0) {
    obstacles.push({
      detail: `${cluster.name} has no standby.`,
      remedy: `Add one: POST /v1/clusters/${cluster.name}/nodes.`,
    })
  }
  if (primary && !facts.fence.reachable && !facts.hasFenceHook) {
    obstacles.push({
      node: primary.name,
      detail: `The host of ${primary.name} does not let this service in: ${facts.fence.reason}`,
      remedy: `Mend it (GET /v1/clusters/${cluster.name}/checks): otherwise nobody can make sure that an old primary is down.`,
    })
  }
  if (facts.primary && !facts.primary.checksumsOrHints) {
    obstacles.push({
      ...(primary ? { node: primary.name } : {}),
      detail: 'Neither data checksums nor wal_log_hints are on: an old primary could not be rewound, only cloned anew.',
      remedy: `Set wal_log_hints (PATCH /v1/clusters/${cluster.name}/settings).`,
    })
  }
  const votes = votesNow(standbys, status, facts)
  if (primary && votes.available.length < votes.needed) {
    const missing = votes.missing.map(({ voter, reason }) => `${voter} ${reason}`).join('; ')
    obstacles.push({
      detail: `A promotion needs ${votes.needed} of ${votes.of} votes, and could have ${votes.available.length}: ${missing}.`,
      remedy: `Bring them back, or add a witness or a standby (POST /v1/clusters/${cluster.name}/nodes): whoever has no majority cannot tell a dead host from a cut network.`,
    })
  }

  const [first] = fit
  return {
    cluster: cluster.name,
    ready: primary !== undefined && first !== undefined && obstacles.length === 0,
    primary: status.primary,
    successor: first?.node.name ?? null,
    expectedLossBytes: first ? behind(first.row) : null,
    fence: fenceFor(primary?.name, facts),
    votes,
    candidates: [...fit, ...judged.filter(({ verdict }) => verdict !== undefined)].map(({ node, row, verdict }) => {
      const rank = fit.findIndex(one => one.node === node) + 1
      return {
        node: node.name,
        fit: verdict === undefined,
        rank: rank === 0 ? null : rank,
        lsn: row?.lsn ?? null,
        behindBytes: behind(row),
        why: verdict ? `It ${verdict.unfit}.` : reasonFor(rank, node, behind(row)),
      }
    }),
    obstacles,
    observedAt: status.observedAt,
  }
}

function fenceFor(primary: string | undefined, { fence, hasFenceHook }: Facts): Readiness['fence'] {
  if (fence.reachable) {
    return {
      method: 'ssh',
      detail:
        primary === undefined
          ? 'There is no primary to keep from writing.'
          : `${primary} would be ended over SSH, and marked as a standby before that.`,
    }
  }
  return hasFenceHook
    ? { method: 'hook', detail: `SSH does not reach it (${fence.reason}); the fence hook would be told to cut it off.` }
    : { method: 'none', detail: fence.reason }
}

function votesNow(electors: readonly ClusterNode[], status: ClusterStatus, { store }: Facts): Readiness['votes'] {
  const rows = electors.map(node => ({ node, row: status.nodes.find(({ name }) => name === node.name) }))
  const missing = rows.flatMap(({ node, row }) => {
    if (!row || row.state === 'unreachable')
      return [{ voter: node.name, reason: `does not answer (${row?.problem ?? 'not asked'})` }]
    return row.state === 'foreign' ? [{ voter: node.name, reason: 'is another database cluster' }] : []
  })
  const away = new Set(missing.map(({ voter }) => voter))
  return {
    needed: majorityOf(electors.length),
    of: electors.length + 1,
    available: [...electors.flatMap(({ name }) => (away.has(name) ? [] : [name])), ...(store.may ? [STORE_VOTER] : [])],
    missing: [...missing, ...(store.may ? [] : [{ voter: STORE_VOTER, reason: `may not vote: ${store.reason}` }])],
  }
}

const reasonFor = (rank: number, node: ClusterNode, behind: number | null) =>
  `${rank === 1 ? 'It would take over' : 'It would take over if those before it could not'}: ${behind === null ? 'how far it is behind is not known' : `${behind} bytes behind`}, priority ${priorityOf(node)}.`

function verdictOn(node: ClusterNode, row: NodeStatus | undefined, status: ClusterStatus, facts: Facts): Verdict {
  const say = (unfit: string, remedy: string): Verdict => ({ unfit, remedy })
  if (isWitness(node)) return say('is the witness and holds no data', '')
  if (!row || row.state === 'unreachable')
    return say(`does not answer (${row?.problem ?? 'not asked'})`, `Bring ${node.name} back.`)
  if (row.state === 'foreign') return say('is another database cluster', `Find out who made it on ${node.name}.`)
  if (row.role === 'primary') return say('accepts writes itself', 'Decide which one is right, and stop the other.')
  if (status.timeline !== null && row.timeline !== null && row.timeline < status.timeline)
    return say(
      `is on timeline ${row.timeline}, and the primary on ${status.timeline}`,
      `Look why ${node.name} does not follow; it may have to be cloned anew.`,
    )
  if (row.state === 'detached')
    return say('receives no WAL', `Bring its stream back: the log of PostgreSQL on ${node.name} says why it is down.`)
  if (row.slot?.walStatus === 'lost')
    return say('lacks WAL that is gone', `Clone it anew: POST …/nodes/${node.name}/clone.`)
  const said = facts.standbys.get(node.name)
  if (!said) return say('could not be asked', `Look whether ${node.name} answers (GET …/checks).`)
  if (said.promotionPending)
    return say(
      'has been told to become a primary',
      `Remove the file "promote" in its data directory, or find out who asked.`,
    )
  if (said.replayPaused) return say('does not replay: it is paused', `On ${node.name}: SELECT pg_wal_replay_resume().`)
  if (said.replayBlocked)
    return say('does not replay: a query holds it back', `End the query on ${node.name} (pg_stat_activity), or wait.`)
  for (const [name, there] of Object.entries(facts.primary?.settings ?? {})) {
    const here = said.settings[name]
    if (here === undefined || here >= there) continue
    return say(
      `has ${name} = ${here}, and the primary ${there}: promoted, it would shut down`,
      `Restart ${node.name} with at least as much (PATCH …/settings).`,
    )
  }
  const others = status.nodes.filter(({ role, name }) => role === 'standby' && name !== node.name).length + 1
  if (said.slotsLeft < others || said.sendersLeft < others)
    return say(
      `has room for ${Math.min(said.slotsLeft, said.sendersLeft)} more streams, and would need ${others}`,
      'Raise max_replication_slots and max_wal_senders (PATCH …/settings).',
    )
  if (node.applyDelayMs !== undefined && priorityOf(node) === 0)
    return say('is a delayed standby', 'Give it a priority if it is meant to take over all the same.')
  if (priorityOf(node) === 0) return say('has priority 0: it is never to take over', 'Give it a priority.')
  return undefined
}
