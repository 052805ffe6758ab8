/** Asks one server everything that the status needs, in one statement. */
import type { Observation } from '../cluster/status.js'
import { type Credentials, type Query, type ServerAddress, withServer } from './connect.js'

/**
 * The timeline of a standby is the one that it receives on; the control file names the last checkpoint's, which is older
 * just after a switch. Ages are computed on the server, so that its clock is only compared with itself.
 */
const OBSERVE = `
SELECT pg_is_in_recovery() AS "inRecovery",
       (SELECT system_identifier::text FROM pg_control_system()) AS "systemIdentifier",
       split_part(current_setting('server_version'), ' ', 1) AS "serverVersion",
       COALESCE((SELECT received_tli FROM pg_stat_wal_receiver),
                CASE WHEN pg_is_in_recovery() THEN (SELECT timeline_id FROM pg_control_checkpoint())
                     ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END) AS "timeline",
       CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_lsn()::text END AS "currentLsn",
       pg_last_wal_receive_lsn()::text AS "receivedLsn",
       pg_last_wal_replay_lsn()::text AS "replayedLsn",
       (EXTRACT(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) * 1000)::bigint::text AS "replayAgeMs",
       (SELECT json_build_object('status', status, 'upstreamHost', sender_host, 'slotName', slot_name)
          FROM pg_stat_wal_receiver) AS "receiver",
       (SELECT COALESCE(json_agg(json_build_object(
                 'applicationName', application_name, 'state', state, 'syncState', sync_state,
                 'replayLagMs', (EXTRACT(epoch FROM replay_lag) * 1000)::bigint)), '[]')
          FROM pg_stat_replication) AS "streams",
       (SELECT COALESCE(json_agg(json_build_object(
                 'name', slot_name, 'active', active,
                 'retainedBytes', pg_wal_lsn_diff(
                    CASE WHEN pg_is_in_recovery() THEN COALESCE(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
                         ELSE pg_current_wal_lsn() END, restart_lsn)::bigint,
                 'walStatus', wal_status, 'safeWalBytes', safe_wal_size)), '[]')
          FROM pg_replication_slots) AS "slots",
       CASE WHEN NOT pg_is_in_recovery() THEN
         (SELECT json_build_object(
                   'mode', current_setting('archive_mode'),
                   'lastArchivedWal', last_archived_wal, 'lastArchivedAt', last_archived_time,
                   'lastFailedWal', last_failed_wal, 'lastFailedAt', last_failed_time, 'failedCount', failed_count,
                   'waitingSegments', (SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'),
                   'reason', CASE WHEN $1::text IS NOT NULL THEN pg_read_file($1 || '/last-failure', 0, 500, true) END,
                   'missing', (SELECT json_object_agg(node, (SELECT count(*) FROM pg_ls_dir($1 || '/pending/' || node, true, false)))
                                 FROM pg_ls_dir($1 || '/pending', true, false) AS node),
                   'aloneSegments', (SELECT count(*) FROM pg_ls_dir($1 || '/alone', true, false)))
            FROM pg_stat_archiver) END AS "archive",
       (SELECT setting::int FROM pg_settings WHERE name = 'recovery_min_apply_delay' AND pg_is_in_recovery())
         AS "applyDelayMs",
       to_regprocedure('repmgr.repmgrd_is_paused()') IS NOT NULL AS "hasRepmgr",
       pg_postmaster_start_time() AS "startedAt"`

/** Apart, since a statement with functions that are not there is refused as a whole. */
const REPMGRD = `SELECT COALESCE(repmgr.repmgrd_is_running(), false) AS running, COALESCE(repmgr.repmgrd_is_paused(), false) AS paused`

/** `archiveState`: where our archive script keeps what it has to say, on the server's own host. */
export const observeServer = (
  address: ServerAddress,
  credentials: Credentials,
  options: { timeoutMs: number; signal?: AbortSignal; archiveState?: string },
): Promise<Observation> => withServer(address, credentials, options, query => observe(query, options.archiveState))

export async function observe(query: Query, archiveState?: string): Promise<Observation> {
  const [row] = await query(OBSERVE, [archiveState ?? null])
  const [repmgrd] = row?.hasRepmgr === true ? await query(REPMGRD) : []
  if (!row) throw new Error('the server answered no row')
  const {
    archive,
    receiver,
    currentLsn,
    receivedLsn,
    replayedLsn,
    replayAgeMs,
    applyDelayMs,
    startedAt,
    hasRepmgr: _,
    ...rest
  } = row
  return {
    ...(rest as Pick<
      Observation,
      'inRecovery' | 'systemIdentifier' | 'serverVersion' | 'timeline' | 'streams' | 'slots'
    >),
    ...(typeof currentLsn === 'string' ? { currentLsn } : {}),
    ...(typeof receivedLsn === 'string' ? { receivedLsn } : {}),
    ...(typeof replayedLsn === 'string' ? { replayedLsn } : {}),
    // A clock that was stepped back makes an age negative; nothing is younger than now.
    replayAgeMs: replayAgeMs === null ? null : Math.max(0, Number(replayAgeMs)),
    ...(receiver ? { receiver: receiver as NonNullable<Observation['receiver']> } : {}),
    ...(archive ? { archive: archive as NonNullable<Observation['archive']> } : {}),
    ...(typeof applyDelayMs === 'number' ? { applyDelayMs } : {}),
    ...(repmgrd ? { repmgrd: { running: repmgrd.running === true, paused: repmgrd.paused === true } } : {}),
    startedAt: (startedAt as Date).toISOString(),
  }
}
