/** Preflight: asks every host and every server what the cluster needs of it. Changes nothing. */
import { certificatesIn, daysLeft, objectionTo } from '../src/cluster/certificate.js'
import {
  type CertificateAnswer,
  type CheckResult,
  type Checks,
  type HostAnswer,
  judgeAnswers,
  type ServerAnswer,
  worstOf,
} from '../src/cluster/checks.js'
import type { Cluster, ClusterNode } from '../src/cluster/model.js'
import { certificateNames, tlsOf } from '../src/cluster/tls.js'
import { isWitness } from '../src/cluster/topology.js'
import { readFile } from '../src/host/files.js'
import type { Host, HostPool } from '../src/host/host.js'
import { checkSudo, diskFree, readSystemFacts } from '../src/host/system.js'
import { OperationError } from '../src/operations/errors.js'
import { askEdges } from '../src/postgres/edges.js'
import { inspectServer } from '../src/postgres/inspect.js'
import { debianLayout, type Layout } from '../src/postgres/layout.js'
import { servedFiles } from '../src/postgres/tls.js'
import { nodeConninfo } from '../src/repmgr/conf.js'
import { addressOf } from './bench.js'

/** Asked of the local superuser, because it must also work where nobody is let in over the network. */
const SERVER = `SELECT json_build_object(
  'inRecovery', pg_is_in_recovery(),
  'canRewind', current_setting('data_checksums')::bool OR current_setting('wal_log_hints')::bool,
  'databaseBytes', (SELECT sum(pg_database_size(oid)) FROM pg_database),
  'archiving', current_setting('archive_mode') <> 'off',
  'archiveFailing', (SELECT 'the archive command has failed ' || failed_count || ' times, last for ' || last_failed_wal
     FROM pg_stat_archiver WHERE last_failed_time > COALESCE(last_archived_time, '-infinity')))`

export async function runChecks(pool: HostPool, cluster: Cluster, signal: AbortSignal): Promise<Checks> {
  const hostOf = ({ host, ssh: { user, port, hostKey } }: ClusterNode) => pool.host({ host, port, user, hostKey })
  const items = await checkHosts(cluster, cluster.nodes, hostOf, signal)
  return { cluster: cluster.name, verdict: worstOf(items), items, observedAt: new Date().toISOString() }
}

/** Every edge between these nodes, and from here to each. */
export async function checkHosts(
  cluster: Cluster,
  nodes: readonly ClusterNode[],
  hostOf: (node: ClusterNode) => Host,
  signal: AbortSignal,
): Promise<CheckResult[]> {
  const answers = await Promise.all(nodes.map(node => askHost(hostOf(node), cluster, nodes, node, signal)))
  return judgeAnswers(cluster.postgresVersion, answers)
}

async function askHost(
  host: Host,
  cluster: Cluster,
  nodes: readonly ClusterNode[],
  node: ClusterNode,
  signal: AbortSignal,
): Promise<HostAnswer> {
  const layout = debianLayout(cluster.postgresVersion)
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
    const [system, disk, state, edges, certificate] = await Promise.all([
      readSystemFacts(host, { signal }),
      diskFree(host, layout.dataDirectory, { signal }),
      inspectServer(host, layout, cluster.port, { signal }),
      askEdges(host, layout, cluster.port, peers, { signal }),
      askCertificate(host, cluster, node, layout, signal),
    ])
    const server =
      state.running && state.inRecovery !== undefined
        ? (JSON.parse(
            (
              await host.run(
                {
                  argv: [
                    `${layout.binDirectory}/psql`,
                    '-XAtqw',
                    '-p',
                    String(cluster.port),
                    '-d',
                    'postgres',
                    '-c',
                    SERVER,
                  ],
                  as: 'postgres',
                  timeoutMs: 30_000,
                },
                { signal },
              )
            ).stdout,
          ) as ServerAnswer & { archiveFailing: string | null })
        : undefined
    return {
      node: node.name,
      connectMs,
      clockOffsetMs: system.clockOffsetMs,
      disk,
      // Nothing is ever cloned onto a witness.
      inUse: isWitness(node) || (state.directory === 'database' && state.everStarted),
      packages: state.packages,
      ...(certificate && state.everStarted ? { certificate } : {}),
      ...edges,
      server: server && { ...server, archiveFailing: server.archiveFailing ?? undefined },
    }
  } catch (error) {
    signal.throwIfAborted()
    if (!(error instanceof OperationError)) throw error
    return { node: node.name, failure: { detail: error.message, remedy: error.remedy } }
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
