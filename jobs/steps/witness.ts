/** A witness: a server of its own with a copy of repmgr's metadata, and nothing of the data. */
import { isDeepStrictEqual } from 'node:util'
import type { ClusterNode } from '../../src/cluster/model.js'
import { runCommand } from '../../src/host/actions.js'
import type { ChangeStep, Check, Step } from '../../src/operations/step.js'
import { registerWitness } from '../../src/repmgr/commands.js'
import { readMetadata } from '../../src/repmgr/metadata.js'
import { addressOf, type Bench } from '../bench.js'
import { startAlone } from './primary.js'
import { registrationOf } from './registration.js'

export function makeWitness(bench: Bench, node: ClusterNode, primary: ClusterNode): Step[] {
  return [...startAlone(bench, node), informWitness(bench, node, primary)]
}

/**
 * Registers the witness, which gives it its copy of the metadata; registered once more, it gets a new copy. Only repmgrd
 * would keep the copy up to date by itself, so this is also done when a node has joined.
 */
export function informWitness(bench: Bench, node: ClusterNode, primary: ClusterNode): ChangeStep {
  const { layout, cluster } = bench
  return {
    id: `${node.name}/register`,
    kind: 'change',
    title: 'register the witness with repmgr, and copy the metadata to it',
    node: node.name,
    actions: [runCommand(bench.host(node), cluster.name, registerWitness(layout, addressOf(cluster, layout, primary)))],
    async check({ signal }): Promise<Check> {
      const registered = await registrationOf(bench, node, primary, signal, row =>
        row.type === 'witness' && row.upstreamNodeId === primary.nodeId
          ? undefined
          : `as a ${row.type} under node ${row.upstreamNodeId}`,
      )
      if (!registered.done) return registered
      const [original, copy] = await Promise.all(
        [primary, node].map(server => bench.ask(server, { signal }, readMetadata)),
      )
      return isDeepStrictEqual(original, copy)
        ? registered
        : { done: false, reason: 'its copy of repmgr.nodes is not as the primary’s' }
    },
  }
}
