/**
 * Which node is the primary, and whether each of the others may become or is its standby. Decided from what was found
 * on the hosts; throws before anything is planned when an answer would be a guess.
 */
import type { ClusterNode } from '../src/cluster/model.js'
import { OperationError } from '../src/operations/errors.js'
import type { ServerState } from '../src/postgres/inspect.js'
import type { Bench } from './bench.js'

/** Thrown when a data directory holds something that this service did not make. It is never overwritten. */
export class DataDirectoryNotEmpty extends OperationError {
  constructor(node: string, directory: string, because: string) {
    super(`${directory} on ${node} holds something that must not be overwritten: ${because}`, {
      code: 'data-directory-not-empty',
      outcome: 'not_started',
      remedy: `If nobody needs it, remove it on ${node} (pg_lsclusters, then pg_dropcluster), or move it away; then repeat the call. Nothing was changed.`,
    })
  }
}

/** Thrown when the servers do not say clearly who the primary is. */
export class PrimaryUnclear extends OperationError {
  constructor(detail: string, remedy: string) {
    super(detail, { code: 'primary-unclear', outcome: 'not_started', remedy })
  }
}

/** Thrown when a server of this host has the port already. */
export class PortTaken extends OperationError {
  constructor(node: string, port: number, by: string) {
    super(`Port ${port} on ${node} belongs to another PostgreSQL server, ${by}.`, {
      code: 'port-taken',
      outcome: 'not_started',
      remedy: 'Describe the cluster with another "port", or move that server.',
    })
  }
}

/** Whether a host's server is ours for this node, or nobody's yet. Throws for anybody else's. */
export function refuseForeign(bench: Pick<Bench, 'cluster' | 'layout'>, node: ClusterNode, state: ServerState): void {
  const { cluster, layout } = bench
  const { marker } = state
  if (state.portTakenBy !== undefined) throw new PortTaken(node.name, cluster.port, state.portTakenBy)
  if (marker && (marker.cluster !== cluster.name || marker.node !== node.name)) {
    throw new DataDirectoryNotEmpty(
      node.name,
      layout.dataDirectory,
      `it belongs to node ${marker.node} of cluster ${marker.cluster}.`,
    )
  }
  if (marker || state.directory === 'absent' || state.untouched) return
  // An empty directory may be a mount point for the data, which is exactly where it belongs.
  if (state.directory === 'empty' && !state.configured) return
  throw new DataDirectoryNotEmpty(
    node.name,
    layout.dataDirectory,
    state.directory === 'database'
      ? 'a database cluster that this service did not make, and that is not an empty one fresh from the package.'
      : 'files of somebody else.',
  )
}

/** The primary as it is, or the node that is to become it where nothing was built yet. */
export function findPrimary(bench: Pick<Bench, 'cluster' | 'layout' | 'found' | 'absent'>): ClusterNode {
  const { cluster } = bench
  const present = cluster.nodes.filter(({ name }) => !bench.absent.has(name))
  const state = (node: ClusterNode) => bench.found(node).server
  for (const node of present) refuseForeign(bench, node, state(node))
  const inUse = present.filter(node => state(node).marker?.state === 'in-use')
  const names = (nodes: readonly ClusterNode[]) => nodes.map(({ name }) => name).join(' and ')

  const running = inUse.filter(node => state(node).inRecovery === false)
  if (running.length > 1) {
    throw new PrimaryUnclear(
      `${names(running)} both accept writes.`,
      'Decide which one is right, and stop the other before anything else.',
    )
  }
  if (running.length === 0 && bench.absent.size > 0) {
    throw new PrimaryUnclear(
      `No node that answers is a running primary, and ${[...bench.absent.keys()].join(' and ')} does not answer.`,
      `Bring it back first, or look at who is the primary: ${[...bench.absent.values()].join(' ')}`,
    )
  }
  // A stopped server without standby.signal would start as a primary. One is the primary that somebody stopped; two are a question.
  const stopped = inUse.filter(node => !state(node).running && !state(node).standbySignal)
  const candidates = running.length === 1 ? running : stopped
  if (candidates.length > 1) {
    throw new PrimaryUnclear(
      `${names(candidates)} are stopped, and each would start as a primary.`,
      'Start the one that was the primary last, by hand, then repeat the call.',
    )
  }
  const silent = inUse.filter(
    node => state(node).running && state(node).inRecovery === undefined && !state(node).standbySignal,
  )
  if (candidates.length === 0 && silent.length > 0) {
    throw new PrimaryUnclear(
      `${names(silent)} ${silent.length === 1 ? 'runs' : 'run'} and may be the primary, but cannot be asked.`,
      'Wait until it has started, or look at its log; then repeat the call. Promote nothing meanwhile.',
    )
  }
  const primary = candidates[0] ?? (inUse.length === 0 ? cluster.nodes[0] : undefined)
  if (!primary) {
    throw new PrimaryUnclear(
      `${names(inUse)} are standbys, and no node is the primary.`,
      'Start or promote the primary by hand, then repeat the call.',
    )
  }
  const identifier = cluster.systemIdentifier ?? state(primary).systemIdentifier
  if (inUse.includes(primary) && state(primary).systemIdentifier !== identifier) {
    throw new PrimaryUnclear(
      `${primary.name} is a primary, but of another database cluster (${state(primary).systemIdentifier}) than this one (${identifier}).`,
      `Find out who made it anew on ${primary.name}, and where the data of this cluster are, before anything else.`,
    )
  }
  for (const node of inUse) {
    if (node === primary) continue
    const { systemIdentifier, inRecovery, standbySignal } = state(node)
    if (systemIdentifier !== identifier) {
      throw new DataDirectoryNotEmpty(
        node.name,
        bench.layout.dataDirectory,
        'a database cluster with another system identifier than the primary’s.',
      )
    }
    if (inRecovery !== true && !standbySignal) {
      throw new DataDirectoryNotEmpty(
        node.name,
        bench.layout.dataDirectory,
        `a server that was a primary itself; ${primary.name} is the primary now. It has to be rejoined, not built.`,
      )
    }
  }
  return primary
}
