/**
 * What a cluster is, as its owner describes it and as the service keeps it. The schemas validate requests, type the
 * code and document the API: there is one description of each thing, and its `title` is its name in the contract.
 */
import { type Static, Type } from 'typebox'

/** Also the scope of lock files on the hosts, hence the narrow alphabet. */
export const ClusterName = Type.String({
  pattern: '^[a-z][a-z0-9-]{0,38}[a-z0-9]$',
  description: 'Lower-case letters, digits and hyphens, 2 to 40 characters, starting with a letter.',
  examples: ['orders'],
})

/** repmgr allows 63 bytes and asks for a name that says nothing of the role, because roles move. */
export const NodeName = Type.String({
  pattern: '^(?!(?:primary|standby|witness|master|slave|replica)$)[a-z][a-z0-9-]{0,61}[a-z0-9]$',
  description: 'Lower-case letters, digits and hyphens, 2 to 63 characters. Not the name of a role: roles move.',
  examples: ['pg1'],
})

export const HostName = Type.String({
  pattern: '^[A-Za-z0-9](?:[A-Za-z0-9.:-]{0,251}[A-Za-z0-9])?$',
  description: 'Address or name under which the service and the other nodes reach this host.',
  examples: ['192.0.2.11'],
})

export const Port = Type.Integer({ minimum: 1, maximum: 65535 })

export const HostKey = Type.String({
  pattern: '^SHA256:[A-Za-z0-9+/]{43}$',
  description: 'Fingerprint of one of the host keys, as `ssh-keygen -lf` prints it.',
  examples: ['SHA256:kL4Sd0mNsCXzAVEoGUfOTlZeIkoQbBFNrHqJCrW9yZQ'],
})

export const Ssh = Type.Object(
  {
    user: Type.String({
      pattern: '^[a-z_][a-z0-9_-]{0,31}$',
      description: 'Login user; it needs sudo without a password.',
      examples: ['admin'],
    }),
    port: Type.Optional(Type.Integer({ minimum: 1, maximum: 65535, default: 22 })),
    hostKey: Type.Optional(HostKey),
  },
  { additionalProperties: false, title: 'SshLogin', description: 'How the service logs in to the host.' },
)

export const NodeSpec = Type.Object(
  { name: NodeName, host: HostName, ssh: Ssh },
  { additionalProperties: false, title: 'NodeSpec', description: 'A node as its owner describes it.' },
)
export type NodeSpec = Static<typeof NodeSpec>

export const PostgresVersion = Type.Integer({
  minimum: 13,
  maximum: 18,
  description: 'Major version; the host’s package sources must have it.',
  examples: [15],
})

export const ClusterSpec = Type.Object(
  {
    name: ClusterName,
    postgresVersion: PostgresVersion,
    port: Type.Optional(
      Type.Integer({ minimum: 1024, maximum: 65535, default: 5432, description: 'PostgreSQL port.' }),
    ),
    nodes: Type.Array(NodeSpec, {
      minItems: 1,
      maxItems: 16,
      description: 'The first becomes the primary when the cluster is built; the others its standbys.',
    }),
  },
  { additionalProperties: false, title: 'ClusterSpec', description: 'A cluster as its owner describes it.' },
)
export type ClusterSpec = Static<typeof ClusterSpec>

export const ClusterNode = Type.Object(
  {
    name: NodeName,
    nodeId: Type.Integer({
      minimum: 1,
      description: 'node_id in repmgr’s metadata; never used again for another node.',
    }),
    host: HostName,
    ssh: Type.Object({ user: Type.String(), port: Port, hostKey: HostKey }, { additionalProperties: false }),
    joinedAt: Type.Optional(
      Type.String({ format: 'date-time', description: 'When an operation last saw it replicate.' }),
    ),
  },
  { additionalProperties: false, title: 'ClusterNode', description: 'A node of a cluster.' },
)
export type ClusterNode = Static<typeof ClusterNode>

