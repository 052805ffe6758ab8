/**
 * The heart of a switchover: the primary is stopped for good, the standby has its last byte, the standby is promoted.
 * Until the standby is told, everything can go back; from then on nothing does, whatever the answer.
 *
 * Never two primaries: `standby.signal` is on the old primary's disk before it is told to stop, so that whatever starts it
 * afterwards (a boot, a person) starts a standby, and the standby is promoted only once the old one's last process is gone
 * and its control file says that it was shut down in order.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { type Lsn, parseLsn } from '../../src/cluster/lsn.js'
import type { ClusterNode } from '../../src/cluster/model.js'
import { slotName } from '../../src/cluster/slot.js'
import { upstreamOf } from '../../src/cluster/topology.js'
import { changing } from '../../src/host/actions.js'
import { type Command, render } from '../../src/host/command.js'
import { CommandFailed, Superseded } from '../../src/host/errors.js'
import type { Host } from '../../src/host/host.js'
import { OperationError } from '../../src/operations/errors.js'
import { WorkerGone } from '../../src/operations/run-plan.js'
import type { Action, ChangeStep, Check, StepContext } from '../../src/operations/step.js'
import type { Bench } from '../bench.js'
import { superuser } from './local-sql.js'
import { WORKING_IN } from './processes.js'

/** Thrown when the roles could not be exchanged, and the old primary is the primary again. */
export class SwitchoverTakenBack extends OperationError {
  constructor(from: string, to: string, why: string, remedy: string) {
    super(`${from} is the primary as before: ${why}`, {
      code: 'switchover-taken-back',
      outcome: 'failed_clean',
      remedy: `${remedy} Then ask for the switchover again. ${to} was not promoted.`,
    })
  }
}

/** Thrown when the standby was told to become the primary, and nobody can say whether it has. */
export class PromotionUncertain extends OperationError {
  constructor(from: string, to: string, detail: string) {
    super(
      `${to} was told to become the primary, and it is not known yet whether it has: ${detail} ${from} is stopped, and would start as a standby.`,
      {
        code: 'promotion-uncertain',
        outcome: 'unknown',
        remedy: `Bring ${to} back, or look there whether it accepts writes (SELECT pg_is_in_recovery()), then retry the operation: it goes on from here. Start ${from} as a primary only when ${to} is known to be in recovery, and is stopped.`,
      },
    )
  }
}

/** Thrown when the primary was told to stop, and its host does not say what came of it. */
export class StopUncertain extends OperationError {
  constructor(from: string, to: string, detail: string) {
    super(`${from} was told to stop, and it is not known whether it has: ${detail} ${to} was not promoted.`, {
      code: 'stop-uncertain',
      outcome: 'unknown',
      remedy: `Bring the host of ${from} back, then retry the operation: it goes on from here. A boot of ${from} starts it as a standby, and the retry makes it the primary again or finishes the switchover.`,
    })
  }
}

/** Thrown when the old primary was to be the primary again, and did not come up in time. */
export class OldPrimaryDown extends OperationError {
  constructor(from: string, why: string, detail: string) {
    super(
      `The switchover was taken back (${why}), and ${from} does not accept writes again yet: ${detail} No other server was promoted.`,
      {
        code: 'old-primary-down',
        outcome: 'failed_partial',
        remedy: `Look at the server’s log on ${from} (/var/log/postgresql). It holds every commit: start it there, then ask for the switchover again.`,
      },
    )
  }
}

/** How a server was found after it was told to stop. */
interface Stopped {
  /** What still keeps it from ending, as the process table says it; empty where it has ended. */
  busy: string[]
  /** "shut down" where its last checkpoint is the last thing in its WAL. */
  state: string
  /** Where that checkpoint's record begins. */
  checkpoint: Lsn
}

