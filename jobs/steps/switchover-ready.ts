/** What must be right before the primary is stopped: everything that would make a switchover slow, or fail half-way. */
import { archiveObjection } from '../../src/cluster/archive.js'
import { lagBytes, parseLsn } from '../../src/cluster/lsn.js'
import type { ClusterNode } from '../../src/cluster/model.js'
import { dataNodes } from '../../src/cluster/topology.js'
import { act } from '../../src/host/actions.js'
import { diskFree } from '../../src/host/system.js'
import { OperationError } from '../../src/operations/errors.js'
import type { Step, StepContext } from '../../src/operations/step.js'
import type { Query } from '../../src/postgres/connect.js'
import { askEdges } from '../../src/postgres/edges.js'
import { SHARED_SETTINGS } from '../../src/postgres/shared-settings.js'
import { nodeConninfo } from '../../src/repmgr/conf.js'
import { addressOf, type Bench } from '../bench.js'
import { askServer } from './local-sql.js'
import type { Obstacle } from './obstacle.js'

export interface SwitchoverLimits {
  maxTransactionAgeMs: number
  maxLagBytes: number
  loseLogicalSlots: boolean
}

/** Thrown when the roles had better not be exchanged now. Everything that stands in the way is told at once. */
export class NotReady extends OperationError {
  constructor(obstacles: readonly Obstacle[]) {
    super(obstacles.map(({ detail }) => detail).join(' '), {
      code: 'switchover-not-ready',
      outcome: 'not_started',
      remedy: [...new Set(obstacles.map(({ remedy }) => remedy))].join(' '),
    })
  }
}

/** More segments than these that wait for the archive would be waited for at the stop. */
const MAX_WAITING_SEGMENTS = 8
const MIN_FREE_BYTES = 256 * 1024 * 1024

export interface PrimaryFacts {
  lsn: string
  oldest: { pid: number; user: string; application: string; ageMs: number } | undefined
  backups: number
  waitingSegments: number
  archiveFailing: boolean
  /** Names of logical slots: they do not go over to another server. */
  logicalSlots: string[]
  settings: Record<string, number>
  freeBytes: number
  rewind: RewindFacts
}

/** What a rewind needs of a server. */
export interface RewindFacts {
  /** Data checksums or `wal_log_hints`: its own WAL then names every page that it changed. */
  hints: boolean
  fullPageWrites: boolean
}

export interface SuccessorFacts {
  replayed: string | null
  paused: boolean
  receiver: string | null
  slotsLeft: number
  sendersLeft: number
  settings: Record<string, number>
  freeBytes: number
  rewind: RewindFacts
  /** `synchronous_standby_names`, as the successor has it for its own standbys. */
  synchronousNames: string
  /** How long its restore_command takes to say that a file is not there; undefined where it has none. */
  restoreMs: number | undefined
}

/**
 * Whether the commits of a primary with these standbys would be confirmed: `FIRST k (…)`, `ANY k (…)`, or names alone.
 *
 * @see https://www.postgresql.org/docs/current/runtime-config-replication.html#GUC-SYNCHRONOUS-STANDBY-NAMES
 */
export function canConfirm(synchronousNames: string, standbys: readonly string[]): boolean {
  const [, , count = '1', list = synchronousNames] =
    /^\s*(FIRST|ANY)?\s*(\d+)\s*\((.*)\)\s*$/is.exec(synchronousNames) ?? []
  const names = list.split(',').map(name =>
    name
      .trim()
      .replace(/^"(.*)"$/, '$1')
      .toLowerCase(),
  )
  if (synchronousNames.trim() === '') return true
  const able = names.includes('*') ? standbys : standbys.filter(name => names.includes(name.toLowerCase()))
  return able.length >= Number(count)
}

/** A promotion asks for several files that are not there, one after the other. */
const MAX_RESTORE_MS = 1000

