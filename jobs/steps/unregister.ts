/** Taking a node out of repmgr's metadata. It is asked of the primary, so the node itself may be dead. */
import type { MetadataNode } from '../../src/cluster/metadata.js'
import type { ClusterNode } from '../../src/cluster/model.js'
import { changing } from '../../src/host/actions.js'
import { render } from '../../src/host/command.js'
import { OperationError } from '../../src/operations/errors.js'
import type { Action, Check, Step } from '../../src/operations/step.js'
import { unregisterNode } from '../../src/repmgr/commands.js'
import { readMetadata } from '../../src/repmgr/metadata.js'
import type { Bench } from '../bench.js'
import { MetadataConflict } from './registration.js'

/** Thrown when other standbys stream from the node that is to go. */
export class NodeHasStandbys extends OperationError {
  constructor(node: string, standbys: readonly string[]) {
    super(`${standbys.join(' and ')} ${standbys.length === 1 ? 'follows' : 'follow'} ${node}, not the primary.`, {
      code: 'node-has-standbys',
      outcome: 'not_started',
      remedy: `Let ${standbys.join(' and ')} follow another node, or remove ${standbys.length === 1 ? 'it' : 'them'}, first.`,
    })
  }
}

export function unregister(bench: Bench, node: ClusterNode, primary: ClusterNode): Step {
  const rowOf = async (signal: AbortSignal): Promise<MetadataNode | undefined> => {
    const rows = (await bench.ask(primary, { signal }, readMetadata)) ?? []
    const below = rows.filter(({ upstreamNodeId }) => upstreamNodeId === node.nodeId)
    if (below.length > 0)
      throw new NodeHasStandbys(
        node.name,
        below.map(({ name }) => name),
      )
    const row = rows.find(({ nodeId }) => nodeId === node.nodeId)
    if (row && row.name !== node.name) throw new MetadataConflict(node, row)
    return row
  }
  const command = (kind: string) => unregisterNode(bench.layout, kind, node.nodeId)
  const action: Action = {
    description: { kind: 'command', text: `${render(command('standby'))}   # on ${primary.name}` },
    async perform({ epoch, signal, log }) {
      // A failed primary that is registered as one has a command of its own.
      const kind = (await rowOf(signal))?.type ?? 'standby'
      await changing(bench.host(primary), bench.cluster.name, epoch).run(command(kind), { signal, onLine: log })
    },
  }
  return {
    id: `${node.name}/unregister`,
    kind: 'change',
    title: 'unregister it from repmgr',
    node: node.name,
    actions: [action],
    async check({ signal }): Promise<Check> {
      const row = await rowOf(signal)
      return row ? { done: false, reason: `repmgr.nodes has it as a ${row.type}` } : { done: true }
    },
  }
}
