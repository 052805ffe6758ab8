/** Why a step on one node is refused before anything is planned: each says which call to make first, or instead. */
import type { Cluster, ClusterNode } from '../src/cluster/model.js'
import { dataNodes } from '../src/cluster/topology.js'
import { OperationError } from '../src/operations/errors.js'
import type { ServerState } from '../src/postgres/inspect.js'
import type { Bench } from './bench.js'
import { isInUse } from './find-primary.js'

/** Thrown when a step needs another one before it. */
export class StepOutOfOrder extends OperationError {
  constructor(detail: string, first: string) {
    super(detail, { code: 'step-out-of-order', outcome: 'not_started', remedy: `First: ${first}.` })
  }
}

/** Thrown when a call does harm that must be meant, and its victim was not named twice. */
export class ConfirmationRequired extends OperationError {
  constructor(detail: string, name: string) {
    super(detail, {
      code: 'confirmation-required',
      outcome: 'not_started',
      remedy: `If that is meant, repeat the call with confirm set to "${name}".`,
    })
  }
}

/** Thrown when the data are to be copied to a witness. */
export class NodeIsWitness extends OperationError {
  constructor(node: string) {
    super(`${node} is the witness: it has a server of its own, and nothing is cloned onto it.`, {
      code: 'node-is-witness',
      outcome: 'not_started',
      remedy: 'Its steps are provision, start and register.',
    })
  }
}

/** Thrown when a call would take away the primary itself. No confirmation changes that. */
export class NodeIsPrimary extends OperationError {
  constructor(node: string, what: string) {
    super(`${node} is the primary: it is not ${what}, whatever is confirmed.`, {
      code: 'node-is-primary',
      outcome: 'not_started',
      remedy: 'Make another node the primary first, or destroy the whole cluster if that is meant.',
    })
  }
}

/** Thrown when the record of the cluster does not have the node any more. */
export class NodeGone extends OperationError {
  constructor(cluster: string, node: string) {
    super(`${cluster} has no node ${node} any more.`, {
      code: 'node-gone',
      outcome: 'not_started',
      remedy: `It was removed meanwhile. POST /v1/clusters/${cluster}/nodes adds one.`,
    })
  }
}

export function nodeNamed({ cluster }: Pick<Bench, 'cluster'>, name: string): ClusterNode {
  const node = cluster.nodes.find(one => one.name === name)
  if (!node) throw new NodeGone(cluster.name, name)
  return node
}

/** The call that does one step, as somebody would write it. */
export const callFor = (cluster: Pick<Cluster, 'name'>, node: Pick<ClusterNode, 'name'>, verb: string) =>
  `POST /v1/clusters/${cluster.name}/nodes/${node.name}/${verb}`

/** What is left to call until there is a primary that can be cloned. */
export function callsUntilRegistered(bench: Pick<Bench, 'cluster' | 'found'>, primary: ClusterNode): string {
  const { server } = bench.found(primary)
  const verbs = isProvisioned(server)
    ? isInUse(server)
      ? ['start']
      : ['start', 'register']
    : ['provision', 'start', 'register']
  return verbs.map(verb => callFor(bench.cluster, primary, verb)).join(', then ')
}

const isProvisioned = ({ marker, configured }: ServerState) =>
  marker !== undefined && marker.state !== 'creating' && configured

/** Throws unless the host holds a server of ours, whole, whether it was ever started or not. */
export function refuseUnprovisioned({ cluster, found }: Pick<Bench, 'cluster' | 'found'>, node: ClusterNode): void {
  if (isProvisioned(found(node).server)) return
  throw new StepOutOfOrder(`${node.name} has no server of ${cluster.name} yet.`, callFor(cluster, node, 'provision'))
}

export function refuseStopped({ cluster, found }: Pick<Bench, 'cluster' | 'found'>, node: ClusterNode): void {
  if (found(node).server.running) return
  throw new StepOutOfOrder(`PostgreSQL on ${node.name} does not run.`, callFor(cluster, node, 'start'))
}

/** A server of ours that will not, or does not, accept writes. */
export const isStandby = (state: ServerState) => isInUse(state) && (state.inRecovery ?? state.standbySignal)

/** Whether clients may be writing on it, as far as it says. */
export const mayAcceptWrites = (state: ServerState) =>
  state.running && (state.inRecovery === undefined ? !state.standbySignal : !state.inRecovery)

/** The one node that accepts writes, where exactly one of those that answer does. */
export function runningPrimary({
  cluster,
  absent,
  found,
}: Pick<Bench, 'cluster' | 'absent' | 'found'>): ClusterNode | undefined {
  const writable = dataNodes(cluster.nodes)
    .filter(({ name }) => !absent.has(name))
    .filter(node => {
      const { server } = found(node)
      return isInUse(server) && server.inRecovery === false
    })
  return writable.length === 1 ? writable[0] : undefined
}
