/**
 * What a cluster is, as its owner describes it and as the service keeps it. The schemas validate requests, type the
 * code and document the API: there is one description of each thing, and its `title` is its name in the contract.
 */
import { isDeepStrictEqual } from 'node:util'
import { type Static, Type } from 'typebox'
import { Access, accessProblems, insidersOf } from './access.js'
import { ArchivePolicy, archiveContradictions } from './archive.js'
import { DrillsPolicy, RunningDrill } from './drills.js'
import { Firewall } from './firewall.js'
import { Handover } from './handover.js'
import { SshBetweenNodes } from './node-ssh.js'
import { packageInconsistencies, packagesPolicies } from './packages.js'
import { Pause } from './pause.js'
import { Promotion } from './promotion.js'
import { RepmgrdHold } from './repmgrd.js'
import { SettingOverrides } from './setting-overrides.js'
import { TlsPolicy, tlsProblems } from './tls.js'
import { misplacements, topologyPolicies } from './topology.js'
import { Workload } from './workload.js'

/** Also the scope of lock files on the hosts, hence the narrow alphabet. */
export const ClusterName = Type.String({
  pattern: '^[a-z][a-z0-9-]{0,38}[a-z0-9]$',
  description: 'Lower-case letters, digits and hyphens, 2 to 40 characters, starting with a letter.',
  examples: ['orders'],
})

/** repmgr allows 63 bytes and asks for a name that says nothing of the role, because roles move. */
const NODE_NAME = '^(?!(?:primary|standby|witness|master|slave|replica)$)[a-z][a-z0-9-]{0,61}[a-z0-9]$'
export const isNodeName = (name: string) => new RegExp(NODE_NAME).test(name)

export const NodeName = Type.String({
  pattern: NODE_NAME,
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

/**
 * What an owner may ask for beyond the bare necessities: of a node, and of a cluster. All optional; each has a file of its
 * own in this folder, with its schema and its rules. They are in the description and in the record under the same names.
 */
export const nodePolicies = {
  ...topologyPolicies,
  settings: Type.Optional(SettingOverrides),
}
export const clusterPolicies = {
  archive: Type.Optional(ArchivePolicy),
  firewall: Type.Optional(Firewall),
  ...packagesPolicies,
  sshBetweenNodes: Type.Optional(SshBetweenNodes),
  workload: Type.Optional(Workload),
  settings: Type.Optional(SettingOverrides),
  access: Type.Optional(Access),
  tls: Type.Optional(TlsPolicy),
  drills: Type.Optional(DrillsPolicy),
}

export const NodeSpec = Type.Object(
  { name: NodeName, host: HostName, ssh: Ssh, ...nodePolicies },
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
    ...clusterPolicies,
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
    adopted: Type.Optional(Type.Boolean({ description: 'Somebody else built it, and it was taken over as it was.' })),
    systemIdentifier: Type.Optional(
      Type.String({
        description:
          'Of a witness that was adopted: PostgreSQL’s identifier of its own server, by which it is known again.',
      }),
    ),
    installed: Type.Optional(
      Type.Record(Type.String(), Type.String(), {
        description: 'Versions of the packages that an operation last saw on it.',
        examples: [{ 'postgresql-15': '15.14-0+deb12u1' }],
      }),
    ),
    ...nodePolicies,
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
    adoptedSettings: Type.Optional(
      Type.Array(Type.String(), {
        description:
          'Names in `settings` that were found when the cluster was adopted: a description keeps them by saying nothing.',
        examples: [['max_connections']],
      }),
    ),
    handover: Type.Optional(Handover),
    promotion: Type.Optional(Promotion),
    pause: Type.Optional(Pause),
    drill: Type.Optional(RunningDrill),
    repmgrd: Type.Optional(RepmgrdHold),
    version: Type.Integer({
      description: 'Grows with every change of this record, but for a pause, of the cluster or of repmgrd.',
    }),
    ...clusterPolicies,
  },
  {
    additionalProperties: false,
    title: 'Cluster',
    description: 'A cluster as it was described. Who is primary is in its status, which is read from the servers.',
  },
)
export type Cluster = Static<typeof Cluster>

/** Those of `policies` that `from` has. */
export function policiesOf<T extends object, F extends object>(policies: T, from: F): Pick<F, keyof T & keyof F> {
  const asked = Object.entries(from).filter(([name]) => Object.hasOwn(policies, name))
  return Object.fromEntries(asked) as Pick<F, keyof T & keyof F>
}

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
    ...policiesOf(clusterPolicies, spec),
  }
}

export function newNode(spec: NodeSpec, nodeId: number): ClusterNode {
  if (spec.ssh.hostKey === undefined) throw new TypeError(`node ${spec.name} has no host key`)
  return {
    name: spec.name,
    nodeId,
    host: spec.host,
    ssh: { user: spec.ssh.user, port: spec.ssh.port ?? 22, hostKey: spec.ssh.hostKey },
    ...policiesOf(nodePolicies, spec),
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
  return [...found, ...misplacements(nodes, base)]
}

/** The same of a whole description: of its nodes, and of what it asks for beyond them. */
export const specInconsistencies = (spec: ClusterSpec): { pointer: string; detail: string }[] => [
  ...inconsistencies(spec.nodes),
  ...archiveContradictions(spec.archive, '/archive'),
  ...packageInconsistencies(spec),
  ...accessProblems(spec.access ?? [], insidersOf(spec.nodes, [])),
  ...tlsProblems(spec.tls),
]

function policyDifferences(base: string, policies: object, wanted: object, known: object) {
  return Object.entries(policies).flatMap(([name, schema]: [string, { default?: unknown }]) => {
    const [asked, kept] = [wanted, known].map(from => (from as Record<string, unknown>)[name] ?? schema.default)
    if (isDeepStrictEqual(asked, kept)) return []
    const said = kept === undefined ? 'is not set there' : `is ${JSON.stringify(kept)} there`
    return [{ pointer: `${base}/${name}`, detail: said }]
  })
}

/** Where a node is described with other options than it has. */
export const nodePolicyDifferences = (spec: NodeSpec, node: ClusterNode) =>
  policyDifferences('', nodePolicies, spec, node)

/** Where a description says something else of a cluster than its record: JSON pointer, and what the record says. */
export function differences(spec: ClusterSpec, cluster: Cluster): { pointer: string; detail: string }[] {
  const found: { pointer: string; detail: string }[] = []
  const compare = (pointer: string, wanted: string | number, known: string | number) => {
    if (wanted !== known) found.push({ pointer, detail: `is ${known} there` })
  }
  const comparePolicies = (base: string, policies: object, wanted: object, known: object) => {
    found.push(...policyDifferences(base, policies, wanted, known))
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
    comparePolicies(`/nodes/${index}`, nodePolicies, node, known)
  }
  comparePolicies('', clusterPolicies, spec, cluster)
  for (const { name, host } of cluster.nodes) {
    if (!spec.nodes.some(node => node.name === name))
      found.push({ pointer: '/nodes', detail: `has ${name} (${host}) there too` })
  }
  return found
}

/** Whether a description says the same of a cluster as its record: then repeating it is safe. */
export const describes = (spec: ClusterSpec, cluster: Cluster) => differences(spec, cluster).length === 0