export const Cluster = Type.Object(
  {
    name: ClusterName,
    postgresVersion: PostgresVersion,
    port: Port,
    nodes: Type.Array(ClusterNode),
    controllers: Type.Optional(
      Type.Array(Type.String(), {
        description: 'Addresses under which the hosts have seen this service: they may connect to the servers.',
      }),
    ),
    nextNodeId: Type.Integer({ minimum: 1, description: 'node_id of the next node that joins.' }),
    systemIdentifier: Type.Optional(
      Type.String({ description: 'PostgreSQL’s own identifier of this database cluster, known once it was built.' }),
    ),
    createdAt: Type.String({ format: 'date-time' }),
    builtAt: Type.Optional(Type.String({ format: 'date-time', description: 'When a bootstrap first succeeded.' })),
    version: Type.Integer({ description: 'Grows with every change of this record.' }),
  },
  {
    additionalProperties: false,
    title: 'Cluster',
    description: 'A cluster as it was described. Who is primary is in its status, which is read from the servers.',
  },
)
export type Cluster = Static<typeof Cluster>

/** Makes the record of a new cluster. Every node must carry its host key by now. */
export function newCluster(spec: ClusterSpec, now: string): Cluster {
  return {
    name: spec.name,
    postgresVersion: spec.postgresVersion,
    port: spec.port ?? 5432,
    nodes: spec.nodes.map((node, index) => newNode(node, index + 1)),
    nextNodeId: spec.nodes.length + 1,
    createdAt: now,
    version: 1,
  }
}

export function newNode(spec: NodeSpec, nodeId: number): ClusterNode {
  if (spec.ssh.hostKey === undefined) throw new TypeError(`node ${spec.name} has no host key`)
  return {
    name: spec.name,
    nodeId,
    host: spec.host,
    ssh: { user: spec.ssh.user, port: spec.ssh.port ?? 22, hostKey: spec.ssh.hostKey },
  }
}

/** What is wrong with a description that its schema cannot say: JSON pointer and sentence. */
export function inconsistencies(nodes: readonly NodeSpec[], base = '/nodes'): { pointer: string; detail: string }[] {
  const found: { pointer: string; detail: string }[] = []
  const names = new Map<string, number>()
  const hosts = new Map<string, number>()
  for (const [index, node] of nodes.entries()) {
    const twin = names.get(node.name)
    if (twin !== undefined) {
      found.push({
        pointer: `${base}/${index}/name`,
        detail: `${node.name} is also the name of nodes[${twin}]; names are unique.`,
      })
    }
    // Two ports of one address are two hosts only behind NAT, where the nodes could not reach each other by it.
    const host = node.host.toLowerCase()
    const neighbour = hosts.get(host)
    if (neighbour !== undefined) {
      found.push({
        pointer: `${base}/${index}/host`,
        detail: `${node.host} is also the host of nodes[${neighbour}]; one node a host.`,
      })
    }
    names.set(node.name, index)
    hosts.set(host, index)
  }
  return found
}

/** Where a description says something else of a cluster than its record: JSON pointer, and what the record says. */
export function differences(spec: ClusterSpec, cluster: Cluster): { pointer: string; detail: string }[] {
  const found: { pointer: string; detail: string }[] = []
  const compare = (pointer: string, wanted: string | number, known: string | number) => {
    if (wanted !== known) found.push({ pointer, detail: `is ${known} there` })
  }
  compare('/name', spec.name, cluster.name)
  compare('/postgresVersion', spec.postgresVersion, cluster.postgresVersion)
  compare('/port', spec.port ?? 5432, cluster.port)
  for (const [index, node] of spec.nodes.entries()) {
    const known = cluster.nodes.find(({ name }) => name === node.name)
    if (!known) {
      found.push({ pointer: `/nodes/${index}`, detail: `is not there: the cluster has no node ${node.name}` })
      continue
    }
    compare(`/nodes/${index}/host`, node.host, known.host)
    compare(`/nodes/${index}/ssh/user`, node.ssh.user, known.ssh.user)
    compare(`/nodes/${index}/ssh/port`, node.ssh.port ?? 22, known.ssh.port)
    if (node.ssh.hostKey !== undefined) compare(`/nodes/${index}/ssh/hostKey`, node.ssh.hostKey, known.ssh.hostKey)
  }
  for (const { name, host } of cluster.nodes) {
    if (!spec.nodes.some(node => node.name === name))
      found.push({ pointer: '/nodes', detail: `has ${name} (${host}) there too` })
  }
  return found
}

/** Whether a description says the same of a cluster as its record: then repeating it is safe. */
export const describes = (spec: ClusterSpec, cluster: Cluster) => differences(spec, cluster).length === 0
