/** Taking over a repmgr cluster that somebody else built. Everything here only reads. */
import type { Adoption, AdoptionRequest, ForeignCluster, ForeignNode } from '../src/cluster/adoption.js'
import { objections, withDelay } from '../src/cluster/adoption.js'
import { archiveObjection } from '../src/cluster/archive.js'
import { type FoundServer, foundArchive, foundOverrides } from '../src/cluster/found-settings.js'
import type { Cluster, ClusterNode } from '../src/cluster/model.js'
import { dataNodes, isWitness } from '../src/cluster/topology.js'
import { readFile } from '../src/host/files.js'
import type { Host, HostPool } from '../src/host/host.js'
import { checkSudo, readSystemFacts } from '../src/host/system.js'
import { OperationError } from '../src/operations/errors.js'
import { FOUND_SETTINGS_QUERY } from '../src/postgres/found-settings.js'
import { inspectServer } from '../src/postgres/inspect.js'
import { debianLayout } from '../src/postgres/layout.js'
import { SHARED_SETTINGS } from '../src/postgres/shared-settings.js'
import type { Asker } from '../src/store/event.js'
import { repmgrPassword } from '../src/store/secrets.js'
import { type Bench, openBench, SystemUnsupported } from './bench.js'
import { findPrimary } from './find-primary.js'
import { foundTls, withFoundTls } from './found-tls.js'
import type { PlanContext } from './plan-operation.js'
import { askLocal } from './steps/local-sql.js'
import { settingsOf } from './steps/settings.js'

/** Thrown when a cluster cannot be taken over as it is. */
export class AdoptionRefused extends OperationError {
  constructor(reasons: readonly string[], remedy = 'Mend what is named, then repeat the call. Nothing was changed.') {
    super(reasons.join(' '), { code: 'adoption-refused', outcome: 'not_started', remedy })
  }
}

interface LocalServer {
  version: number
  name: string
  port: number
  dataDirectory: string
}

/** Reads repmgr's metadata on the node that was given. Throws `AdoptionRefused`, and what a host can answer. */
export async function readForeignCluster(
  pool: HostPool,
  { node, port }: AdoptionRequest,
  signal: AbortSignal,
): Promise<ForeignCluster> {
  const { hostKey } = node.ssh
  if (hostKey === undefined) throw new TypeError('the host key is confirmed before')
  const host = pool.host({ host: node.host, port: node.ssh.port ?? 22, user: node.ssh.user, hostKey })
  const system = await readSystemFacts(host, { signal })
  if (system.family !== 'debian' || !system.systemd) throw new SystemUnsupported(node.host, system.osName)
  await checkSudo(host, { signal })
  const server = chooseServer(node.host, await listServers(host, signal), port)
  const ask = (statement: string) => askServer(host, server, statement, signal)
  const there = await ask("SELECT to_regclass('repmgr.nodes') IS NOT NULL")
  if (there !== 't')
    throw new AdoptionRefused([`The database repmgr on ${node.host}:${server.port} has no table repmgr.nodes.`])
  const rows = JSON.parse(
    await ask(
      `SELECT COALESCE(json_agg(json_build_object('nodeId', node_id, 'name', node_name, 'type', type, 'active', active,
         'upstreamNodeId', upstream_node_id, 'conninfo', conninfo, 'priority', priority, 'location', location, 'configFile', config_file)
         ORDER BY node_id), '[]') FROM repmgr.nodes`,
    ),
  ) as ForeignNode[]
  const reasons = objections({ nodes: rows, port: server.port })
  if (reasons.length > 0) throw new AdoptionRefused(reasons)
  const givenNodeId = await whichNode(host, node.host, rows, signal)
  const given = rows.find(({ nodeId }) => nodeId === givenNodeId)
  if (given?.type === 'witness') {
    const others = rows.filter(({ type }) => type !== 'witness').map(({ name }) => name)
    throw new AdoptionRefused(
      [`${given.name} is the witness: what it has of repmgr.nodes is a copy, and may be an old one.`],
      `Give one of the nodes that hold the data: ${others.join(', ')}. Nothing was changed.`,
    )
  }
  return {
    postgresVersion: server.version,
    port: server.port,
    systemIdentifier: await ask('SELECT system_identifier::text FROM pg_control_system()'),
    nodes: rows,
    givenNodeId,
  }
}

/** Debian's own list. Only servers that lie where the package puts them can be taken over. */
async function listServers(host: Host, signal: AbortSignal): Promise<LocalServer[]> {
  const { stdout } = await host.run(
    {
      argv: ['sh', '-c', 'command -v pg_lsclusters >/dev/null && pg_lsclusters -h || true'],
      as: 'root',
      timeoutMs: 30_000,
    },
    { signal },
  )
  return stdout
    .split('\n')
    .map(line => line.trim().split(/\s+/))
    .flatMap(([version, name, serverPort, , , dataDirectory]) =>
      dataDirectory ? [{ version: Number(version), name: name ?? '', port: Number(serverPort), dataDirectory }] : [],
    )
}

