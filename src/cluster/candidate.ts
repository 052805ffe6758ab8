/** Which frozen standby is promoted, and why not each of the others. Pure. */
import { type Lsn, lagBytes, lsnBytes } from './lsn.js'
import type { ClusterNode } from './model.js'
import { priorityOf } from './topology.js'

/** What a standby said once nothing could reach it any more from an old primary. */
export interface FrozenStandby {
  node: ClusterNode
  systemIdentifier: string
  /** The newest that it was ever on. */
  timeline: number
  /** The greater of received and replayed: the first is NULL after a restart, and stands still where WAL comes from an archive. */
  lsn: Lsn | undefined
  /** Whether replay is at its end, or moves. */
  replays: boolean
  /** Why replay stands still, where it does. */
  heldBackBy?: string
  /** A setting of which it has less than the primary: promoted, it would shut down. */
  tooLow?: string
  /** It was told to become a primary, and has not yet. */
  promotionPending: boolean
}

export interface ChoicePolicy {
  systemIdentifier: string | undefined
  /** That the last promotion began: who has not seen it lacks what was written since. */
  timeline: number
  /** Name of the standby that somebody asked for. */
  to: string | undefined
  /** How many bytes another standby may have more than the one that was asked for. */
  maxLossBytes: number
}

export interface Verdict {
  node: string
  lsn?: string
  timeline?: number
  /** Undefined: it could be promoted. A sentence that goes after the node’s name. */
  objection?: string
}

export interface Choice {
  candidate: ClusterNode | undefined
  verdicts: Verdict[]
  /** How many bytes the best of the others has that the candidate does not have. */
  behindBytes: number
  /** The one that has them. */
  better?: string
}

/**
 * Highest LSN first, for it holds every commit that any of them has confirmed; then priority, then node id. Who was asked
 * for is taken although another one has more only within `maxLossBytes`.
 */
export function chooseCandidate(frozen: readonly FrozenStandby[], policy: ChoicePolicy): Choice {
  const newest = Math.max(policy.timeline, ...frozen.map(({ timeline }) => timeline))
  const judged = frozen.map(standby => ({ standby, objection: objectionTo(standby, newest, policy) }))
  const fit = judged
    .filter(({ objection }) => objection === undefined)
    .map(({ standby }) => standby)
    .sort(inOrder)
  const named = fit.find(({ node }) => node.name === policy.to)
  // One that cannot be promoted may have more, too: its commits are lost as well.
  const best = [...frozen].filter(({ timeline }) => timeline === newest).sort(inOrder)[0]
  const candidate = policy.to === undefined ? fit[0] : named
  const behindBytes =
    candidate?.lsn !== undefined && best?.lsn !== undefined ? Math.max(0, lagBytes(best.lsn, candidate.lsn)) : 0
  return {
    candidate: candidate?.node,
    verdicts: judged.map(({ standby: { node, lsn, timeline }, objection }) => ({
      node: node.name,
      ...(lsn === undefined ? {} : { lsn }),
      timeline,
      ...(objection === undefined ? {} : { objection }),
    })),
    behindBytes,
    ...(behindBytes > 0 && best ? { better: best.node.name } : {}),
  }
}

function inOrder(a: FrozenStandby, b: FrozenStandby): number {
  const [left, right] = [a.lsn ? lsnBytes(a.lsn) : -1n, b.lsn ? lsnBytes(b.lsn) : -1n]
  if (left !== right) return left > right ? -1 : 1
  return priorityOf(b.node) - priorityOf(a.node) || a.node.nodeId - b.node.nodeId
}

function objectionTo(standby: FrozenStandby, newest: number, policy: ChoicePolicy): string | undefined {
  const { node, lsn, timeline, systemIdentifier } = standby
  if (policy.systemIdentifier !== undefined && systemIdentifier !== policy.systemIdentifier)
    return `is another database cluster (${systemIdentifier})`
  if (timeline < newest) return `is on timeline ${timeline}, and the cluster was on timeline ${newest}`
  if (lsn === undefined) return 'has no position in the WAL'
  if (standby.promotionPending) return 'was told to become a primary, and has not yet'
  if (standby.tooLow !== undefined) return `${standby.tooLow}: promoted, it would shut down`
  if (!standby.replays) return `does not replay${standby.heldBackBy === undefined ? '' : `: ${standby.heldBackBy}`}`
  if (node.applyDelayMs !== undefined) return 'is a delayed standby'
  // A priority says who is to be taken where nobody is named.
  if (priorityOf(node) === 0 && policy.to !== node.name) return 'has priority 0: it is never to take over by itself'
  return undefined
}
