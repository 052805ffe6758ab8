/** What repmgr's metadata say of a node, and whether that is what they should say. */
import type { MetadataNode } from '../../src/cluster/metadata.js'
import type { ClusterNode } from '../../src/cluster/model.js'
import { locationOf, priorityOf } from '../../src/cluster/topology.js'
import { OperationError } from '../../src/operations/errors.js'
import type { Check } from '../../src/operations/step.js'
import { nodeConninfo } from '../../src/repmgr/conf.js'
import { readMetadata } from '../../src/repmgr/metadata.js'
import { addressOf, type Bench } from '../bench.js'

/** Thrown when repmgr's metadata know another node by this node's number or name. */
export class MetadataConflict extends OperationError {
  constructor(node: ClusterNode, row: MetadataNode) {
    super(
      `repmgr.nodes has node ${row.nodeId} as ${row.name}; this service knows ${node.name} as node ${node.nodeId}.`,
      {
        code: 'metadata-conflict',
        outcome: 'not_started',
        remedy:
          'The record of this service and repmgr’s metadata were made apart. Describe the nodes in the order of their node ids ' +
          '(repmgr cluster show), or unregister the row that is wrong.',
      },
    )
  }
}

/** `wrong` says what else is not right about the row. A row that is this node's own may be registered over by force. */
export async function registrationOf(
  bench: Bench,
  node: ClusterNode,
  primary: ClusterNode,
  signal: AbortSignal,
  wrong: (row: MetadataNode) => string | undefined,
): Promise<Check> {
  const rows = (await bench.ask(primary, { signal }, readMetadata)) ?? []
  const other = rows.find(row => (row.nodeId === node.nodeId) !== (row.name === node.name))
  if (other) throw new MetadataConflict(node, other)
  const row = rows.find(({ nodeId }) => nodeId === node.nodeId)
  if (!row) return { done: false, reason: 'repmgr.nodes does not have it' }
  if (!row.active) return { done: false, reason: 'repmgr.nodes has it as inactive' }
  const conninfo = nodeConninfo(addressOf(bench.cluster, bench.layout, node))
  if (row.conninfo !== conninfo) return { done: false, reason: `repmgr.nodes has it at ${row.conninfo}` }
  if (row.priority !== priorityOf(node))
    return { done: false, reason: `repmgr.nodes has it with priority ${row.priority}` }
  if (row.location !== locationOf(node))
    return { done: false, reason: `repmgr.nodes has it at location ${row.location}` }
  const reason = wrong(row)
  return reason === undefined ? { done: true } : { done: false, reason: `repmgr.nodes has it ${reason}` }
}