function chooseServer(host: string, servers: readonly LocalServer[], port: number | undefined): LocalServer {
  const fitting = servers.filter(server => port === undefined || server.port === port)
  const [server, second] = fitting
  const list = servers.map(({ version, name, port: own }) => `${version}/${name} on port ${own}`).join(', ')
  if (!server) {
    const wanted = port === undefined ? '' : ` on port ${port}`
    throw new AdoptionRefused([
      `${host} has no PostgreSQL server${wanted} that pg_lsclusters knows; it has ${list || 'none'}.`,
    ])
  }
  if (second) throw new AdoptionRefused([`${host} has several servers: ${list}.`], 'Say which one with "port".')
  const { dataDirectory, clusterName } = debianLayout(server.version)
  if (server.name !== clusterName || server.dataDirectory !== dataDirectory)
    throw new AdoptionRefused([
      `${host} has its server ${server.version}/${server.name} in ${server.dataDirectory}; this service works with ${server.version}/${clusterName} in ${dataDirectory}.`,
    ])
  return server
}

async function askServer(host: Host, server: LocalServer, statement: string, signal: AbortSignal): Promise<string> {
  const psql = `${debianLayout(server.version).binDirectory}/psql`
  const argv = [psql, '-XAtqw', '-p', String(server.port), '-d', 'repmgr', '-c', statement]
  const { stdout } = await host.run({ argv, as: 'postgres', timeoutMs: 15_000 }, { signal })
  return stdout.trim()
}

/** By its own repmgr.conf, which the metadata name: addresses may be written in many ways. */
async function whichNode(
  host: Host,
  address: string,
  rows: readonly ForeignNode[],
  signal: AbortSignal,
): Promise<number> {
  for (const path of new Set(rows.map(({ configFile }) => configFile))) {
    const text = await readFile(host, path, { signal })
    const id = /^\s*node_id\s*=\s*'?(\d+)'?/m.exec(text ?? '')?.[1]
    if (id !== undefined && rows.some(({ nodeId }) => nodeId === Number(id))) return Number(id)
  }
  const paths = rows.map(({ configFile }) => configFile).join(', ')
  throw new AdoptionRefused([`${address} has no repmgr.conf with a node_id of repmgr.nodes (looked for ${paths}).`])
}

interface Examined {
  missing: string[]
  controllers: readonly string[]
  /** What its servers were told by hand and this service would otherwise take away. */
  kept: Pick<Cluster, 'archive' | 'settings' | 'adoptedSettings' | 'tls' | 'nodes'>
  /** Why the TLS that it has could not be kept, where that is so. */
  tlsObjection?: string | undefined
}

/** The archive of the cluster, its delayed standbys, and what the primary’s own configuration says of settings that this service writes too. */
async function readKept(
  bench: Bench,
  primary: ClusterNode,
  signal: AbortSignal,
): Promise<Omit<Examined['kept'], 'tls'>> {
  const others = dataNodes(bench.cluster.nodes).filter(node => node !== primary)
  const servers = await Promise.all(
    [primary, ...others].map(async (node): Promise<FoundServer> => {
      const json = await askLocal(bench, node, signal, FOUND_SETTINGS_QUERY)
      return { ...(JSON.parse(json) as Omit<FoundServer, 'node'>), node: node.name }
    }),
  )
  const { archive, reasons } = foundArchive(servers)
  if (reasons.length > 0) throw new AdoptionRefused(reasons)
  const [first] = servers
  if (!first) throw new TypeError('a cluster without a primary')
  const shared = SHARED_SETTINGS.map(name => ({ name, value: '' }))
  const settings = foundOverrides([...shared, ...settingsOf(bench, primary)], first)
  const names = Object.keys(settings)
  // A primary takes no notice of a delay that it was told of, and would be delayed where nobody meant it once it is none.
  const delays = new Map(servers.slice(1).map(({ node, applyDelayMs }) => [node, applyDelayMs]))
  return {
    nodes: bench.cluster.nodes.map(node => withDelay(node, delays.get(node.name) ?? 0)),
    ...(archive === undefined ? {} : { archive }),
    ...(names.length === 0 ? {} : { settings, adoptedSettings: names }),
  }
}

/**
 * Looks at every host as an operation would, and tries every server. Throws where an operation would be refused; returns
 * what keeps the service from asking a server, in words, and the addresses that the hosts see it come from.
 */
