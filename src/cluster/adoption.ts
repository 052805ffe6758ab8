/** Taking over a repmgr cluster that somebody else built: what is given, and what is found. */
import { type Static, Type } from 'typebox'
import { Cluster, ClusterName, type ClusterNode, HostName, isNodeName, NodeName, Ssh } from './model.js'

const Login = Type.Object(
  {
    name: Type.String({ ...NodeName, description: 'Its node_name in repmgr.nodes.' }),
    host: Type.Optional(
      Type.String({ ...HostName, description: 'Where the service reaches it, if not at the host of its conninfo.' }),
    ),
    ssh: Type.Optional(Ssh),
  },
  {
    additionalProperties: false,
    title: 'AdoptedLogin',
    description: 'How to log in to a node, where it is not as for the first one.',
  },
)

export const AdoptionRequest = Type.Object(
  {
    name: ClusterName,
    node: Type.Object(
      { host: HostName, ssh: Ssh },
      {
        additionalProperties: false,
        title: 'FirstNode',
        description: 'Any node of the cluster; repmgr’s metadata name the others.',
      },
    ),
    port: Type.Optional(
      Type.Integer({
        minimum: 1024,
        maximum: 65535,
        description: 'Port of its PostgreSQL server, where the host has several.',
      }),
    ),
    nodes: Type.Optional(
      Type.Array(Login, {
        maxItems: 16,
        description:
          'Host keys, and what else of a login differs from the first node’s. The answer asks for what is missing.',
      }),
    ),
    repmgrPassword: Type.Optional(
      Type.String({
        minLength: 1,
        maxLength: 256,
        pattern: '^[\\x21-\\x7e]+$',
        description:
          'The password of the role repmgr, if it has one that others use too. Kept encrypted, never shown. Left out: the first operation sets a new one.',
      }),
    ),
  },
  {
    additionalProperties: false,
    title: 'AdoptionRequest',
    description: 'A running repmgr cluster, given by one of its nodes.',
  },
)
export type AdoptionRequest = Static<typeof AdoptionRequest>

export const Adoption = Type.Object(
  {
    cluster: Cluster,
    ready: Type.Boolean({
      description:
        'Whether the service can already ask every server. If not, `missing` says why, and PUT of the description mends it.',
    }),
    missing: Type.Array(Type.String(), { description: 'What keeps the service from asking a server, in words.' }),
    next: Type.String({ description: 'What to call next.' }),
  },
  {
    additionalProperties: false,
    title: 'Adoption',
    description: 'The cluster as it is recorded now. Its hosts were only read.',
  },
)
export type Adoption = Static<typeof Adoption>

/** One row of repmgr.nodes, as far as it says how the cluster was built. */
export interface ForeignNode {
  nodeId: number
  name: string
  type: string
  upstreamNodeId: number | null
  active: boolean
  conninfo: string
  priority: number
  location?: string
  configFile: string
}

/** A cluster as its hosts show it. */
export interface ForeignCluster {
  postgresVersion: number
  port: number
  systemIdentifier: string
  nodes: readonly ForeignNode[]
  /** node_id of the node that was given. */
  givenNodeId: number
}

export interface FoundNode {
  nodeId: number
  name: string
  host: string
  ssh: { user: string; port?: number; hostKey?: string }
}

/**
 * Keywords and values of a libpq connection string of the form `host=… user=…`. Undefined where it is not one.
 * @see https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-KEYWORD-VALUE
 */
