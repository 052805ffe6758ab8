/** What one host and its server answer when they are tried, for the checks. Changes nothing. */
import { archiveOf } from '../src/cluster/archive.js'
import { certificatesIn, daysLeft, objectionTo } from '../src/cluster/certificate.js'
import type {
  Answered,
  CertificateAnswer,
  HostAnswer,
  LoginAnswer,
  ServerAnswer,
} from '../src/cluster/check-answers.js'
import type { Cluster, ClusterNode } from '../src/cluster/model.js'
import { certificateNames, tlsOf } from '../src/cluster/tls.js'
import { isWitness } from '../src/cluster/topology.js'
import { readFile } from '../src/host/files.js'
import type { Host } from '../src/host/host.js'
import { packageManagerOf } from '../src/host/package-manager.js'
import { checkSudo, diskFree, readSystemFacts, type SystemFacts, spaceTaken } from '../src/host/system.js'
import { OperationError } from '../src/operations/errors.js'
import { archiveStateDirectory } from '../src/postgres/archive.js'
import { askEdges } from '../src/postgres/edges.js'
import { inspectServer, type ServerState } from '../src/postgres/inspect.js'
import type { Layout } from '../src/postgres/layout.js'
import { observe } from '../src/postgres/observe.js'
import { wantedPackages } from '../src/postgres/packages.js'
import { servedFiles } from '../src/postgres/tls.js'
import { nodeConninfo } from '../src/repmgr/conf.js'
import { addressOf, type Bench, takenOver } from './bench.js'
import { isInUse, refuseForeign } from './find-primary.js'

/** Asked of the local superuser, because it must also work where nobody is let in over the network. */
const SERVER = `SELECT json_build_object(
  'inRecovery', pg_is_in_recovery(),
  'canRewind', current_setting('data_checksums')::bool OR current_setting('wal_log_hints')::bool,
  'databaseBytes', (SELECT sum(pg_database_size(oid)) FROM pg_database))`

/** For connecting, and for the answer: a server that hangs costs no more. */
const ASK_MS = 5000

/** What it takes to try the edges: a bench has it, and so has a cluster of which nothing was surveyed. */
export type Tried = Pick<Bench, 'cluster' | 'layout' | 'host' | 'ask'>

/** A copy that a clone is to replace: what it takes is room for the new one, unless it is moved aside. */
export interface Replaced {
  node: ClusterNode
  keptAside: boolean
}

export async function askHost(
  tried: Tried,
  nodes: readonly ClusterNode[],
  node: ClusterNode,
  signal: AbortSignal,
  replaced: Replaced | undefined,
): Promise<HostAnswer> {
  const { cluster, layout } = tried
  const host = tried.host(node)
  const about = { node: node.name, witness: isWitness(node) }
  const joined = node.joinedAt !== undefined
  try {
    // Connected first, so that what is measured is an answer and no handshake.
    await host.controllerAddress(signal)
    const begun = performance.now()
    await checkSudo(host, { signal })
    const connectMs = Math.round(performance.now() - begun)
    const peers = nodes
      .filter(peer => peer !== node)
      .map(peer => ({
        name: peer.name,
        host: peer.host,
        sshPort: peer.ssh.port,
        conninfo: nodeConninfo(addressOf(cluster, layout, peer), 4),
      }))
    const [system, disk, found, edges, certificate] = await Promise.all([
      readSystemFacts(host, { signal }),
      diskFree(host, layout.dataDirectory, { signal }),
      inspectServer(host, layout, cluster.port, { signal }),
      askEdges(host, layout, cluster.port, peers, { signal }),
      askCertificate(host, cluster, node, layout, signal),
    ])
    const state = takenOver(cluster, node, found)
    const built = joined || (isInUse(state) && state.everStarted)
    // Nothing is ever cloned onto a witness.
    const stays = isWitness(node) || (replaced?.node !== node && state.directory === 'database' && state.everStarted)
    const keptAside = replaced?.node === node && replaced.keptAside && state.everStarted
    const [server, { service, archive }, ownBytes, wouldInstall] = await Promise.all([
      state.running && state.inRecovery !== undefined ? askServer(host, cluster, layout, signal) : undefined,
      built ? askService(tried, node, signal) : NOT_ASKED,
      stays || keptAside ? 0 : spaceTaken(host, layout.dataDirectory, { signal }),
      installable(host, cluster, layout, system, state, signal),
    ])
    return {
      ...about,
      built,
      service,
      connectMs,
      clockOffsetMs: system.clockOffsetMs,
      disk,
      inUse: stays,
      ownBytes,
      foreign: foreignIn(tried, node, state),
      running: state.running,
      held: state.startMode === 'held',
      packages: state.packages,
      wouldInstall,
      hasArchive: state.hasArchive === true,
      ...(certificate && state.everStarted ? { certificate } : {}),
      ...edges,
      server,
      ...(archive ? { archive } : {}),
    }
  } catch (error) {
    signal.throwIfAborted()
    if (!(error instanceof OperationError)) throw error
    const { service } = joined ? await askService(tried, node, signal) : NOT_ASKED
    return { ...about, built: joined, service, failure: { detail: error.message, remedy: error.remedy } }
  }
}

