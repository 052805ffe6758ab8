/**
 * Freezing a standby: nothing reaches it any more, from any primary or archive, so that what it has is what it has. And the
 * way back.
 *
 * An emptied `primary_conninfo` does not stop a receiver while replay is held back: it goes on receiving, and confirming. A
 * `wal_receiver_timeout` of one millisecond ends a quiet stream; what is left is ended from outside, by its process.
 */
import { escapeLiteral } from 'pg'
import { type Lsn, laterLsn, parseLsn } from '../cluster/lsn.js'
import type { Query } from './connect.js'
import type { Vote } from './vote.js'

/** As its postgresql.auto.conf has them; null: not there. */
export type Before = Record<string, string | null>

const FROZEN = { primary_conninfo: '', restore_command: '', wal_receiver_timeout: '1ms' }

/** What a standby says of itself. */
export interface Standing {
  inRecovery: boolean
  systemIdentifier: string
  version: number
  timeline: number
  lsn: Lsn | undefined
  replayed: Lsn | undefined
  receiver: number | undefined
  startup: { pid: number; waitsFor: string } | undefined
  paused: boolean
  promotionPending: boolean
  /** `primary_conninfo`, as it runs with it. May hold a password. */
  conninfo: string
}

/**
 * The timeline: of the stream, or the newest that there is a file of. The control file alone is behind after a freeze.
 */
const STANDING = `SELECT pg_is_in_recovery() AS recovery,
  (SELECT system_identifier::text FROM pg_control_system()) AS identifier,
  current_setting('server_version_num')::int AS version,
  GREATEST((SELECT received_tli FROM pg_stat_wal_receiver), (SELECT timeline_id FROM pg_control_checkpoint()),
    (SELECT max(('x' || left(name, 8))::bit(32)::int) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$')) AS timeline,
  pg_last_wal_receive_lsn()::text AS received, pg_last_wal_replay_lsn()::text AS replayed,
  (SELECT pid FROM pg_stat_activity WHERE backend_type = 'walreceiver') AS receiver,
  (SELECT json_build_object('pid', pid, 'waitsFor', concat_ws(':', wait_event_type, wait_event))
     FROM pg_stat_activity WHERE backend_type = 'startup') AS startup,
  CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() ELSE false END AS paused,
  (pg_stat_file('promote', true)).size IS NOT NULL AS pending,
  current_setting('primary_conninfo') AS conninfo`

export async function readStanding(query: Query): Promise<Standing> {
  const [row] = await query(STANDING)
  if (!row) throw new Error('the server answered no row')
  const lsn = (text: unknown) => (typeof text === 'string' ? parseLsn(text) : undefined)
  const replayed = lsn(row.replayed)
  return {
    inRecovery: row.recovery === true,
    systemIdentifier: String(row.identifier),
    version: Number(row.version),
    timeline: Number(row.timeline),
    lsn: laterLsn(lsn(row.received), replayed),
    replayed,
    receiver: typeof row.receiver === 'number' ? row.receiver : undefined,
    startup: (row.startup ?? undefined) as Standing['startup'],
    paused: row.paused === true,
    promotionPending: row.pending === true,
    conninfo: String(row.conninfo ?? ''),
  }
}

/** Read before it is frozen for the first time, and kept in its trace. */
export async function readBefore(query: Query): Promise<Before> {
  const rows = await query(
    "SELECT DISTINCT ON (name) name, setting FROM pg_file_settings WHERE sourcefile LIKE '%/postgresql.auto.conf' AND name = ANY($1) ORDER BY name, seqno DESC",
    [[...Object.keys(FROZEN), 'primary_slot_name']],
  )
  const found = new Map(rows.map(({ name, setting }) => [String(name), String(setting)]))
  return Object.fromEntries([...Object.keys(FROZEN), 'primary_slot_name'].map(name => [name, found.get(name) ?? null]))
}

/** PostgreSQL 13 takes another restore_command only with a restart. */
const reloadable = (name: string, version: number) => name !== 'restore_command' || version >= 140_000

export async function freeze(vote: Vote, version: number): Promise<void> {
  for (const [name, value] of Object.entries(FROZEN)) {
    if (reloadable(name, version)) await vote.outside(`ALTER SYSTEM SET ${name} = ${escapeLiteral(value)}`)
  }
  await vote.query('SELECT pg_reload_conf()')
}

/** Puts everything back as it was, but for what `instead` says. */
export async function thaw(
  vote: Pick<Vote, 'query' | 'outside'>,
  before: Before,
  version: number,
  instead: Before = {},
): Promise<void> {
  for (const [name, value] of Object.entries({ ...before, ...instead })) {
    if (!reloadable(name, version)) continue
    await vote.outside(
      value === null ? `ALTER SYSTEM RESET ${name}` : `ALTER SYSTEM SET ${name} = ${escapeLiteral(value)}`,
    )
  }
  await vote.query('SELECT pg_reload_conf()')
}

/** What holds replay back: sessions of clients, which a new primary has no use for. Ends them. Returns how many. */
export async function endBlockers(query: Query): Promise<number> {
  const rows = await query(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND application_name <> 'understudy-vote'
      AND (backend_xmin IS NOT NULL
        OR pid = ANY(pg_blocking_pids((SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup'))))`)
  return rows.length
}
