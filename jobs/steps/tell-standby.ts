/**
 * A standby is told to become the primary: its mark is written, it is told, and nobody leaves before it is known what
 * came of it. Knows nothing of an old primary: whoever asks for it has seen to that one, and decides what to do where the
 * standby was not told.
 *
 * Begin each turn with `wasTold`: from then on the host of the standby refuses every worker of before, and where it says
 * yes nobody goes back any more.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { ClusterNode } from '../../src/cluster/model.js'
import { changing } from '../../src/host/actions.js'
import type { Command } from '../../src/host/command.js'
import { AS_USER } from '../../src/host/drop.js'
import { CommandFailed, Superseded } from '../../src/host/errors.js'
import { OperationError } from '../../src/operations/errors.js'
import type { StepContext } from '../../src/operations/step.js'
import type { Bench } from '../bench.js'
import { CERTAINTY_MS, insist } from './in-one-go.js'
import { superuser } from './local-sql.js'
import { promotionMark, readMark } from './promotion-mark.js'

/** One standby that is to be told, by one turn of one operation. */
export interface Telling {
  bench: Bench
  to: ClusterNode
  context: StepContext
  /** Aborted only where this worker has lost the operation (`inOneGo`). */
  signal: AbortSignal
  /** What is thrown where it was told, or may have been, and nobody can say what came of it. */
  uncertain(detail: string): OperationError
}

/** Nothing was told: everything can still go back. */
export interface NotTold {
  promoted: false
  /** What the host said, or why it could not be asked. */
  said: string
}

export type Told = { promoted: true } | NotTold

/** Printed before the mark is written: where it is missing, nothing was told. */
const TELLING = 'understudy: telling it'
/** Printed where the mark could not be written, and is not there. */
const NOT_TOLD = 'understudy: it was not told'
const PROMOTION_S = 60

/** The mark is on the disk before the server hears of it. */
const PROMOTE = `${AS_USER}
psql=$1 port=$2 database=$3 mark=$4 operation=$5
ask() { as_user postgres "$psql" -XAtqw -v ON_ERROR_STOP=1 -p "$port" -d "$database" -c "$1"; }
cd /
echo '${TELLING}'
umask 077
if [ "$(cat "$mark" 2>/dev/null)" != "$operation" ]; then
  echo "$operation" >"$mark.new" && sync "$mark.new" && mv -fT "$mark.new" "$mark" && sync "\${mark%/*}" ||
    { rm -f "$mark.new" "$mark" && echo '${NOT_TOLD}'; exit 1; }
fi
ask 'SELECT CASE WHEN pg_is_in_recovery() THEN pg_promote(true, ${PROMOTION_S}) ELSE true END'`

const on = ({ bench, to, context }: Telling) => changing(bench.host(to), bench.cluster.name, context.epoch)

/**
 * Whether this operation has told the standby already. `others`: whether a mark of another operation is known to be of
 * long ago, as it is under a primary that writes; otherwise it is as uncertain as one of ours without an answer.
 */
export async function wasTold(telling: Telling, others: 'forget' | 'keep'): Promise<boolean> {
  const { bench, context, signal, uncertain } = telling
  const { stdout } = await insist(signal, uncertain, () =>
    on(telling).run(readMark(bench.cluster.name, context.operationId, others), { signal }),
  )
  if (stdout.trim() === 'other')
    throw uncertain(
      `${promotionMark(bench.cluster.name)} there is of another operation, and nobody knows that this is long past.`,
    )
  return stdout.trim() === 'told'
}

/** `again`: it was told before, so it is never answered that it was not. */
export async function tellStandby(telling: Telling, { again }: { again: boolean }): Promise<Told> {
  const { bench, to, signal, context } = telling
  const { psql, port, database } = superuser(bench)
  const mark = promotionMark(bench.cluster.name)
  const promote: Command = {
    argv: ['sh', '-c', PROMOTE, 'understudy-promote', psql, String(port), database, mark, context.operationId],
    as: 'root',
    timeoutMs: PROMOTION_S * 1000 + 15_000,
    shownAs: `SELECT pg_promote()   # on ${to.name}`,
  }
  let answer: string
  try {
    answer = (await on(telling).run(promote, { signal })).stdout
  } catch (error) {
    signal.throwIfAborted()
    if (error instanceof Superseded) throw error
    // Nothing reached the host, or the script ended before it wrote its mark.
    const told =
      error instanceof CommandFailed
        ? error.result.stdout.includes(TELLING) && !error.result.stdout.includes(NOT_TOLD)
        : !(error instanceof OperationError && error.outcome === 'not_started')
    if (!told && !again) {
      const said = error instanceof CommandFailed ? error.result.stderr : error instanceof Error ? error.message : ''
      return { promoted: false, said: said.trim() }
    }
    answer = error instanceof Error ? error.message : String(error)
  }
  if (!answer.trim().endsWith('\nt')) await untilCertain(telling, answer)
  await on(telling)
    .run({ argv: ['rm', '-f', mark], as: 'root', timeoutMs: 30_000 }, { signal })
    .catch(error => context.log(`the mark of the promotion was left: ${error}`))
  return { promoted: true }
}

/** It was told, or may have been: from here there is only one way. */
async function untilCertain({ bench, to, signal, uncertain }: Telling, said: string): Promise<void> {
  const deadline = performance.now() + CERTAINTY_MS
  for (;;) {
    const found = await bench.inspect(to, signal).catch(() => undefined)
    if (found?.inRecovery === false) return
    signal.throwIfAborted()
    if (performance.now() > deadline) throw uncertain(said)
    await sleep(250)
  }
}
