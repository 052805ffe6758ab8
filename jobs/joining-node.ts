/** A node that joins a running cluster: what its operations, for a standby and for a witness, have in common. */
import { type Cluster, type ClusterNode, type NodeSpec, newNode } from '../src/cluster/model.js'
import { stage } from '../src/operations/step.js'
import type { Store } from '../src/store/store.js'
import type { Bench } from './bench.js'
import { findPrimary, isInUse, PrimaryUnclear } from './find-primary.js'
import { grantAccess, passFileStep } from './steps/access.js'
import { openFirewall } from './steps/firewall.js'
import { prepareHost } from './steps/prepare-host.js'

interface Joining {
  node: NodeSpec
}

/** The cluster with the node in it. */
export function withNode(cluster: Cluster, { node }: Joining): Cluster {
  if (cluster.nodes.some(({ name }) => name === node.name)) return cluster
  return {
    ...cluster,
    nodes: [...cluster.nodes, newNode(node, cluster.nextNodeId)],
    nextNodeId: cluster.nextNodeId + 1,
  }
}

/** A node is often added because another one is gone. */
export const canDoWithout = (node: ClusterNode, { node: joining }: Joining) => node.name !== joining.name

export function joiningNode({ cluster }: Pick<Bench, 'cluster'>, { node }: Joining): ClusterNode {
  const joining = cluster.nodes.find(({ name }) => name === node.name)
  if (!joining) throw new TypeError(`${node.name} is not in the cluster that was planned for`)
  return joining
}

/** The primary, which has to be running: it is where a node is entered, and what a standby follows. */
export function runningPrimary(bench: Bench): ClusterNode {
  const primary = findPrimary(bench)
  if (!bench.found(primary).server.running) {
    throw new PrimaryUnclear(
      `${primary.name} is the primary, and it is stopped.`,
      'Start it, then repeat the call: a node joins a running primary.',
    )
  }
  return primary
}

/** One that an earlier call could not finish is no member yet; its own repetition will let it know. */
export const membersBeside = (bench: Bench, joining: ClusterNode) =>
  bench.cluster.nodes.filter(
    node => node !== joining && !bench.absent.has(node.name) && isInUse(bench.found(node).server),
  )

export const letItIn = (bench: Bench, joining: ClusterNode) =>
  stage(
    'prepare the host, and let it in',
    prepareHost(bench, joining),
    ...membersBeside(bench, joining).map(node => [
      grantAccess(bench, node),
      ...openFirewall(bench, node),
      passFileStep(bench, node),
    ]),
  )

/** Entered before the first step, so that a node which is half-made is known, and its number is never given away again. */
export async function enterNode(store: Store, { cluster }: Bench): Promise<void> {
  await store.clusters.update(cluster.name, current => ({
    ...current,
    nodes: cluster.nodes,
    nextNodeId: cluster.nextNodeId,
  }))
}
