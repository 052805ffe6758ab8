/** repmgr's own tables, read by SQL: its command line has no output that a program could trust. */
import type { MetadataNode } from '../cluster/metadata.js'
import type { Query } from '../postgres/connect.js'

/** Undefined where the extension is not there yet. */
export async function readMetadata(query: Query): Promise<MetadataNode[] | undefined> {
  const [there] = await query("SELECT to_regclass('repmgr.nodes') IS NOT NULL AS present")
  if (there?.present !== true) return undefined
  const rows = await query(
    'SELECT node_id AS "nodeId", node_name AS "name", type, active, upstream_node_id AS "upstreamNodeId", conninfo, priority, location FROM repmgr.nodes ORDER BY node_id',
  )
  return rows as unknown as MetadataNode[]
}