async function askServer(host: Host, cluster: Cluster, layout: Layout, signal: AbortSignal): Promise<ServerAnswer> {
  const { stdout } = await host.run(
    {
      argv: [`${layout.binDirectory}/psql`, '-XAtqw', '-p', String(cluster.port), '-d', 'postgres', '-c', SERVER],
      as: 'postgres',
      timeoutMs: 30_000,
    },
    { signal },
  )
  return JSON.parse(stdout) as ServerAnswer
}

const NOT_ASKED: { service: undefined; archive?: undefined } = { service: undefined }

/** As everything here asks it: over the network, as repmgr. What it says of the archive comes with it. */
async function askService(
  { cluster, ask }: Tried,
  node: ClusterNode,
  signal: AbortSignal,
): Promise<{ service: LoginAnswer; archive?: NonNullable<Answered['archive']> }> {
  const archive = archiveOf(cluster)
  const state = archive.mode === 'ship' ? archiveStateDirectory(archive) : undefined
  try {
    const said = await ask(node, { timeoutMs: ASK_MS, signal }, query => observe(query, state))
    return { service: { ok: true }, ...(said.archive ? { archive: said.archive } : {}) }
  } catch (error) {
    signal.throwIfAborted()
    if (error instanceof TypeError) throw error
    const detail = error instanceof Error ? error.message : String(error)
    const remedy = error instanceof OperationError ? error.remedy : 'Look at the server’s log on the host.'
    return { service: { ok: false, detail, remedy } }
  }
}

/** What an installation would bring. Nobody knows it where a source is still to be added. */
async function installable(
  host: Host,
  cluster: Cluster,
  layout: Layout,
  system: SystemFacts,
  state: ServerState,
  signal: AbortSignal,
): Promise<Record<string, string>> {
  // A server that is in use is not moved to another version.
  if (isInUse(state)) return {}
  const named = wantedPackages(layout, cluster.packages).flatMap(({ name, version }) =>
    version === undefined ? [] : [[name, version] as const],
  )
  const missing = layout.packages.filter(name => state.packages[name] === undefined)
  const manager = packageManagerOf(system)
  if (missing.length === 0 || !manager) return Object.fromEntries(named)
  const { candidates, ownSource } = await manager.inspect(host, missing, { signal })
  const isKnown = ownSource || (cluster.packages?.source ?? 'distribution') === 'distribution'
  return { ...(isKnown ? candidates : {}), ...Object.fromEntries(named) }
}

/** Why the host cannot be this node, as an operation would say it. */
function foreignIn(
  tried: Tried,
  node: ClusterNode,
  state: ServerState,
): { detail: string; remedy: string } | undefined {
  try {
    refuseForeign(tried, node, state)
    return undefined
  } catch (error) {
    if (!(error instanceof OperationError)) throw error
    return { detail: error.message, remedy: error.remedy }
  }
}

/** What others would say of the certificate that the server presents. Undefined without TLS. */
async function askCertificate(
  host: Host,
  cluster: Cluster,
  node: ClusterNode,
  layout: Layout,
  signal: AbortSignal,
): Promise<CertificateAnswer | undefined> {
  const path = servedFiles(tlsOf(cluster), layout)?.certificate
  if (path === undefined) return undefined
  const ours = tlsOf(cluster).mode === 'own-ca'
  const pem = await readFile(host, path, { signal })
  if (pem === undefined) return { path, daysLeft: undefined, problem: 'there is no such file', ours }
  const now = new Date()
  const names = ours ? certificateNames(cluster, node) : [node.host]
  const [certificate] = certificatesIn(pem) ?? []
  return {
    path,
    daysLeft: certificate && daysLeft(certificate, now),
    problem: objectionTo(pem, { names, now })?.detail,
    ours,
  }
}
