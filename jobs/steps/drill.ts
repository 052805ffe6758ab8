/** The client of a drill, from its first row to what it has seen. */
import type { ClusterNode } from '../../src/cluster/model.js'
import { dataNodes } from '../../src/cluster/topology.js'
import { act } from '../../src/host/actions.js'
import { drillWords } from '../../src/operations/drill-report.js'
import { OperationError } from '../../src/operations/errors.js'
import type { ChangeStep, Check, StepContext, VerifyStep } from '../../src/operations/step.js'
import type { Query } from '../../src/postgres/connect.js'
import { DrillWriter } from '../../src/postgres/drill-writer.js'
import type { Bench } from '../bench.js'
import { NotInTime, until } from '../until.js'

/** Thrown when the client of a drill gets no row into the cluster. */
class DrillCannotWrite extends OperationError {
  constructor(cluster: string, when: 'before' | 'after') {
    super(
      `The client of the drill could not write to ${cluster} ${when === 'before' ? 'before anything was touched' : 'when it was through'}.`,
      {
        code: 'drill-cannot-write',
        outcome: when === 'before' ? 'failed_clean' : 'failed_partial',
        remedy: `See who accepts writes (GET /v1/clusters/${cluster}/status): the role repmgr writes a table of its own in the database repmgr.`,
      },
    )
  }
}

/** Thrown when a row is gone that was acknowledged, and nobody was taken away. */
class RowsLost extends OperationError {
  constructor(cluster: string, words: string) {
    super(words, {
      code: 'rows-lost',
      outcome: 'failed_partial',
      remedy: `A switchover must lose nothing: keep the log of this operation, and look at its table (understudy_drill_… in the database repmgr) and at the logs of PostgreSQL on the nodes of ${cluster}.`,
    })
  }
}

const WARM_UP_ROWS = 20
/** For the first rows, and for the last. */
const ROWS_MS = 10_000
/** Once it is through: so many more, so that the gap has an end. */
const LAST_ROWS = 10

/** Each lives in the worker that runs its drill, from its first step to its last. */
const writers = new Map<string, DrillWriter>()

const PREFIX = 'understudy_drill_'
const tableOf = (operationId: string) => `${PREFIX}${operationId.toLowerCase()}`

/** On the node that accepts writes; undefined where none does. */
async function onPrimary<T>(
  bench: Bench,
  signal: AbortSignal,
  work: (query: Query, node: ClusterNode) => Promise<T>,
): Promise<T | undefined> {
  for (const node of dataNodes(bench.cluster.nodes)) {
    const found = await bench
      .ask(node, { signal, timeoutMs: 2000 }, async query => {
        const [row] = await query('SELECT pg_is_in_recovery() AS standby')
        return row?.standby === false ? { value: await work(query, node) } : undefined
      })
      .catch(() => signal.throwIfAborted())
    if (found) return found.value
  }
  return undefined
}

/** Whether so many rows more were acknowledged in time. */
async function writes(writer: DrillWriter, rows: number, context: StepContext): Promise<boolean> {
  const wanted = writer.rows + rows
  try {
    await until('the client of the drill has written', ROWS_MS, context, async () => writer.rows >= wanted)
    return true
  } catch (error) {
    if (error instanceof NotInTime) return false
    throw error
  }
}

/** `from`: the primary when the drill began. A client that begins later has not seen what it is about. */
export function startDrillWriter(bench: Bench, from: ClusterNode): ChangeStep {
  return {
    id: 'cluster/drill-client',
    kind: 'change',
    title: 'let a client write one row after the other',
    actions: [
      act('a table of its own in the database repmgr, and a row every 10 ms, until the report', async context => {
        const { operationId, signal, draining } = context
        const table = tableOf(operationId)
        const whole = await onPrimary(bench, signal, async (query, node) => {
          const tables = await query(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname LIKE 'understudy\\_drill\\_op\\_%'",
          )
          const own = tables.some(({ relname }) => relname === table)
          for (const { relname } of tables) if (relname !== table) await query(`DROP TABLE public."${relname}"`)
          if (!own) await query(`CREATE TABLE public."${table}" (id bigint PRIMARY KEY)`)
          return !own && node === from
        })
        const { cluster, tls, password } = bench
        const writer = new DrillWriter(
          {
            addresses: dataNodes(cluster.nodes).map(({ host }) => ({ host, port: cluster.port, trust: tls.trust })),
            credentials: { user: 'repmgr', database: 'repmgr', password },
            table,
          },
          whole === true,
          // Above those of a writer before this one.
          Date.now(),
        )
        writers.set(operationId, writer)
        // Somebody else's turn, or nobody's: the operation may end here without another word.
        for (const end of [signal, draining])
          end.addEventListener('abort', () => void stopWriter(operationId), { once: true })
        // In the middle of a drill that another worker began there may be nobody to write to.
        if (whole !== true || (await writes(writer, WARM_UP_ROWS, context))) return
        await endDrillWriter(bench, operationId)
        throw new DrillCannotWrite(cluster.name, 'before')
      }),
    ],
    async check({ operationId }): Promise<Check> {
      return operationId !== undefined && writers.has(operationId)
        ? { done: true }
        : { done: false, reason: 'nobody writes yet' }
    },
  }
}

/** Nobody writes any more. */
export async function stopWriter(operationId: string): Promise<void> {
  const writer = writers.get(operationId)
  writers.delete(operationId)
  await writer?.stop()
}

/** And the table is gone, where somebody accepts writes. */
export async function endDrillWriter(bench: Bench, operationId: string): Promise<void> {
  await stopWriter(operationId)
  await onPrimary(bench, AbortSignal.timeout(10_000), query =>
    query(`DROP TABLE IF EXISTS public."${tableOf(operationId)}"`),
  )
}

/** `mayLose`: where the primary was taken away, what it had not sent is gone; otherwise it is a failure. */
export function reportDrill(bench: Bench, mayLose: boolean): VerifyStep {
  return {
    id: 'cluster/drill-report',
    kind: 'verify',
    title: 'see for how long writes were refused, and which rows are there',
    actions: [
      act('count what the client was told, and read its table on the primary', async context => {
        const { operationId, signal, note, report } = context
        const writer = writers.get(operationId)
        if (!writer) throw new TypeError('the client of the drill was never started')
        if (!(await writes(writer, LAST_ROWS, context))) throw new DrillCannotWrite(bench.cluster.name, 'after')
        await writer.stop()
        const seen = await onPrimary(bench, signal, query => writer.report(query))
        if (!seen) throw new DrillCannotWrite(bench.cluster.name, 'after')
        report(seen)
        const words = drillWords(seen)
        note(words)
        // Where rows are lost that must not be, the table stays to be looked at, until the next drill.
        if (seen.lost > 0 && !mayLose) throw new RowsLost(bench.cluster.name, words)
        await endDrillWriter(bench, operationId)
      }),
    ],
  }
}
