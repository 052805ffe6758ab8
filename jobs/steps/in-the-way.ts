/**
 * What kept an exchange of roles from being through in time, in words for whoever has to see to it. Of a session it says
 * who, since when and what it waits for, never the text of its query: there may be secrets in it.
 */
import { type Lsn, lagBytes, parseLsn } from '../../src/cluster/lsn.js'
import type { ClusterNode } from '../../src/cluster/model.js'
import type { Query } from '../../src/postgres/connect.js'
import type { ServerProcess } from '../../src/postgres/server-process.js'
import type { Obstacle } from './obstacle.js'

/** A client's session, as `pg_stat_activity` had it. */
export interface Session {
  pid: number
  user: string
  application: string
  state: string
  waitsFor: string | undefined
  /** How long its transaction had been open; undefined where it had none. */
  transactionMs: number | undefined
}

const SESSIONS = `SELECT pid, usename AS user, application_name AS application, COALESCE(state, 'unknown') AS state,
    wait_event_type || '/' || wait_event AS "waitsFor",
    (EXTRACT(epoch FROM clock_timestamp() - xact_start) * 1000)::bigint::text AS "transactionMs"
  FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
  ORDER BY xact_start LIMIT 1000`

/** Those whose transactions are the oldest come first. */
export async function readSessions(query: Query): Promise<Session[]> {
  return (await query(SESSIONS)).map(row => ({
    pid: Number(row.pid),
    user: String(row.user),
    application: String(row.application),
    state: String(row.state),
    waitsFor: typeof row.waitsFor === 'string' ? row.waitsFor : undefined,
    transactionMs: row.transactionMs === null ? undefined : Number(row.transactionMs),
  }))
}

const seconds = (ms: number) => `${(ms / 1000).toFixed(1)} s`

const who = ({ pid, user, application }: Session) => `${user} (${application || 'no application_name'}, process ${pid})`

function what({ state, waitsFor, transactionMs }: Session): string {
  return [
    state,
    ...(transactionMs === undefined ? [] : [`in a transaction that was open for ${seconds(transactionMs)}`]),
    ...(waitsFor === undefined ? [] : [`waiting for ${waitsFor}`]),
  ].join(', ')
}

/** What a server that was told to stop still has: its processes, and segments that its archive does not have. */
export interface Unstopped {
  busy: readonly ServerProcess[]
  waitingSegments: number
}

/** These stay until everything else has ended, and keep nothing from ending. */
const STAYS = /^(logger|stats collector|io worker)/

/**
 * Pure. A server ends its sessions first, then writes its last checkpoint, then waits for the archive and for those that
 * stream from it: what is named is what it was at. `sessions`: as they were right before it was told.
 */
export function keptFromStopping(
  from: string,
  { busy, waitingSegments }: Unstopped,
  sessions: readonly Session[],
  nodes: readonly ClusterNode[],
): Obstacle[] {
  const first = busy.filter(({ kind, ...rest }) => kind === 'session' || ('doing' in rest && !STAYS.test(rest.doing)))
  const writing = busy.filter(process => process.kind === 'checkpointer' && process.writing !== undefined)
  const last = busy.filter(({ kind }) => kind === 'archiver' || kind === 'walsender')
  const at = [first, writing, last, busy].find(group => group.length > 0) ?? []
  // A command that does not answer now will not answer then.
  const stuck = busy.filter(process => process.kind === 'archiver' && process.segment !== undefined)
  return [...new Set([...at, ...stuck])].map(process => asObstacle(process, from, waitingSegments, sessions, nodes))
}

