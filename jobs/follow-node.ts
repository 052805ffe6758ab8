import type { Cluster, ClusterNode } from '../src/cluster/model.js'
import { isWitness, upstreamOf, witnesses } from '../src/cluster/topology.js'
import { OperationError } from '../src/operations/errors.js'
import { stage } from '../src/operations/step.js'
import type { Bench } from './bench.js'
import { defineOperation } from './define-operation.js'
import { findPrimary, NotAStandby } from './find-primary.js'
import { membersBeside, runningPrimary } from './joining-node.js'
import { isStandby, NodeIsPrimary, nodeNamed, refuseStopped, refuseUnprovisioned } from './refusals.js'
import { tellOfAbsent } from './steps/absent.js'
import { CannotFollow, dropFormerSlots, moveStream } from './steps/move-stream.js'
import { thawStandby } from './steps/promotion/thaw-standby.js'
import { proveReplication } from './steps/proof.js'
import { readyForRepmgr } from './steps/ready-for-repmgr.js'
import { follow, registerStandbyNode } from './steps/standby.js'
import { refuseIdleUpstream } from './steps/upstream.js'
import { informWitness } from './steps/witness.js'

/** Thrown when a witness is to stream from somebody. */
class WitnessFollowsNobody extends OperationError {
  constructor(node: string) {
    super(`${node} is the witness: it streams from nobody.`, {
      code: 'node-is-witness',
      outcome: 'not_started',
      remedy: `POST …/nodes/${node}/register lets it know who is the primary.`,
    })
  }
}

/** The cluster with the node below `upstream`; without one, as it is described. */
function withUpstream(cluster: Cluster, { node: name, upstream }: { node: string; upstream?: string }): Cluster {
  if (upstream === undefined) return cluster
  return { ...cluster, nodes: cluster.nodes.map(node => (node.name === name ? { ...node, upstream } : node)) }
}

/** By what is described: what runs may be another thing, which the step itself looks at. */
function refuseCircle({ cluster: { nodes } }: Bench, node: ClusterNode, primary: ClusterNode): void {
  const path = [node]
  for (let at = upstreamOf(node, nodes, primary); at !== primary; at = upstreamOf(at, nodes, primary)) {
    if (path.includes(at)) {
      throw new CannotFollow(
        node.name,
        path[1]?.name ?? at.name,
        `${[...path, at].map(({ name }) => name).join(' would stream from ')}, a circle without a primary`,
        `Let ${path.at(-1)?.name} stream from another node first.`,
      )
    }
    path.push(at)
  }
}

/** A running standby streams from another node, without a restart. Asked for twice, the second time changes nothing. */
export const followNode = defineOperation({
  type: 'follow-node',
  target: withUpstream,
  mayBeAbsent: (node, input) => node.name !== input.node,
  holdsRepmgrd: () => ({}),
  plan(bench, input) {
    const node = nodeNamed(bench, input.node)
    if (isWitness(node)) throw new WitnessFollowsNobody(node.name)
    const primary = runningPrimary(bench)
    if (node === primary) throw new NodeIsPrimary(node.name, 'put below another node')
    refuseUnprovisioned(bench, node)
    refuseStopped(bench, node)
    if (!isStandby(bench.found(node).server)) throw new NotAStandby(node.name, 'it holds no copy of the primary.')
    refuseCircle(bench, node, primary)
    refuseIdleUpstream(bench, node, upstreamOf(node, bench.cluster.nodes, primary))
    const witness = witnesses(membersBeside(bench, node))
    return [
      stage('move the stream', [
        thawStandby(bench, node),
        moveStream(bench, node, primary),
        follow(bench, node, primary),
        ...readyForRepmgr(bench, node),
        registerStandbyNode(bench, node, primary),
        dropFormerSlots(bench, node, primary),
      ]),
      ...(witness.length > 0
        ? [
            stage(
              'let the witness know',
              ...witness.map(one => [...readyForRepmgr(bench, one), informWitness(bench, one, primary)]),
            ),
          ]
        : []),
      stage('prove it', [...tellOfAbsent(bench), proveReplication(bench, primary, [node])]),
    ]
  },
  // Before the first step, so that a status in between says where it is to be. Below the primary is below whichever node that is.
  async begin(store, bench, { node: name, upstream }) {
    if (upstream === undefined) return
    const primary = findPrimary(bench)
    await store.clusters.update(bench.cluster.name, current => ({
      ...current,
      nodes: current.nodes.map(node => {
        if (node.name !== name) return node
        const { upstream: _before, ...rest } = node
        return upstream === primary.name ? rest : { ...rest, upstream }
      }),
    }))
  },
  complete: async () => undefined,
})