/** Only a whole stop counts: no process is left in the data directory. Sizes of the sleep: a stop takes a tenth of a second. */
const STOP = `${WORKING_IN}
data=$1 control=$2 limit=$3
signal="$data/standby.signal"
[ -f "$data/PG_VERSION" ] || { echo "there is no database in $data" >&2; exit 1; }
if [ ! -f "$signal" ]; then
  install -o postgres -g postgres -m 0600 /dev/null "$signal" || exit 1
fi
sync "$signal" "$data" || exit 1
pid=$(head -n 1 "$data/postmaster.pid" 2>/dev/null)
if [ -n "$pid" ] && [ "$(readlink "/proc/$pid/cwd" 2>/dev/null)" = "$(readlink -f "$data")" ]; then
  kill -INT "$pid"
  end=$(($(date +%s%3N) + limit))
  while [ -d "/proc/$pid" ] && [ "$(date +%s%3N)" -lt "$end" ]; do sleep 0.01; done
fi
working_in "$data" | sed 's/ .*//' | while read -r left; do
  tr '\\0' ' ' <"/proc/$left/cmdline" 2>/dev/null | sed -n 's/^\\(..*\\)$/busy=\\1/p'
done
"$control" "$data" | sed -n -e 's/^Database cluster state: */state=/p' -e 's/^Latest checkpoint location: */checkpoint=/p'`

/** As a primary again, at once. QUIT: a clean end would take what has just been waited for in vain. */
const GO_BACK = `${WORKING_IN}
data=$1 unit=$2 how=$3
pid=$(head -n 1 "$data/postmaster.pid" 2>/dev/null)
if [ -n "$pid" ] && [ "$(readlink "/proc/$pid/cwd" 2>/dev/null)" = "$(readlink -f "$data")" ]; then
  kill "-$how" "$pid"
  for turn in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    [ -d "/proc/$pid" ] || break
    sleep 0.5
  done
fi
left=$(working_in "$data")
[ -z "$left" ] || { echo "still there: $left" >&2; exit 1; }
rm -f "$data/standby.signal" && sync "$data" || exit 1
# Its end may not have been seen yet.
for turn in 1 2 3 4 5 6 7 8 9 10; do
  systemctl is-active -q "$unit" || break
  sleep 0.2
done
exec systemctl start --no-block "$unit"`

const BEHIND = 'it has not replayed the last checkpoint of the old primary'
/** Printed before it is told: where it is missing, nothing was told. */
const TELLING = 'understudy: telling it'

/**
 * Waits until the record that begins at `checkpoint` is replayed: the position after the last record is beyond its
 * beginning. Only then it is told, in the same session, so that nothing fits in between.
 */
const promotion = (checkpoint: Lsn, waitMs: number) => `DO $$
BEGIN
  FOR turn IN 1..${Math.ceil(waitMs / 10)} LOOP
    EXIT WHEN NOT pg_is_in_recovery() OR pg_last_wal_replay_lsn() > '${checkpoint}'::pg_lsn;
    PERFORM pg_sleep(0.01);
  END LOOP;
  IF pg_is_in_recovery() AND NOT pg_last_wal_replay_lsn() > '${checkpoint}'::pg_lsn THEN
    RAISE EXCEPTION '${BEHIND}';
  END IF;
END $$;
\\echo ${TELLING}
SELECT CASE WHEN pg_is_in_recovery() THEN pg_promote(true, ${PROMOTION_S}) ELSE true END;
`
const PROMOTION_S = 60
const REPLAY_MS = 10_000
/** A crash recovery may take its time; the person who waits is told sooner. */
const BACK_MS = 300_000
/** How long a standby that was told, and does not answer, is asked. */
const CERTAINTY_MS = 60_000

export function exchangeRoles(bench: Bench, from: ClusterNode, to: ClusterNode, deadlineMs: number): ChangeStep {
  const { layout, cluster } = bench
  const stop: Command = {
    argv: [
      ...['sh', '-c', STOP, 'understudy-stop-primary', layout.dataDirectory],
      ...[`${layout.binDirectory}/pg_controldata`, String(deadlineMs)],
    ],
    as: 'root',
    timeoutMs: deadlineMs + 30_000,
    shownAs: `write ${layout.dataDirectory}/standby.signal, then end the server (kill -INT: mode fast) within ${deadlineMs} ms`,
  }
  const exchange: Action = {
    description: {
      kind: 'command',
      text: `on ${from.name}: ${render(stop)}; on ${to.name}, once its last checkpoint is replayed there: SELECT pg_promote()`,
    },
    perform: context => exchangeOnce(bench, from, to, stop, context),
  }
  return {
    id: 'cluster/exchange',
    kind: 'change',
    title: `stop ${from.name} and promote ${to.name}`,
    actions: [exchange],
    async check({ signal }): Promise<Check> {
      const [old, next] = await Promise.all([bench.inspect(from, signal), bench.inspect(to, signal)])
      if (next.inRecovery === false) {
        if (old.running && old.inRecovery === false) {
          throw new OperationError(`${from.name} and ${to.name} of ${cluster.name} both accept writes.`, {
            code: 'two-primaries',
            outcome: 'unknown',
            remedy: 'Decide which one is right, and stop the other before anything else.',
          })
        }
        return { done: true, note: `${to.name} is the primary, on timeline ${next.timeline ?? 'unknown'}` }
      }
      return {
        done: false,
        reason:
          old.running && old.inRecovery === false
            ? `${from.name} is the primary`
            : `${from.name} is stopped, and ${to.name} is not promoted yet`,
      }
    },
  }
}