async function examineCluster(
  pool: HostPool,
  cluster: Cluster,
  password: string | undefined,
  signal: AbortSignal,
): Promise<Examined> {
  const opened = await openBench(cluster, password ?? '', pool, () => false, signal, {
    trust: { tls: 'as-asked' },
  })
  const primary = findPrimary(opened)
  const running = cluster.nodes.filter(node => !opened.found(node).server.running).map(({ name }) => name)
  if (running.length > 0) throw new AdoptionRefused([`${running.join(', ')} is not running.`])
  const { tls, objection: tlsObjection } = await foundTls(opened, primary, signal)
  // Without it: what its own configuration says of its certificate is not to be taken for what this service writes.
  const kept = { ...(await readKept(opened, primary, signal)), ...(tls === undefined ? {} : { tls }) }
  const bench = withFoundTls(opened, tls)
  const { controllers } = bench
  if (password === undefined)
    return { missing: ['The password of the role repmgr is not known.'], controllers, kept, tlsObjection }
  const answers = await Promise.all(
    cluster.nodes.map(node =>
      bench
        .ask(node, { signal }, query => query('SELECT 1'))
        .then(
          () => [],
          (error: unknown) => {
            signal.throwIfAborted()
            if (!(error instanceof OperationError)) throw error
            return [`${node.name}: ${error.message}`]
          },
        ),
    ),
  )
  return { missing: answers.flat(), controllers, kept, tlsObjection }
}

/** A witness has a database of its own, which nothing but its host tells: by it the server is known until it is marked. */
async function withWitnesses(pool: HostPool, cluster: Cluster, signal: AbortSignal): Promise<Cluster> {
  const { systemIdentifier: ours, postgresVersion, port } = cluster
  const identified = async (node: ClusterNode): Promise<ClusterNode> => {
    if (!isWitness(node)) return node
    const host = pool.host({ host: node.host, ...node.ssh })
    const { systemIdentifier } = await inspectServer(host, debianLayout(postgresVersion), port, { signal })
    if (systemIdentifier === undefined)
      throw new AdoptionRefused([`${node.name}, the witness, has no server ${postgresVersion}/main.`])
    if (systemIdentifier === ours)
      throw new AdoptionRefused([`${node.name} is registered as the witness, and holds a copy of the data.`])
    return { ...node, systemIdentifier }
  }
  return { ...cluster, nodes: await Promise.all(cluster.nodes.map(identified)) }
}

/** Who adopts, for the audit trail, and under which reference of theirs. */
export interface AdoptionAsked {
  by: Asker
  reference?: string
}

/** Records a cluster that was found, with its password. Undefined where the name was taken meanwhile. */
export async function adoptCluster(
  { store, pool, worker = true }: PlanContext,
  found: Cluster,
  password: string | undefined,
  { by, reference }: AdoptionAsked,
  signal: AbortSignal,
): Promise<Adoption | undefined> {
  const identified = await withWitnesses(pool, found, signal)
  const { missing, controllers, kept, tlsObjection } = await examineCluster(pool, identified, password, signal)
  const ready = missing.length === 0
  const cluster: Cluster = {
    ...identified,
    ...kept,
    ...(worker ? { controllers: [...new Set(controllers)].sort() } : {}),
    ...(ready ? { builtAt: found.createdAt } : {}),
  }
  const how = reference === undefined ? 'adopted' : `adopted (${reference})`
  if (!(await store.clusters.create(cluster, by, how))) return undefined
  if (password !== undefined) await store.secrets.set(repmgrPassword(cluster.name), password)
  return adoptionOf(cluster, missing, tlsObjection)
}

/** The answer to an adoption that is asked for again: the record, and whether its servers can be asked by now. */
export async function adoptedBefore(
  { store, pool }: PlanContext,
  cluster: Cluster,
  signal: AbortSignal,
): Promise<Adoption> {
  const password = await store.secrets.get(repmgrPassword(cluster.name))
  const { missing, tlsObjection } = await examineCluster(pool, cluster, password, signal)
  return adoptionOf(cluster, missing, tlsObjection)
}

function adoptionOf(cluster: Cluster, missing: string[], tlsObjection?: string): Adoption {
  const ready = missing.length === 0
  const path = `/v1/clusters/${cluster.name}`
  const objection = archiveObjection(cluster.archive)
  const archiveRemark =
    objection === undefined
      ? ''
      : ` ${objection} ${ready ? `PUT ${path}/archive replaces it` : 'Say another "archive" in that description'}: {"mode":"ship"} for one that keeps every segment on every node, {"mode":"none"} for none.`
  const tlsRemark =
    tlsObjection === undefined
      ? ''
      : ` Its standbys verify their primary by TLS, and this service cannot go on with that: ${tlsObjection.replace(/\.$/, '')}. Mend it, forget the cluster and adopt it again before the PUT.`
  return {
    cluster,
    ready,
    missing,
    next: `${
      ready
        ? `GET ${path}/status shows it. GET ${path}/drift shows what the service would manage and is not as it would have it; PUT ${path} brings that into place.`
        : `PUT ${path} with its description lets the service in and brings what it manages into place; with ?dryRun=true it shows every step first.`
    }${archiveRemark}${tlsRemark}`,
  }
}
