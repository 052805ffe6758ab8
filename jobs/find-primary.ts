/**
 * Which node is the primary, and whether each of the others may become or is its standby. Decided from what was found
 * on the hosts; throws before anything is planned when an answer would be a guess.
 */
import { isExchanging } from '../src/cluster/handover.js'
import type { ClusterNode } from '../src/cluster/model.js'
import { slotName } from '../src/cluster/slot.js'
import { dataNodes, witnesses } from '../src/cluster/topology.js'
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

/** Thrown when a host serves another purpose already. */
export class HostTaken extends OperationError {
  constructor(node: string, by: string, remedy: string) {
    super(`${node} serves something else already: ${by}`, { code: 'host-taken', outcome: 'not_started', remedy })
  }
}

/** Thrown when a member of the cluster is neither its primary nor a standby of it. Its data may be the better ones. */
export class NotAStandby extends OperationError {
  constructor(node: string, why: string) {
    super(`${node} is not a standby of this cluster’s primary: ${why}`, {
      code: 'not-a-standby',
      outcome: 'not_started',
      remedy:
        'Find out which of the two holds what must not be lost before anything is removed. To make it a standby again: ' +
        `POST …/nodes/${node}/rejoin, which says first what it alone has. Nothing was changed.`,
    })
  }
}