/** Pure: what was read of both, to what stands in the way. `standbys`: those that are to stream from the successor. */
export function obstacles(
  from: string,
  to: string,
  primary: PrimaryFacts,
  successor: SuccessorFacts,
  standbys: readonly string[],
  limits: SwitchoverLimits,
): Obstacle[] {
  const found: Obstacle[] = []
  const add = (detail: string, remedy: string) => found.push({ detail, remedy })
  const { oldest } = primary
  if (oldest && oldest.ageMs > limits.maxTransactionAgeMs) {
    add(
      `A transaction of ${oldest.user} (${oldest.application || 'no application_name'}, process ${oldest.pid}) on ${from} has been open for ${Math.round(oldest.ageMs / 1000)} s; the switchover would cut it off.`,
      `Wait for it, or end it on ${from} (SELECT pg_terminate_backend(${oldest.pid})), or ask with a larger maxTransactionAgeMs.`,
    )
  }
  if (primary.backups > 0) {
    add(
      `A base backup of ${from} is running; the switchover would cut it off.`,
      'Wait until it has ended (pg_stat_progress_basebackup).',
    )
  }
  if (primary.waitingSegments > MAX_WAITING_SEGMENTS || primary.archiveFailing) {
    add(
      `${primary.waitingSegments} WAL segments of ${from} wait for the archive${primary.archiveFailing ? ', and the last try failed' : ''}; the stop would wait for them.`,
      'Look at "archive" in the status of the cluster, and mend it.',
    )
  }
  if (successor.paused) add(`Replay is paused on ${to}.`, `Resume it on ${to}: SELECT pg_wal_replay_resume().`)
  if (successor.receiver !== 'streaming') {
    add(
      `${to} does not stream (its receiver is ${successor.receiver ?? 'not running'}).`,
      `Look at the log of ${to}; bring it back as a standby first.`,
    )
  }
  const lag = successor.replayed === null ? undefined : lagBytes(parseLsn(primary.lsn), parseLsn(successor.replayed))
  if (lag === undefined || lag > limits.maxLagBytes) {
    add(
      lag === undefined ? `${to} has replayed nothing yet.` : `${to} is ${lag} bytes of WAL behind ${from}.`,
      `Wait until it has caught up, or ask with a larger maxLagBytes: writes are refused for as long as it takes.`,
    )
  }
  if (successor.slotsLeft < standbys.length || successor.sendersLeft < standbys.length + 1) {
    add(
      `${to} has room for ${successor.slotsLeft} more slots and ${successor.sendersLeft} more streams, and would need ${standbys.length}.`,
      `Raise max_replication_slots and max_wal_senders (PATCH …/settings).`,
    )
  }
  for (const name of SHARED_SETTINGS) {
    const [there, here] = [primary.settings[name], successor.settings[name]]
    if (there === undefined || here === undefined || here >= there) continue
    add(
      `${name} is ${here} on ${to} and ${there} on ${from}: ${to} would not be able to take over.`,
      `Restart ${to} with at least as much (PATCH …/settings).`,
    )
  }
  if (primary.logicalSlots.length > 0 && !limits.loseLogicalSlots) {
    add(
      `${from} has logical replication slots, which do not go over to ${to}: ${primary.logicalSlots.join(', ')}.`,
      'Their subscribers would miss changes until they are synchronized anew. Drop the slots, or ask with loseLogicalSlots.',
    )
  }
  if (!canConfirm(successor.synchronousNames, standbys)) {
    add(
      `synchronous_standby_names is "${successor.synchronousNames}" on ${to}, and its standbys would be ${standbys.join(', ') || 'none'}: no commit would be confirmed.`,
      'Change it so that it fits whichever node is the primary, with "*" or with all names (PATCH …/settings).',
    )
  }
  if (successor.restoreMs !== undefined && successor.restoreMs > MAX_RESTORE_MS) {
    add(
      `The restore_command of ${to} takes ${successor.restoreMs} ms to say that a file is not there; a promotion asks several times, and writes would be refused for as long.`,
      'Give the command a time limit of its own, or mend the archive.',
    )
  }
  for (const [name, { freeBytes }] of [[from, primary] as const, [to, successor] as const]) {
    if (freeBytes < MIN_FREE_BYTES)
      add(`${name} has only ${Math.floor(freeBytes / 1_048_576)} MiB of disk free.`, `Free space on ${name}.`)
  }
  return found
}

/**
 * Pure: what is told, and no reason not to begin. A switchover needs no rewind; it is what comes after a failover from the
 * new primary that would.
 */
export function warnings(from: string, to: string, primary: PrimaryFacts, successor: SuccessorFacts): string[] {
  return [[from, primary.rewind] as const, [to, successor.rewind] as const].flatMap(([name, rewind]) => [
    ...(rewind.hints
      ? []
      : [
          `${name} has neither data checksums nor wal_log_hints: after a failover from it, it could not be rewound and would have to be cloned.`,
        ]),
    ...(rewind.fullPageWrites
      ? []
      : [
          `full_page_writes is off on ${name}: no other node could be rewound to what it has, nor cloned from it safely.`,
        ]),
  ])
}

