/** What repmgr.nodes says on a server, and where that is not as the servers are. Pure: rows and facts in, sentences out. */
import { type Static, Type } from 'typebox'
import { readConninfo } from './adoption.js'
import type { Cluster, ClusterNode } from './model.js'
import { nullable } from './nullable.js'
import { isWitness, locationOf, priorityOf } from './topology.js'

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

/** Without the connection string: somebody may have written a password into it. */
export const MetadataRow = Type.Object(
  {
    nodeId: Type.Integer(),
    name: Type.String(),
    type: Type.String({ description: 'primary, standby or witness.' }),
    active: Type.Boolean(),
    upstream: nullable(Type.String({ description: 'Name of the node that repmgr thinks it streams from.' })),
    host: nullable(Type.String()),
    port: nullable(Type.Integer()),
    priority: Type.Integer(),
    location: Type.String(),
  },
  { additionalProperties: false, title: 'MetadataRow', description: 'A row of repmgr.nodes.' },
)
export type MetadataRow = Static<typeof MetadataRow>

export const NodeMetadata = Type.Object(
  {
    rows: Type.Array(MetadataRow),
    disagreements: Type.Array(Type.String(), {
      description: 'Where these rows say something else than the servers and the record, each in words.',
      examples: [['has pg3 as a standby of pg2, and it streams from pg1']],
    }),
  },
  { additionalProperties: false, title: 'NodeMetadata', description: 'repmgr.nodes, as it is on this server.' },
)
export type NodeMetadata = Static<typeof NodeMetadata>

/** What the servers say. */
export interface Facts {
  /** Role of each node that answers. */
  roles: ReadonlyMap<string, 'primary' | 'standby' | 'witness'>
  /** By standby: the node that it streams from. */
  upstreams: ReadonlyMap<string, string>
  primary: string | undefined
}

export function describeMetadata(cluster: Cluster, rows: readonly MetadataNode[], facts: Facts): NodeMetadata {
  const nameOf = (nodeId: number) => rows.find(row => row.nodeId === nodeId)?.name ?? `node ${nodeId}`
  const told = rows.map((row): MetadataRow => {
    const values = readConninfo(row.conninfo)
    return {
      nodeId: row.nodeId,
      name: row.name,
      type: row.type,
      active: row.active,
      upstream: row.upstreamNodeId === null ? null : nameOf(row.upstreamNodeId),
      host: values?.get('host') ?? null,
      port: values ? Number(values.get('port') ?? 5432) : null,
      priority: row.priority,
      location: row.location,
    }
  })
  const strangers = told
    .filter(row => !cluster.nodes.some(({ nodeId }) => nodeId === row.nodeId))
    .map(({ type, name, nodeId }) => `has a ${type} ${name} (node ${nodeId}), which is no node of ${cluster.name}`)
  return {
    rows: told,
    disagreements: [
      ...cluster.nodes.flatMap(node =>
        aboutNode(
          cluster,
          node,
          told.find(({ nodeId }) => nodeId === node.nodeId),
          facts,
        ),
      ),
      ...strangers,
    ],
  }
}

function aboutNode(cluster: Cluster, node: ClusterNode, row: MetadataRow | undefined, facts: Facts): string[] {
  const role = facts.roles.get(node.name)
  if (!row) {
    // A node that never was part of the cluster has no row yet.
    if (role === undefined && node.joinedAt === undefined) return []
    return [`does not have ${node.name} (node ${node.nodeId})${role === undefined ? '' : `, which is a ${role}`}`]
  }
  return [
    ...(row.name === node.name ? [] : [`has node ${node.nodeId} as ${row.name}, and it is ${node.name}`]),
    ...aboutRole(node, row, role, facts),
    ...aboutUpstream(node, row, role, facts),
    ...(row.host === node.host && row.port === cluster.port
      ? []
      : [`has ${node.name} at ${row.host ?? 'no host'}:${row.port ?? '?'}, and it is at ${node.host}:${cluster.port}`]),
    ...(row.priority === priorityOf(node)
      ? []
      : [`has ${node.name} with priority ${row.priority}, and it is to have ${priorityOf(node)}`]),
    ...(row.location === locationOf(node)
      ? []
      : [`has ${node.name} at location ${row.location}, and it is to be at ${locationOf(node)}`]),
  ]
}

function aboutRole(
  { name }: ClusterNode,
  row: MetadataRow,
  role: 'primary' | 'standby' | 'witness' | undefined,
  { primary }: Facts,
): string[] {
  if (role === undefined) {
    // repmgr leaves a lost primary as an inactive one, and a lost standby as it was.
    return row.type === 'primary' && row.active && primary !== undefined
      ? [`has ${name}, which does not answer, as an active primary, and ${primary} is the primary`]
      : []
  }
  return [
    ...(row.type === role ? [] : [`has ${name} as a ${row.type}, and it is a ${role}`]),
    ...(row.active ? [] : [`has ${name} as inactive, and it runs`]),
  ]
}

function aboutUpstream(
  node: ClusterNode,
  row: MetadataRow,
  role: 'primary' | 'standby' | 'witness' | undefined,
  { upstreams, primary }: Facts,
): string[] {
  if (role === 'primary')
    return row.upstream === null
      ? []
      : [`has ${node.name} as one that streams from ${row.upstream}, and it is the primary`]
  if (isWitness(node)) {
    return role === undefined || primary === undefined || row.upstream === primary
      ? []
      : [`has ${node.name} as the witness of ${row.upstream ?? 'nobody'}, and ${primary} is the primary`]
  }
  const upstream = upstreams.get(node.name)
  return upstream === undefined || row.upstream === upstream
    ? []
    : [`has ${node.name} as a standby of ${row.upstream ?? 'nobody'}, and it streams from ${upstream}`]
}