/** Thrown when the server on a witness's host holds a copy of the data. */
export class NotAWitness extends OperationError {
  constructor(node: string) {
    super(`${node} is described as a witness, and its server is a standby or a copy of the cluster.`, {
      code: 'not-a-witness',
      outcome: 'not_started',
      remedy: `Find out who made it one. If nobody needs it, drop it on ${node} (pg_dropcluster), then repeat the call. Nothing was changed.`,
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

/** Neither data nor a configuration: whatever a marker says was here, somebody has removed it. */
export const isBare = (state: ServerState) => state.directory === 'absent' && !state.configured

/**
 * Whether a server of ours holds what must not be wiped. A marker alone is not believed: a server that was ever started
 * has been somebody's, whatever was written down before.
 */
export const isInUse = (state: ServerState) =>
  state.marker !== undefined && !isBare(state) && (state.marker.state === 'in-use' || state.everStarted)

/** A node that was removed while it was away, and comes back under a new number: nothing keeps WAL for its old copy any more. */
const isOfOtherNumber = (node: ClusterNode, slot: string | undefined) =>
  slot !== undefined && /^repmgr_slot_\d+$/.test(slot) && slot !== slotName(node.nodeId)

/** Whether a host's server is ours for this node, or nobody's yet. Throws for anybody else's. */
export function refuseForeign(bench: Pick<Bench, 'cluster' | 'layout'>, node: ClusterNode, state: ServerState): void {
  const { cluster, layout } = bench
  const { marker } = state
  const refuse = (because: string): never => {
    throw new DataDirectoryNotEmpty(node.name, layout.dataDirectory, because)
  }
  if (state.portTakenBy !== undefined) throw new PortTaken(node.name, cluster.port, state.portTakenBy)
  const others = state.otherClusters.filter(name => name !== cluster.name)
  if (others.length > 0) {
    throw new HostTaken(
      node.name,
      `a server of cluster ${others.join(' and ')}.`,
      'Use another host: one cluster a host.',
    )
  }
  if (state.foreignRepmgrConf) {
    throw new HostTaken(
      node.name,
      `${layout.repmgrConf} belongs to a repmgr cluster that this service did not make.`,
      `If nobody needs it, move ${layout.repmgrConf} on ${node.name} away, then repeat the call.`,
    )
  }
  // With its disk not mounted, or its data elsewhere, a server of somebody looks as if there were none.
  if (state.livesIn !== undefined && state.livesIn !== layout.dataDirectory) {
    refuse(`its configuration says that its data are in ${state.livesIn}.`)
  }
  if (isBare(state) || state.untouched) return
  if (marker && (marker.cluster !== cluster.name || marker.node !== node.name)) {
    throw new HostTaken(
      node.name,
      `its server belongs to node ${marker.node} of cluster ${marker.cluster}.`,
      'Use another host: one cluster a host.',
    )
  }
  if (marker) {
    if (marker.state === 'removed') refuse('it was removed from the cluster, and its data were kept.')
    if (marker.state === 'wiping') refuse('it was being wiped, and that was cut short. Repeat the call that began it.')
    if (state.standbySignal && isOfOtherNumber(node, state.upstreamSlot))
      refuse(`it is the copy of a node that was removed from the cluster (it streams through ${state.upstreamSlot}).`)
    if (marker.state === 'in-use' && (state.directory === 'absent' || state.directory === 'empty')) {
      refuse('a server of this cluster was here, and its data are gone. Is a disk not mounted?')
    }
    return
  }
  // An empty directory may be a mount point for the data, which is exactly where it belongs.
  if (state.directory === 'empty' && !state.configured) return
  refuse(
    state.directory === 'database'
      ? 'a database cluster that this service did not make, and that is not an empty one fresh from the package.'
      : state.configured
        ? 'there is a configuration of a server whose data are not there. Is a disk not mounted?'
        : 'files of somebody else.',
  )
}

/** The primary as it is, or the node that is to become it where nothing was built yet. */
export function findPrimary(bench: Pick<Bench, 'cluster' | 'layout' | 'found' | 'absent'>): ClusterNode {
  const { cluster } = bench
  const here = cluster.nodes.filter(({ name }) => !bench.absent.has(name))
  const state = (node: ClusterNode) => bench.found(node).server
  for (const node of here) refuseForeign(bench, node, state(node))
  for (const node of witnesses(here)) refuseNoWitness(cluster, node, state(node))
  // A witness accepts writes and has an identifier of its own: it is no primary, nor anybody's standby.
  const present = dataNodes(here)
  const away = dataNodes(cluster.nodes).filter(({ name }) => bench.absent.has(name))
  const inUse = present.filter(node => isInUse(state(node)))
  const names = (nodes: readonly ClusterNode[]) => nodes.map(({ name }) => name).join(' and ')

  const running = inUse.filter(node => state(node).inRecovery === false)
  if (running.length > 1) {
    throw new PrimaryUnclear(
      `${names(running)} both accept writes.`,
      'Decide which one is right, and stop the other before anything else. Where the one that was promoted last is right: ' +
        `POST /v1/clusters/${cluster.name}/nodes/{the other}/rejoin stops the other, keeps what it alone has, and makes it a standby.`,
    )
  }
  if (running.length === 0) {
    if (away.length > 0) {
      throw new PrimaryUnclear(
        `No node that answers is a running primary, and ${names(away)} does not answer.`,
        `Bring it back first, or look at who is the primary: ${away.map(({ name }) => bench.absent.get(name)).join(' ')}`,
      )
    }
    const silent = inUse.filter(
      node => state(node).running && state(node).inRecovery === undefined && !state(node).standbySignal,
    )
    if (silent.length > 0) {
      throw new PrimaryUnclear(
        `${names(silent)} ${silent.length === 1 ? 'runs' : 'run'} and may be the primary, but cannot be asked.`,
        'Wait until it has started, or look at its log; then repeat the call. Promote nothing meanwhile.',
      )
    }
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
  const primary = candidates[0] ?? (inUse.length === 0 ? firstPrimary(bench) : undefined)
  const { handover } = cluster
  if (!primary && isExchanging(handover)) {
    throw new PrimaryUnclear(
      `A switchover from ${handover.from} to ${handover.to} was begun and is not through: both are standbys now.`,
      `POST /v1/operations/${handover.operation}/retry goes on with it. Promote nothing by hand meanwhile.`,
    )
  }
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
  refuseOutdated(
    bench,
    primary,
    inUse.filter(node => state(node).systemIdentifier === identifier),
  )
  for (const node of inUse) {
    if (node === primary) continue
    const { systemIdentifier, inRecovery, standbySignal } = state(node)
    if (systemIdentifier !== identifier) {
      throw new NotAStandby(
        node.name,
        `it is another database cluster (${systemIdentifier ?? 'unreadable'}, not ${identifier}).`,
      )
    }
    if (inRecovery !== true && !standbySignal) {
      throw new NotAStandby(
        node.name,
        `it was a primary itself, and ${primary.name} is the primary now. It has to be rejoined.`,
      )
    }
  }
  return primary
}

/**
 * Throws where one of the others has seen a newer timeline than the primary. Each promotion begins one: a server that is
 * not here was promoted meanwhile, its writes are in that copy, and this primary is an old one that came back.
 */
export function refuseOutdated(
  bench: Pick<Bench, 'found'>,
  primary: ClusterNode,
  others: readonly ClusterNode[],
): void {
  const timeline = (node: ClusterNode) => bench.found(node).server.timeline ?? 0
  const newer = others.filter(node => timeline(node) > timeline(primary))
  if (newer.length === 0) return
  const names = newer.map(({ name }) => name).join(' and ')
  const seen = Math.max(...newer.map(timeline))
  throw new PrimaryUnclear(
    `${primary.name} would be the primary, on timeline ${timeline(primary)}, and ${names} has seen timeline ${seen}: ` +
      `another server was promoted since, and ${names} may hold what ${primary.name} does not.`,
    `Stop ${primary.name} if it runs, and bring back the server that was promoted; if that one is lost, promote ${newer[0]?.name} by hand. ` +
      `If it is ${primary.name} that holds what must be kept: start it by hand, take ${names} out of the cluster without wiping (its data stay), ` +
      'then repeat the call. Nothing was changed.',
  )
}

/** Its own server, or none yet: a copy of the data is somebody's standby or primary, and not a witness. */
function refuseNoWitness(cluster: Bench['cluster'], node: ClusterNode, state: ServerState): void {
  if (!isInUse(state)) return
  const ours = cluster.systemIdentifier !== undefined && state.systemIdentifier === cluster.systemIdentifier
  if (ours || state.inRecovery === true || state.standbySignal) throw new NotAWitness(node.name)
}

/** Nothing is built anywhere. That must also be what the record remembers: data that are gone are not made up for by new ones. */
function firstPrimary({ cluster, found }: Pick<Bench, 'cluster' | 'found'>): ClusterNode | undefined {
  const [first] = dataNodes(cluster.nodes)
  if (cluster.systemIdentifier !== undefined) {
    throw new PrimaryUnclear(
      `${cluster.name} was built before (system identifier ${cluster.systemIdentifier}), and no node holds its data.`,
      'Look for its data: a disk that is not mounted, another host. If they are really gone, build a cluster of another name.',
    )
  }
  if (first && found(first).server.marker?.state === 'cloning') {
    throw new PrimaryUnclear(
      `${first.name} holds a copy that was cut short, and no node holds what it was copied from.`,
      'Look for the node that was the primary. If there never was one worth keeping, drop the server on each node, then repeat the call.',
    )
  }
  return first
}
