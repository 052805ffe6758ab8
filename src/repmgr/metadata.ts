/** repmgr's own tables, read by SQL: its command line has no output that a program could trust. */
import type { Query } from '../postgres/connect.js'

export interface MetadataNode {
  nodeId: number
  name: string
  type: string
  active: boolean
  upstreamNodeId: number | null
  conninfo: string
  priority: number
  location: string
}

/** Undefined where the extension is not there yet. */
export async function readMetadata(query: Query): Promise<MetadataNode[] | undefined> {
  const [there] = await query("SELECT to_regclass('repmgr.nodes') IS NOT NULL AS present")
  if (there?.present !== true) return undefined
  const rows = await query(
    'SELECT node_id AS "nodeId", node_name AS "name", type, active, upstream_node_id AS "upstreamNodeId", conninfo, priority, location FROM repmgr.nodes ORDER BY node_id',
  )
  return rows as unknown as MetadataNode[]
}