async function exchangeOnce(
  bench: Bench,
  from: ClusterNode,
  to: ClusterNode,
  stop: Command,
  context: StepContext,
): Promise<void> {
  const { cluster, layout } = bench
  const { epoch, log } = context
  // Once begun it ends, one way or the other, though somebody calls it off: only another worker may take it from us.
  const whole = new AbortController()
  const onAbort = () => {
    if (context.signal.reason instanceof WorkerGone) whole.abort(context.signal.reason)
  }
  context.signal.throwIfAborted()
  context.signal.addEventListener('abort', onAbort)
  const signal = whole.signal
  const on = (node: ClusterNode) => changing(bench.host(node), cluster.name, epoch)
  const begun = performance.now()
  const elapsed = () => `${Math.round(performance.now() - begun)} ms`
  try {
    const before = await bench.inspect(from, signal)
    if (before.running && before.inRecovery === true) {
      const why = 'it was started as a standby in the middle of the switchover.'
      await goBack(bench, from, to, on, { signal, log }, why, 'INT')
    }
    const stopped = parseStopped(
      await insist(from, to, signal, () => on(from).run(stop, { signal })).catch(async error => {
        // It failed before the server was told anything: a mark that stayed would make the next restart a standby.
        if (error instanceof CommandFailed) await forgetSignal(bench, on(from), signal)
        throw error
      }),
    )
    log(`${from.name}: ${stopped.busy.length === 0 ? 'ended' : 'not ended'} after ${elapsed()}, ${stopped.state}`)
    if (stopped.busy.length > 0) {
      const why = `it had not ended in time; what was left of it: ${stopped.busy.join('; ')}.`
      await goBack(bench, from, to, on, { signal, log }, why)
    }
    if (stopped.state !== 'shut down') {
      const why = `its control file says "${stopped.state}" and not "shut down", so that nobody knows whether ${to.name} has its last byte.`
      await goBack(bench, from, to, on, { signal, log }, why)
    }
    const { psql, port, database } = superuser(bench)
    const promote: Command = {
      argv: [psql, '-XAtqw', '-v', 'ON_ERROR_STOP=1', '-p', String(port), '-d', database, '-f', '-'],
      as: 'postgres',
      stdin: promotion(stopped.checkpoint, REPLAY_MS),
      timeoutMs: REPLAY_MS + PROMOTION_S * 1000 + 15_000,
    }
    let answer: string
    try {
      answer = (await on(to).run(promote, { signal })).stdout
    } catch (error) {
      signal.throwIfAborted()
      const told = !(error instanceof CommandFailed) || error.result.stdout.includes(TELLING)
      if (!told) {
        const detail = error.result.stderr.includes(BEHIND)
          ? `had not replayed its last checkpoint (${stopped.checkpoint}) after ${REPLAY_MS / 1000} s.`
          : `could not be asked whether it has replayed its last checkpoint: ${error.result.stderr.trim()}`
        await goBack(bench, from, to, on, { signal, log }, `${to.name} ${detail}`)
      }
      answer = error instanceof Error ? error.message : String(error)
    }
    if (answer.trim().endsWith('\nt')) log(`${to.name}: promoted after ${elapsed()}`)
    else await untilCertain(bench, from, to, signal, answer)
  } finally {
    context.signal.removeEventListener('abort', onAbort)
  }

  function parseStopped(output: string): Stopped {
    const fields = output.split('\n').map(line => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)])
    const field = (name: string) => fields.find(([key]) => key === name)?.[1]
    return {
      busy: fields.flatMap(([key, value]) => (key === 'busy' && value ? [value.trim()] : [])),
      state: field('state') ?? `unreadable in ${layout.dataDirectory}`,
      checkpoint: parseLsn(field('checkpoint') ?? '0/0'),
    }
  }
}

