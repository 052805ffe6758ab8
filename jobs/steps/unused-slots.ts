/** Slots that a node has from the time when others streamed from it: on a standby they would keep WAL for ever. */
import type { ClusterNode } from '../../src/cluster/model.js'
import { slotName } from '../../src/cluster/slot.js'
import { upstreamOf } from '../../src/cluster/topology.js'
import { runSql } from '../../src/host/actions.js'
import type { ChangeStep, Check } from '../../src/operations/step.js'
import type { Bench } from '../bench.js'
import { askServer, superuser } from './local-sql.js'

/** Only of nodes of this cluster that are not to stream from it, and only where nobody does. */
export function dropUnusedSlots(bench: Bench, node: ClusterNode, primary: ClusterNode): ChangeStep {
  const { nodes } = bench.cluster
  const needless = nodes
    .filter(other => other !== primary && (other === node || upstreamOf(other, nodes, primary) !== node))
    .concat(primary)
    .map(({ nodeId }) => `'${slotName(nodeId)}'`)
    .join(', ')
  const where = `FROM pg_replication_slots WHERE NOT active AND slot_name IN (${needless})`
  return {
    id: `${node.name}/unused-slots`,
    kind: 'change',
    title: 'drop the slots that nobody streams through any more',
    node: node.name,
    actions: [
      runSql(bench.host(node), bench.cluster.name, {
        ...superuser(bench),
        shown: `SELECT pg_drop_replication_slot(slot_name) ${where}`,
        statement: () => `SELECT pg_drop_replication_slot(slot_name) ${where};\n`,
      }),
    ],
    async check({ signal }): Promise<Check> {
      const left = await askServer(bench, node, signal, `SELECT string_agg(slot_name, ', ') ${where}`)
      return left === '' ? { done: true } : { done: false, reason: `${left} would keep WAL for nobody` }
    },
  }
}