export function readyForSwitchover(bench: Bench, from: ClusterNode, to: ClusterNode, limits: SwitchoverLimits): Step {
  const others = dataNodes(bench.cluster.nodes).filter(node => node !== to && !bench.absent.has(node.name))
  return {
    id: 'cluster/ready',
    kind: 'verify',
    title: `see whether ${from.name} and ${to.name} can exchange their roles now`,
    actions: [
      act(
        'look at transactions, backups, the archive, lag, settings, slots, disk, and whether each standby could log in to the new primary',
        async context => {
          const { signal, note } = context
          const [old, next] = await Promise.all([bench.inspect(from, signal), bench.inspect(to, signal)])
          if (old.running && old.inRecovery === undefined) {
            throw new NotReady([
              {
                detail: `${from.name} runs, and does not say whether it accepts writes.`,
                remedy: `Look whether it starts or is overloaded (its log is in /var/log/postgresql on ${from.name}).`,
              },
            ])
          }
          if (next.inRecovery === false || old.inRecovery !== false) {
            note('the exchange has begun already')
            return
          }
          const [primary, successor, refused] = await Promise.all([
            readPrimary(bench, from, signal),
            readSuccessor(bench, to, signal),
            Promise.all(others.map(node => loginOf(bench, node, to, signal))),
          ])
          const found = [
            ...obstacles(
              from.name,
              to.name,
              primary,
              successor,
              others.map(({ name }) => name),
              limits,
            ),
            ...refused.flat(),
          ]
          if (found.length > 0) throw new NotReady(found)
          const written = await checkpointBoth(bench, from, to, context)
          note([written, ...warnings(from.name, to.name, primary, successor)].join('; '))
        },
      ),
      act('write a checkpoint on both, so that there is little left for the one at the stop', async () => undefined),
    ],
  }
}

/** A checkpoint of a large, busy server takes minutes; it goes on meanwhile. */
const CHECKPOINT_MS = 1_800_000

async function checkpointBoth(bench: Bench, from: ClusterNode, to: ClusterNode, { signal }: StepContext) {
  const begun = performance.now()
  for (const node of [from, to])
    await bench.ask(node, { signal, timeoutMs: CHECKPOINT_MS }, query => query('CHECKPOINT'))
  return `nothing stands in the way; checkpoints written in ${Math.round(performance.now() - begun)} ms`
}

const SETTINGS = `SELECT name, setting::bigint::text AS setting FROM pg_settings WHERE name = ANY($1)`

/** Of the data directory and of its WAL, whichever has less. */
async function freeOn(bench: Bench, node: ClusterNode, signal: AbortSignal): Promise<number> {
  const { dataDirectory } = bench.layout
  const free = await Promise.all(
    [dataDirectory, `${dataDirectory}/pg_wal`].map(path => diskFree(bench.host(node), path, { signal })),
  )
  return Math.min(...free.map(({ availableBytes }) => availableBytes))
}

const REWIND = `SELECT current_setting('data_checksums') = 'on' OR current_setting('wal_log_hints') = 'on' AS hints,
  current_setting('full_page_writes') = 'on' AS "fullPageWrites"`

async function readRewind(query: Query): Promise<RewindFacts> {
  const [row] = await query(REWIND)
  return { hints: row?.hints === true, fullPageWrites: row?.fullPageWrites === true }
}

/** What waits for an archive that keeps nothing is no loss, and no wait: at its end a server tries three times, then leaves it. */
async function readPrimary(bench: Bench, node: ClusterNode, signal: AbortSignal): Promise<PrimaryFacts> {
  const archives = archiveObjection(bench.cluster.archive) === undefined
  const freeBytes = await freeOn(bench, node, signal)
  return bench.ask(node, { signal }, async query => {
    const [facts] = await query(`SELECT pg_current_wal_lsn()::text AS lsn,
      (SELECT count(*)::int FROM pg_stat_progress_basebackup) AS backups,
      (SELECT count(*)::int FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready') AS waiting,
      (SELECT COALESCE(last_failed_time > COALESCE(last_archived_time, '-infinity'), false) FROM pg_stat_archiver) AS failing`)
    const logical = await query(
      "SELECT slot_name AS name FROM pg_replication_slots WHERE slot_type = 'logical' AND NOT temporary ORDER BY 1",
    )
    const [oldest] = await query(`SELECT pid, usename AS user, application_name AS application,
        (EXTRACT(epoch FROM clock_timestamp() - xact_start) * 1000)::bigint::text AS "ageMs"
      FROM pg_stat_activity
      WHERE backend_type = 'client backend' AND xact_start IS NOT NULL AND pid <> pg_backend_pid()
      ORDER BY xact_start LIMIT 1`)
    return {
      lsn: String(facts?.lsn),
      oldest: oldest && {
        pid: Number(oldest.pid),
        user: String(oldest.user),
        application: String(oldest.application),
        ageMs: Number(oldest.ageMs),
      },
      backups: Number(facts?.backups),
      waitingSegments: archives ? Number(facts?.waiting) : 0,
      archiveFailing: archives && facts?.failing === true,
      logicalSlots: logical.map(({ name }) => String(name)),
      settings: settingsOf(await query(SETTINGS, [SHARED_SETTINGS])),
      freeBytes,
      rewind: await readRewind(query),
    }
  })
}