function asObstacle(
  process: ServerProcess,
  from: string,
  waitingSegments: number,
  sessions: readonly Session[],
  nodes: readonly ClusterNode[],
): Obstacle {
  const { pid } = process
  switch (process.kind) {
    case 'session': {
      const seen = sessions.find(session => session.pid === pid)
      const { user, database, client } = process
      return {
        detail: seen
          ? `A session of ${who(seen)} had not ended; before the stop it was ${what(seen)}.`
          : `A session of ${user} in ${database} from ${client}, process ${pid}, had not ended.`,
        remedy: `Find out why process ${pid} of ${from} did not hear of the stop, and see to it that such sessions end before.`,
      }
    }
    case 'archiver':
      return {
        detail: `The archiver (process ${pid}) had not ended${process.segment === undefined ? '' : `, its command has not answered for segment ${process.segment}`}; segments that wait for the archive: ${waitingSegments}.`,
        remedy: 'Look at "archive" in the status of the cluster, and mend it, or give its command a time limit.',
      }
    case 'walsender': {
      const { address, sentLsn } = process
      const receiver = nodes.find(({ host }) => host === address)?.name ?? address
      return {
        detail: `The walsender to ${receiver} (process ${pid}) waits until ${receiver} confirms what it was sent${sentLsn === undefined ? '' : `, up to ${sentLsn}`}.`,
        remedy: `Look why ${receiver} does not take its WAL (its log, its network), or stop its server first.`,
      }
    }
    case 'checkpointer':
      return {
        detail: `The checkpointer (process ${pid}) had not ended${process.writing === undefined ? '' : `, it is writing a ${process.writing}`}.`,
        remedy: `Look at the disk of ${from} and at what else writes there, or ask with a larger deadlineMs.`,
      }
    case 'worker':
      return {
        detail: `A worker of the server (${process.doing}, process ${pid}) had not ended.`,
        remedy: `Look at what it does, and at the log of ${from} (/var/log/postgresql).`,
      }
    case 'postmaster':
      return {
        detail: `The server itself (process ${pid}) had not ended.`,
        remedy: `Look at the log of ${from} (/var/log/postgresql).`,
      }
  }
}

/** A standby that was to replay the last record of the old primary. */
export interface Replay {
  replayed: Lsn
  received: Lsn | undefined
  paused: boolean
  /** What its startup process waits for. */
  waitsFor: string | undefined
  oldest: Session | undefined
}

export async function readReplay(query: Query): Promise<Replay> {
  const [row] = await query(`SELECT COALESCE(pg_last_wal_replay_lsn(), '0/0')::text AS replayed,
    pg_last_wal_receive_lsn()::text AS received, pg_is_in_recovery() AND pg_is_wal_replay_paused() AS paused,
    (SELECT wait_event_type || '/' || wait_event FROM pg_stat_activity WHERE backend_type = 'startup') AS "waitsFor"`)
  const [oldest] = (await readSessions(query)).filter(({ transactionMs }) => transactionMs !== undefined)
  return {
    replayed: parseLsn(String(row?.replayed)),
    received: typeof row?.received === 'string' ? parseLsn(row.received) : undefined,
    paused: row?.paused === true,
    waitsFor: typeof row?.waitsFor === 'string' ? row.waitsFor : undefined,
    oldest,
  }
}

/** A query on the standby holds replay up by a lock, or by rows that it can still see. */
const isConflict = (waitsFor: string | undefined) =>
  waitsFor !== undefined && /RecoveryConflict|BufferPin|^Lock\//.test(waitsFor)

/** Pure. `checkpoint`: where the last record of the old primary begins. */
export function keptFromReplaying(to: string, replay: Replay, checkpoint: Lsn): Obstacle[] {
  const { replayed, received, paused, waitsFor, oldest } = replay
  if (paused) return [{ detail: `Replay is paused on ${to}.`, remedy: `Resume it: SELECT pg_wal_replay_resume().` }]
  if (received !== undefined && lagBytes(checkpoint, received) > 0) {
    return [
      {
        detail: `${to} has received WAL up to ${received} only; the last checkpoint is at ${checkpoint}.`,
        remedy: `Look why ${to} does not get its WAL: its log, its network.`,
      },
    ]
  }
  const at = `It is at ${replayed}, the last checkpoint at ${checkpoint}`
  if (!isConflict(waitsFor)) {
    return [
      {
        detail: `${at}${waitsFor === undefined ? '' : `; its replay waits for ${waitsFor}`}.`,
        remedy: `Look at the load and the disk of ${to}, or ask with a larger deadlineMs.`,
      },
    ]
  }
  return [
    {
      detail: `${at}; its replay is held up by a query there (${waitsFor}).${oldest ? ` The oldest transaction there is of ${who(oldest)}: ${what(oldest)}.` : ''}`,
      remedy: oldest
        ? `Wait for it, or end it on ${to}: SELECT pg_terminate_backend(${oldest.pid}).`
        : `Look at pg_stat_activity on ${to}.`,
    },
  ]
}