/** The stop is asked for again until it is known what came of it: an answer that got lost says nothing. */
async function insist(
  from: ClusterNode,
  to: ClusterNode,
  signal: AbortSignal,
  stop: () => Promise<{ stdout: string }>,
): Promise<string> {
  const deadline = performance.now() + CERTAINTY_MS
  for (;;) {
    try {
      return (await stop()).stdout
    } catch (error) {
      signal.throwIfAborted()
      if (!(error instanceof OperationError) || error instanceof Superseded || error instanceof CommandFailed)
        throw error
      if (performance.now() > deadline) throw new StopUncertain(from.name, to.name, error.message)
      await sleep(1000)
    }
  }
}

const forgetSignal = ({ layout }: Bench, host: Host, signal: AbortSignal) =>
  host.run({ argv: ['rm', '-f', `${layout.dataDirectory}/standby.signal`], as: 'root', timeoutMs: 30_000 }, { signal })

/** It was told, or may have been: from here there is only one way. */
async function untilCertain(
  bench: Bench,
  from: ClusterNode,
  to: ClusterNode,
  signal: AbortSignal,
  said: string,
): Promise<void> {
  const deadline = performance.now() + CERTAINTY_MS
  for (;;) {
    const found = await bench.inspect(to, signal).catch(() => undefined)
    if (found?.inRecovery === false) return
    signal.throwIfAborted()
    if (performance.now() > deadline) throw new PromotionUncertain(from.name, to.name, said)
    await sleep(250)
  }
}

/** Always throws: the roles are as they were, or it is said what is not. */
async function goBack(
  bench: Bench,
  from: ClusterNode,
  to: ClusterNode,
  on: (node: ClusterNode) => Host,
  { signal, log }: { signal: AbortSignal; log: (line: string) => void },
  why: string,
  how: 'INT' | 'QUIT' = 'QUIT',
): Promise<never> {
  const { layout } = bench
  log(`going back: ${why}`)
  try {
    await on(from).run(
      {
        argv: ['sh', '-c', GO_BACK, 'understudy-go-back', layout.dataDirectory, layout.unit, how],
        as: 'root',
        timeoutMs: 60_000,
        shownAs: `remove ${layout.dataDirectory}/standby.signal; systemctl start ${layout.unit}`,
      },
      { signal },
    )
    const deadline = performance.now() + BACK_MS
    while ((await bench.inspect(from, signal)).inRecovery !== false) {
      if (performance.now() > deadline) throw new Error(`it did not accept writes within ${BACK_MS / 1000} s.`)
      await sleep(250)
    }
  } catch (error) {
    signal.throwIfAborted()
    throw new OldPrimaryDown(from.name, why, error instanceof Error ? error.message : String(error))
  }
  await dropUnused(bench, from, to, on, signal).catch(error => log(`slots on ${to.name} were left: ${error}`))
  throw new SwitchoverTakenBack(
    from.name,
    to.name,
    why,
    `Look at what was in the way: a standby or an archive that is slow to take the last WAL, a disk that is slow to take the last checkpoint.`,
  )
}

/** The slots that were made for the new order would keep WAL on a standby that nobody streams from. */
async function dropUnused(
  bench: Bench,
  from: ClusterNode,
  to: ClusterNode,
  on: (node: ClusterNode) => Host,
  signal: AbortSignal,
): Promise<void> {
  const { nodes } = bench.cluster
  const below = nodes.filter(node => node !== from && node !== to && upstreamOf(node, nodes, from).name === to.name)
  const kept = below.map(({ nodeId }) => `'${slotName(nodeId)}'`).join(', ') || "''"
  const ours = nodes.map(({ nodeId }) => `'${slotName(nodeId)}'`).join(', ')
  const { psql, port, database } = superuser(bench)
  await on(to).run(
    {
      argv: [psql, '-XAtqw', '-p', String(port), '-d', database, '-f', '-'],
      as: 'postgres',
      stdin: `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active AND slot_name IN (${ours}) AND slot_name NOT IN (${kept});\n`,
      timeoutMs: 15_000,
    },
    { signal },
  )
}
