/** repmgr's metadata after the roles have changed: one transaction on the new primary, from where the others get it. */
import { escapeLiteral } from 'pg'
import type { ClusterNode } from '../../src/cluster/model.js'
import { upstreamOf } from '../../src/cluster/topology.js'
import { runSql } from '../../src/host/actions.js'
import type { ChangeStep, Check } from '../../src/operations/step.js'
import { readMetadata } from '../../src/repmgr/metadata.js'
import type { Bench } from '../bench.js'
import { superuser } from './local-sql.js'

/**
 * What repmgr itself writes at a switchover (`standby switchover`, `node rejoin`, `standby follow`), for all nodes at once,
 * so that no reader sees two primaries or none. `standbys`: those that follow it now.
 */
export function recordRoles(
  bench: Bench,
  primary: ClusterNode,
  standbys: readonly ClusterNode[],
  event: { name: string; details: string },
): ChangeStep {
  const { nodes } = bench.cluster
  const under = (node: ClusterNode) => upstreamOf(node, nodes, primary)
  const rows = [
    `UPDATE repmgr.nodes SET type = 'primary', upstream_node_id = NULL, active = true WHERE node_id = ${primary.nodeId};`,
    ...standbys.map(
      node =>
        `UPDATE repmgr.nodes SET type = 'standby', upstream_node_id = ${under(node).nodeId}, active = true WHERE node_id = ${node.nodeId};`,
    ),
    `UPDATE repmgr.nodes SET type = 'standby', active = false WHERE type = 'primary' AND node_id <> ${primary.nodeId};`,
  ].join('\n')
  return {
    id: 'cluster/roles',
    kind: 'change',
    title: 'write the new roles into repmgr’s metadata',
    node: primary.name,
    actions: [
      runSql(bench.host(primary), bench.cluster.name, {
        ...superuser(bench, 'repmgr'),
        shown: rows,
        statement: () =>
          `SET synchronous_commit = local;\nBEGIN;\n${rows}\nINSERT INTO repmgr.events (node_id, event, successful, details) VALUES (${primary.nodeId}, ${escapeLiteral(event.name)}, true, ${escapeLiteral(event.details)});\nCOMMIT;\n`,
      }),
    ],
    async check({ signal }): Promise<Check> {
      const known = (await bench.ask(primary, { signal }, readMetadata)) ?? []
      const other = known.find(row => row.type === 'primary' && row.nodeId !== primary.nodeId)
      if (other) return { done: false, reason: `repmgr.nodes has ${other.name} as a primary` }
      const row = (node: ClusterNode) => known.find(({ nodeId }) => nodeId === node.nodeId)
      if (row(primary)?.type !== 'primary' || row(primary)?.active !== true)
        return { done: false, reason: `repmgr.nodes does not have ${primary.name} as the primary` }
      const wrong = standbys.find(node => {
        const said = row(node)
        return said?.type !== 'standby' || !said.active || said.upstreamNodeId !== under(node).nodeId
      })
      return wrong
        ? { done: false, reason: `repmgr.nodes does not have ${wrong.name} as a standby of ${under(wrong).name}` }
        : { done: true }
    },
  }
}
