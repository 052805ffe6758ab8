/** Which standby takes over in a switchover, and why not each of the others. Pure. */
import type { ClusterNode } from './model.js'
import { dataNodes, isWitness, priorityOf, upstreamOf } from './topology.js'

/** What is known of a node before anything is asked by SQL. */
export interface Standing {
  /** Why it does not answer; undefined where it does. */
  away: string | undefined
  /** Whether it is a copy of this cluster that runs in recovery. */
  standby: boolean
}

export interface Verdict {
  node: string
  /** Undefined: it can take over. A sentence that goes after the node's name. */
  unfit: string | undefined
}

/**
 * Of each node but the primary. A node that streams from another standby is left out, because at the end of the primary
 * it may lack what that one has not passed on yet; a delayed one, because all that is held back would have to be applied first.
 */
export function verdicts(
  nodes: readonly ClusterNode[],
  primary: ClusterNode,
  standing: (node: ClusterNode) => Standing,
): Verdict[] {
  return nodes
    .filter(({ name }) => name !== primary.name)
    .map(node => ({ node: node.name, unfit: unfit(nodes, primary, node, standing(node)) }))
}

function unfit(nodes: readonly ClusterNode[], primary: ClusterNode, node: ClusterNode, { away, standby }: Standing) {
  if (isWitness(node)) return 'is the witness and holds no data'
  if (away !== undefined) return `does not answer (${away})`
  if (!standby) return 'is not a running standby'
  if (node.applyDelayMs !== undefined) return 'is a delayed standby: it applies what is written only later'
  const upstream = upstreamOf(node, nodes, primary)
  if (upstream.name !== primary.name) return `streams from ${upstream.name}, not from the primary`
  if (priorityOf(node) === 0) return 'has priority 0: it is never to be the primary'
  return undefined
}

/** Highest priority, then lowest node id: the order of repmgr, without the LSN, for a switchover waits for every byte. */
export function successorOf(nodes: readonly ClusterNode[], fit: readonly Verdict[]): ClusterNode | undefined {
  return dataNodes(nodes)
    .filter(({ name }) => fit.some(({ node, unfit }) => node === name && unfit === undefined))
    .sort((a, b) => priorityOf(b) - priorityOf(a) || a.nodeId - b.nodeId)[0]
}
