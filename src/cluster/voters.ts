/**
 * Who has a vote on a promotion, how many are needed, and what a voter remembers of a vote. Pure.
 *
 * R + W > N: any two majorities share a voter. A lock on a voter only keeps two controllers apart while both hold their
 * connection; what it remembers on its disk (`VoteTrace`) also tells the second one what the first one did.
 */
import type { ClusterNode } from './model.js'
import { dataNodes, isWitness } from './topology.js'

/** The store’s name among the voters; nodes cannot have it, for it has a space. */
export const STORE_VOTER = 'the store'

/** Each registered standby, each witness, and the store. `lost`: names of the nodes that are to be replaced. */
export function votersOf(nodes: readonly ClusterNode[], lost: readonly string[]): ClusterNode[] {
  return nodes.filter(node => isWitness(node) || !lost.includes(node.name))
}

/** `registered`: nodes that vote, to which the store is added. */
export const majorityOf = (registered: number) => Math.floor((registered + 1) / 2) + 1

/** What a voter keeps on its own disk from the moment that it has voted until it follows the new primary. */
export interface VoteTrace {
  /** Whose it is: a copy of its data directory is not its vote. */
  node: string
  operation: string
  epoch: number
  /** Written to every frozen voter before this one is told. */
  candidate?: string
  /** Of the old primaries. */
  lost?: string[]
  /** As its postgresql.auto.conf had them before it was frozen; null: not there. */
  before?: Record<string, string | null>
}

/** Undefined where it is not one of this node, or nothing that can be read. */
export function readTrace(text: string | null | undefined, node: string): VoteTrace | undefined {
  if (!text) return undefined
  try {
    const trace = JSON.parse(text) as VoteTrace
    return trace.node === node && typeof trace.operation === 'string' ? trace : undefined
  } catch {
    return undefined
  }
}

/** A promotion that somebody has begun, as a voter remembers it: its candidate may be a primary by now. */
export interface Begun {
  voter: string
  trace: VoteTrace & { candidate: string }
}

/**
 * The newest of them; a later turn has seen what an earlier one did. `settledEpoch`: of the last one of which it is known
 * what came of it; a voter that was away then still remembers it.
 */
export function newestBegun(traces: ReadonlyMap<string, VoteTrace>, settledEpoch = 0): Begun | undefined {
  return [...traces]
    .flatMap(([voter, trace]) =>
      trace.candidate === undefined || trace.epoch <= settledEpoch
        ? []
        : [{ voter, trace: { ...trace, candidate: trace.candidate } }],
    )
    .sort((a, b) => b.trace.epoch - a.trace.epoch)[0]
}

/** Data nodes that vote. */
export const votingStandbys = (nodes: readonly ClusterNode[], lost: readonly string[]) =>
  dataNodes(votersOf(nodes, lost))
