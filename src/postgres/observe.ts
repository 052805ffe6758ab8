/** Asks one server everything that the status needs of PostgreSQL itself, in one statement. For 13 to 18. */
import type { Observation } from '../cluster/observation.js'
import type { Query } from './connect.js'

/**
 * The timeline of a standby is the newest that it receives on, has WAL of, or has had a checkpoint on: the control file alone
 * names the last checkpoint's, which is older just after a switch, and without a receiver nothing else of the server tells.
 * Ages are computed on the server, so that its clock is only compared with itself. Columns that only some versions have are
 * read from the row as JSON, where one that is not there is NULL.
 */
const OBSERVE = `
WITH here AS MATERIALIZED (
  SELECT CASE WHEN pg_is_in_recovery()
    THEN GREATEST((SELECT received_tli FROM pg_stat_wal_receiver),
                  (SELECT max(('x' || substr(name, 1, 8))::bit(32)::int) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'),
                  (SELECT timeline_id FROM pg_control_checkpoint()))
    ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END AS timeline)
SELECT pg_is_in_recovery() AS "inRecovery",
       (SELECT system_identifier::text FROM pg_control_system()) AS "systemIdentifier",
       split_part(current_setting('server_version'), ' ', 1) AS "serverVersion",
       here.timeline AS "timeline",
       CASE WHEN here.timeline > 1 THEN
         pg_read_file('pg_wal/' || lpad(upper(to_hex(here.timeline)), 8, '0') || '.history', 0, 1000000, true) END AS "history",
       CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_lsn()::text END AS "currentLsn",
       pg_last_wal_receive_lsn()::text AS "receivedLsn",
       pg_last_wal_replay_lsn()::text AS "replayedLsn",
       (EXTRACT(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) * 1000)::bigint::text AS "replayAgeMs",
       (SELECT json_build_object(
                 'status', status, 'upstreamHost', sender_host, 'slotName', slot_name,
                 'lastMessageAgeMs', GREATEST(0, EXTRACT(epoch FROM clock_timestamp() - last_msg_receipt_time) * 1000)::bigint)
          FROM pg_stat_wal_receiver) AS "receiver",
       (SELECT COALESCE(json_agg(json_build_object(
                 'applicationName', application_name, 'state', state, 'syncState', sync_state,
                 'replayLagMs', (EXTRACT(epoch FROM replay_lag) * 1000)::bigint)), '[]')
          FROM pg_stat_replication) AS "streams",
       (SELECT COALESCE(json_agg(json_build_object(
                 'name', slot_name, 'kind', slot_type, 'temporary', temporary, 'database', database, 'active', active,
                 'usedBy', (SELECT application_name FROM pg_stat_replication WHERE pid = active_pid),
                 'retainedBytes', pg_wal_lsn_diff(
                    CASE WHEN pg_is_in_recovery() THEN COALESCE(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
                         ELSE pg_current_wal_lsn() END, restart_lsn)::bigint,
                 'walStatus', wal_status, 'safeWalBytes', safe_wal_size)), '[]')
          FROM pg_replication_slots) AS "slots",
       CASE WHEN pg_is_in_recovery() THEN
         (SELECT json_build_object(
                   'tablespace', COALESCE(sum(confl_tablespace), 0), 'lock', COALESCE(sum(confl_lock), 0),
                   'snapshot', COALESCE(sum(confl_snapshot), 0), 'bufferPin', COALESCE(sum(confl_bufferpin), 0),
                   'deadlock', COALESCE(sum(confl_deadlock), 0),
                   'logicalSlot', COALESCE(sum((to_jsonb(database) ->> 'confl_active_logicalslot')::bigint), 0))
            FROM pg_stat_database_conflicts AS database) END AS "conflicts",
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
       pg_postmaster_start_time() AS "startedAt"
  FROM here`

/** Apart, since a statement with functions that are not there is refused as a whole. */
const REPMGRD = `SELECT COALESCE(repmgr.repmgrd_is_running(), false) AS running, COALESCE(repmgr.repmgrd_is_paused(), false) AS paused`

/** `archiveState`: where our archive script keeps what it has to say, on the server's own host. */
export async function observe(query: Query, archiveState?: string): Promise<Observation> {
  const [row] = await query(OBSERVE, [archiveState ?? null])
  const [repmgrd] = row?.hasRepmgr === true ? await query(REPMGRD) : []
  if (!row) throw new Error('the server answered no row')
  const { archive, receiver, conflicts, history, currentLsn, receivedLsn, replayedLsn, ...others } = row
  const { replayAgeMs, applyDelayMs, startedAt, hasRepmgr: _, ...rest } = others
  return {
    ...(rest as Pick<
      Observation,
      'inRecovery' | 'systemIdentifier' | 'serverVersion' | 'timeline' | 'streams' | 'slots'
    >),
    ...(typeof history === 'string' ? { history } : {}),
    ...(typeof currentLsn === 'string' ? { currentLsn } : {}),
    ...(typeof receivedLsn === 'string' ? { receivedLsn } : {}),
    ...(typeof replayedLsn === 'string' ? { replayedLsn } : {}),
    // A clock that was stepped back makes an age negative; nothing is younger than now.
    replayAgeMs: replayAgeMs === null ? null : Math.max(0, Number(replayAgeMs)),
    ...(receiver ? { receiver: receiver as NonNullable<Observation['receiver']> } : {}),
    ...(conflicts ? { conflicts: conflicts as NonNullable<Observation['conflicts']> } : {}),
    ...(archive ? { archive: archive as NonNullable<Observation['archive']> } : {}),
    ...(typeof applyDelayMs === 'number' ? { applyDelayMs } : {}),
    ...(repmgrd ? { repmgrd: { running: repmgrd.running === true, paused: repmgrd.paused === true } } : {}),
    startedAt: (startedAt as Date).toISOString(),
  }
}
