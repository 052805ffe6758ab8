/** Asks what `status`, read just before, does not tell, for the question who would take over. Changes nothing. */
import type { FenceHook } from '../src/cluster/fence-hook.js'
import type { Cluster, ClusterNode } from '../src/cluster/model.js'
import {
  describeReadiness,
  type Facts,
  type PrimaryFacts,
  type Readiness,
  type StandbyFacts,
} from '../src/cluster/readiness.js'
import type { ClusterStatus } from '../src/cluster/status.js'
import { dataNodes } from '../src/cluster/topology.js'
import type { HostPool } from '../src/host/host.js'
import { OperationError } from '../src/operations/errors.js'
import type { Query } from '../src/postgres/connect.js'
import { SHARED_SETTINGS } from '../src/postgres/shared-settings.js'
import { trustOf } from '../src/store/authority.js'
import { repmgrPassword } from '../src/store/secrets.js'
import type { Store } from '../src/store/store.js'
import { askAs } from './bench.js'

/** Each node by itself: one that hangs costs the answer nothing but its own row. */
const ASK_MS = 3000
const SSH_MS = 10_000

export async function reportReadiness(
  { store, pool, fenceHook }: { store: Store; pool: HostPool; fenceHook?: FenceHook | undefined },
  cluster: Cluster,
  status: ClusterStatus,
  signal: AbortSignal,
): Promise<Readiness> {
  const password = (await store.secrets.get(repmgrPassword(cluster.name))) ?? ''
  const ask = askAs(cluster, password, await trustOf(store.secrets, cluster))
  const answer = async <T>(node: ClusterNode, read: (query: Query) => Promise<T>): Promise<T | undefined> => {
    try {
      return await ask(node, { timeoutMs: ASK_MS, signal }, read)
    } catch (error) {
      signal.throwIfAborted()
      // What went wrong is in the status already; here it is a row that could not be asked.
      if (error instanceof TypeError) throw error
      return undefined
    }
  }
  const rowOf = (node: ClusterNode) => status.nodes.find(({ name }) => name === node.name)
  const primary = cluster.nodes.find(({ name }) => name === status.primary)
  const answering = dataNodes(cluster.nodes).filter(node => rowOf(node)?.role === 'standby')
  const [ofPrimary, fence, vote, ...ofStandbys] = await Promise.all([
    primary ? answer(primary, readPrimary) : undefined,
    primary ? tryFence(pool, primary, signal) : ({ reachable: true } as const),
    store.voter.vote(),
    ...answering.map(async node => [node.name, await answer(node, readStandby)] as const),
  ])
  const standbys = new Map(ofStandbys.flatMap(([name, facts]) => (facts === undefined ? [] : [[name, facts] as const])))
  return describeReadiness(cluster, status, {
    primary: ofPrimary,
    standbys,
    fence,
    hasFenceHook: fenceHook !== undefined,
    // What it still waits for will have passed by the time that it is needed.
    store: vote.may || vote.waitMs !== undefined ? { may: true } : { may: false, reason: vote.reason },
  })
}

async function tryFence(pool: HostPool, node: ClusterNode, signal: AbortSignal): Promise<Facts['fence']> {
  const host = pool.host({ host: node.host, port: node.ssh.port, user: node.ssh.user, hostKey: node.ssh.hostKey })
  try {
    await host.run({ argv: ['true'], as: 'root', timeoutMs: SSH_MS }, { signal })
    return { reachable: true }
  } catch (error) {
    signal.throwIfAborted()
    if (!(error instanceof OperationError)) throw error
    return { reachable: false, reason: error.message }
  }
}

const SETTINGS = 'SELECT name, setting::bigint::text AS setting FROM pg_settings WHERE name = ANY($1)'

async function settingsOf(query: Query): Promise<Record<string, number>> {
  const rows = await query(SETTINGS, [[...SHARED_SETTINGS]])
  return Object.fromEntries(rows.map(({ name, setting }) => [String(name), Number(setting)]))
}

async function readPrimary(query: Query): Promise<PrimaryFacts> {
  const [row] = await query(
    "SELECT current_setting('data_checksums') = 'on' OR current_setting('wal_log_hints') = 'on' AS either",
  )
  return { settings: await settingsOf(query), checksumsOrHints: row?.either === true }
}

/** Blocked: the startup process waits for a lock or a pin that a session holds. */
const STANDBY = `SELECT pg_is_wal_replay_paused() AS paused,
  (pg_stat_file('promote', true)).size IS NOT NULL AS pending,
  EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'startup'
     AND (wait_event_type = 'Lock' OR wait_event IN ('RecoveryConflictSnapshot', 'RecoveryConflictTablespace', 'BufferPin'))) AS blocked,
  current_setting('max_replication_slots')::int - (SELECT count(*)::int FROM pg_replication_slots) AS slots,
  current_setting('max_wal_senders')::int - (SELECT count(*)::int FROM pg_stat_replication) AS senders`

async function readStandby(query: Query): Promise<StandbyFacts> {
  const [row] = await query(STANDBY)
  return {
    replayPaused: row?.paused === true,
    promotionPending: row?.pending === true,
    replayBlocked: row?.blocked === true,
    slotsLeft: Number(row?.slots),
    sendersLeft: Number(row?.senders),
    settings: await settingsOf(query),
  }
}
