/** Preflight: asks every host and every server what the cluster needs of it. Changes nothing. */
import {
  type CheckResult,
  type Checks,
  type HostAnswer,
  judgeAnswers,
  type ServerAnswer,
  worstOf,
} from '../src/cluster/checks.js'
import type { Cluster, ClusterNode } from '../src/cluster/model.js'
import { isWitness } from '../src/cluster/topology.js'
import type { Host, HostPool } from '../src/host/host.js'
import { checkSudo, diskFree, readSystemFacts } from '../src/host/system.js'
import { OperationError } from '../src/operations/errors.js'
import { askEdges } from '../src/postgres/edges.js'
import { inspectServer } from '../src/postgres/inspect.js'
import { debianLayout } from '../src/postgres/layout.js'
import { nodeConninfo } from '../src/repmgr/conf.js'

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
        conninfo: nodeConninfo({ host: peer.host, port: cluster.port }, 4),
      }))
    const [system, disk, state, edges] = await Promise.all([
      readSystemFacts(host, { signal }),
      diskFree(host, layout.dataDirectory, { signal }),
      inspectServer(host, layout, cluster.port, { signal }),
      askEdges(host, layout, cluster.port, peers, { signal }),
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
      ...edges,
      server: server && { ...server, archiveFailing: server.archiveFailing ?? undefined },
    }
  } catch (error) {
    signal.throwIfAborted()
    if (!(error instanceof OperationError)) throw error
    return { node: node.name, failure: { detail: error.message, remedy: error.remedy } }
  }
}