async function readSuccessor(bench: Bench, node: ClusterNode, signal: AbortSignal): Promise<SuccessorFacts> {
  const freeBytes = await freeOn(bench, node, signal)
  const restoreMs = await timeRestore(bench, node, signal)
  return bench.ask(node, { signal }, async query => {
    const [facts] = await query(
      `SELECT current_setting('synchronous_standby_names') AS names, pg_last_wal_replay_lsn()::text AS replayed, pg_is_wal_replay_paused() AS paused,
      (SELECT status FROM pg_stat_wal_receiver) AS receiver,
      current_setting('max_replication_slots')::int - (SELECT count(*)::int FROM pg_replication_slots) AS slots,
      current_setting('max_wal_senders')::int - (SELECT count(*)::int FROM pg_stat_replication) AS senders,
      (SELECT count(*)::int FROM pg_replication_slots WHERE slot_name = ANY($1)) AS there`,
      [bench.cluster.nodes.map(({ nodeId }) => `repmgr_slot_${nodeId}`)],
    )
    return {
      replayed: typeof facts?.replayed === 'string' ? facts.replayed : null,
      paused: facts?.paused === true,
      receiver: typeof facts?.receiver === 'string' ? facts.receiver : null,
      slotsLeft: Number(facts?.slots) + Number(facts?.there),
      sendersLeft: Number(facts?.senders),
      settings: settingsOf(await query(SETTINGS, [SHARED_SETTINGS])),
      freeBytes,
      rewind: await readRewind(query),
      synchronousNames: String(facts?.names ?? ''),
      restoreMs,
    }
  })
}

const RESTORE = `command=$1
begun=$(date +%s%3N)
timeout -k 1 5 sh -c "$command" >/dev/null 2>&1
echo $(($(date +%s%3N) - begun))`

/** It is asked for a history file that no cluster ever has; PostgreSQL runs the command in the data directory. */
async function timeRestore(bench: Bench, node: ClusterNode, signal: AbortSignal): Promise<number | undefined> {
  const command = await askServer(bench, node, signal, "SELECT current_setting('restore_command')")
  if (command === '') return undefined
  const file = 'FFFFFFFF.history'
  const asked = command.replace(/%[%fpr]/g, word =>
    word === '%f' ? file : word === '%p' ? `/tmp/understudy-${file}` : word === '%r' ? '0'.repeat(24) : '%',
  )
  const { stdout } = await bench.host(node).run(
    {
      argv: ['env', '-C', bench.layout.dataDirectory, 'sh', '-c', RESTORE, 'understudy-restore', asked],
      as: 'postgres',
      timeoutMs: 15_000,
      shownAs: 'see how long the restore_command takes',
    },
    { signal },
  )
  return Number(stdout)
}

const settingsOf = (rows: readonly Record<string, unknown>[]) =>
  Object.fromEntries(rows.map(({ name, setting }) => [String(name), Number(setting)]))

/** Whether one that is to stream from the new primary is let in there: found out before, not after. */
async function loginOf(bench: Bench, node: ClusterNode, to: ClusterNode, signal: AbortSignal): Promise<Obstacle[]> {
  const { layout, cluster } = bench
  const peer = {
    name: to.name,
    host: to.host,
    sshPort: to.ssh.port,
    conninfo: `${nodeConninfo(addressOf(cluster, layout, to))} passfile=${layout.passFile}`,
  }
  const { peers } = await askEdges(bench.host(node), layout, cluster.port, [peer], { signal })
  const login = peers[to.name]?.replication
  if (login?.ok) return []
  return [
    {
      detail: `${node.name} could not stream from ${to.name}: ${login?.said ?? 'its port does not answer'}.`,
      remedy: 'GET …/checks names the edge that is broken; describing the cluster again (PUT) mends its access rules.',
    },
  ]
}