export function readConninfo(text: string): Map<string, string> | undefined {
  const found = new Map<string, string>()
  const pair = /\s*([a-z_]+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|((?:[^\s'\\]|\\.)*))\s*/giy
  while (pair.lastIndex < text.length) {
    const match = pair.exec(text)
    if (!match?.[1]) return undefined
    found.set(match[1].toLowerCase(), (match[2] ?? match[3] ?? '').replaceAll(/\\(.)/g, '$1'))
  }
  return found
}

/** Why a cluster cannot be adopted as it is: sentences, none where it can. */
export function objections({ nodes, port }: Pick<ForeignCluster, 'nodes' | 'port'>): string[] {
  const found: string[] = []
  const hosts = new Map<string, string>()
  for (const { name, nodeId, type, active, conninfo } of nodes) {
    const values = readConninfo(conninfo)
    const who = `${name} (node ${nodeId})`
    if (!isNodeName(name))
      found.push(`${who} has a name that this service does not take: lower-case letters, digits and hyphens, no role.`)
    if (type !== 'primary' && type !== 'standby' && type !== 'witness')
      found.push(`${who} is a ${type}, which this service does not know: unregister it first.`)
    if (type === 'witness' && nodes.some(other => other.type === 'witness' && other.nodeId < nodeId))
      found.push(`${who} is a second witness; one is enough for a cluster: unregister one of them.`)
    if (!active) found.push(`${who} is inactive in repmgr.nodes: bring it back, or unregister it, first.`)
    if (!values) {
      found.push(`${who} has a conninfo that is not of the form host=… user=…: ${conninfo}.`)
      continue
    }
    if (!values.get('host')) found.push(`${who} has no host in its conninfo.`)
    if (values.get('user') !== 'repmgr' || values.get('dbname') !== 'repmgr')
      found.push(
        `${who} has role ${values.get('user')} and database ${values.get('dbname')} in its conninfo; this service works with repmgr and repmgr.`,
      )
    if (Number(values.get('port') ?? 5432) !== port)
      found.push(
        `${who} listens on port ${values.get('port') ?? 5432}, the given node on ${port}: one port for all nodes.`,
      )
    const host = values.get('host') ?? ''
    const neighbour = hosts.get(host)
    if (neighbour !== undefined && host !== '') found.push(`${who} has the same host as ${neighbour}.`)
    hosts.set(host, who)
  }
  if (nodes.filter(({ type, active }) => type === 'primary' && active).length !== 1)
    found.push('repmgr.nodes does not have exactly one active primary.')
  return found
}

/** The nodes with a way to log in to each: what is said of a node, else what is said of the first. */
export function withLogins(foreign: ForeignCluster, request: AdoptionRequest): FoundNode[] {
  return foreign.nodes.map(({ nodeId, name, conninfo }) => {
    const said = request.nodes?.find(login => login.name === name)
    const given = nodeId === foreign.givenNodeId
    const { user, port } = request.node.ssh
    const ssh = said?.ssh ?? (given ? request.node.ssh : { user, ...(port === undefined ? {} : { port }) })
    return {
      nodeId,
      name,
      host: said?.host ?? (given ? request.node.host : (readConninfo(conninfo)?.get('host') ?? '')),
      ssh:
        given && ssh.hostKey === undefined
          ? { ...ssh, ...(request.node.ssh.hostKey ? { hostKey: request.node.ssh.hostKey } : {}) }
          : ssh,
    }
  })
}

/** The record of a cluster that was found. Every node has its host key by now. */
export function adoptedCluster(
  name: string,
  foreign: ForeignCluster,
  nodes: readonly FoundNode[],
  now: string,
): Cluster {
  return {
    name,
    postgresVersion: foreign.postgresVersion,
    port: foreign.port,
    // The primary first, as in a description.
    nodes: [...nodes]
      .sort((a, b) => rank(foreign, a) - rank(foreign, b))
      .map(({ nodeId, name: node, host, ssh }) => {
        if (ssh.hostKey === undefined) throw new TypeError(`node ${node} has no host key`)
        return {
          name: node,
          nodeId,
          host,
          ssh: { user: ssh.user, port: ssh.port ?? 22, hostKey: ssh.hostKey },
          ...placeOf(foreign, nodeId),
          joinedAt: now,
          adopted: true,
        }
      }),
    nextNodeId: Math.max(...nodes.map(({ nodeId }) => nodeId)) + 1,
    systemIdentifier: foreign.systemIdentifier,
    createdAt: now,
    version: 1,
  }
}

/** Its place, as repmgr knows it, so that nothing of it is changed by being taken over. */
function placeOf(
  { nodes }: ForeignCluster,
  nodeId: number,
): Pick<ClusterNode, 'kind' | 'upstream' | 'priority' | 'location'> {
  const row = nodes.find(node => node.nodeId === nodeId)
  const witness = row?.type === 'witness'
  const upstream = nodes.find(node => node.nodeId === row?.upstreamNodeId)
  return {
    ...(upstream?.type === 'standby' ? { upstream: upstream.name } : {}),
    ...(witness ? { kind: 'witness' } : {}),
    ...(row && !witness && row.priority !== 100 ? { priority: row.priority } : {}),
    ...(row?.location !== undefined && row.location !== 'default' ? { location: row.location } : {}),
  }
}

/**
 * A standby that is behind on purpose. repmgr's default priority was chosen by nobody, and promoting it would lose commits: it
 * is left out, and 0 holds.
 */
export const withDelay = (node: ClusterNode, applyDelayMs: number): ClusterNode =>
  applyDelayMs > 0 ? { ...node, applyDelayMs } : node

const rank = ({ nodes }: ForeignCluster, { nodeId }: FoundNode) =>
  nodes.find(node => node.nodeId === nodeId)?.type === 'primary' ? 0 : nodeId
