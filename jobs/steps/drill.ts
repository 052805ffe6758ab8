/** The steps of a drill that an exchange of roles and a promotion do not have: its client, its fault, its report. */
import type { Fault } from '../../src/cluster/drills.js'
import type { ClusterNode } from '../../src/cluster/model.js'
import { dataNodes } from '../../src/cluster/topology.js'
import { act, runCommand } from '../../src/host/actions.js'
import { drillWords } from '../../src/operations/drill-report.js'
import { OperationError } from '../../src/operations/errors.js'
import type { ChangeStep, Check, VerifyStep } from '../../src/operations/step.js'
import type { Query } from '../../src/postgres/connect.js'
import { DrillWriter } from '../../src/postgres/drill-writer.js'
import type { Bench } from '../bench.js'
import { until } from '../until.js'

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
      remedy: `A switchover must lose nothing: keep the log of this operation, and look at the logs of PostgreSQL on the nodes of ${cluster}.`,
    })
  }
}

const WARM_UP_ROWS = 20
const WARM_UP_MS = 10_000
/** Once it is through: so many more, so that the gap has an end. */
const LAST_ROWS = 10

/** Each lives in the worker that runs its drill, from its first step to its last. */
const writers = new Map<string, DrillWriter>()

const PREFIX = 'understudy_drill_'
const tableOf = (operationId: string) => `${PREFIX}${operationId.toLowerCase()}`

/** Of the nodes the one that accepts writes; undefined where none does. */
async function onPrimary<T>(
  bench: Bench,
  signal: AbortSignal,
  work: (query: Query) => Promise<T>,
): Promise<T | undefined> {
  for (const node of dataNodes(bench.cluster.nodes)) {
    const found = await bench
      .ask(node, { signal, timeoutMs: 2000 }, async query => {
        const [row] = await query('SELECT pg_is_in_recovery() AS standby')
        return row?.standby === false ? { value: await work(query) } : undefined
      })
      .catch(() => signal.throwIfAborted())
    if (found) return found.value
  }
  return undefined
}

export function startDrillWriter(bench: Bench): ChangeStep {
  return {
    id: 'cluster/drill-client',
    kind: 'change',
    title: 'let a client write one row after the other',
    actions: [
      act('a table of its own in the database repmgr, and a row every 10 ms, until the report', async context => {
        const { operationId, signal } = context
        const table = tableOf(operationId)
        const made = await onPrimary(bench, signal, async query => {
          const old = await query(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname LIKE 'understudy\\_drill\\_op\\_%'",
          )
          if (old.some(({ relname }) => relname === table)) return false
          for (const { relname } of old) await query(`DROP TABLE public."${relname}"`)
          await query(`CREATE TABLE public."${table}" (id bigint PRIMARY KEY)`)
          return true
        })
        const { cluster, tls, password } = bench
        const writer = new DrillWriter(
          {
            addresses: dataNodes(cluster.nodes).map(({ host }) => ({ host, port: cluster.port, trust: tls.trust })),
            credentials: { user: 'repmgr', database: 'repmgr', password },
            table,
          },
          made === true,
          Date.now(),
        )
        await writers.get(operationId)?.stop()
        writers.set(operationId, writer)
        // In the middle of a drill that another worker began there may be nobody to write to.
        if (made !== true) return
        const deadline = performance.now() + WARM_UP_MS
        while (writer.rows < WARM_UP_ROWS) {
          signal.throwIfAborted()
          if (performance.now() > deadline) {
            await endDrillWriter(bench, operationId)
            throw new DrillCannotWrite(cluster.name, 'before')
          }
          await new Promise(resolve => setTimeout(resolve, 50))
        }
      }),
    ],
    async check({ operationId }): Promise<Check> {
      return operationId !== undefined && writers.has(operationId)
        ? { done: true }
        : { done: false, reason: 'nobody writes yet' }
    },
  }
}

/** However the drill ended: nobody writes any more, and the table is gone where somebody accepts writes. */
export async function endDrillWriter(bench: Bench, operationId: string): Promise<void> {
  const writer = writers.get(operationId)
  writers.delete(operationId)
  await writer?.stop()
  await onPrimary(bench, AbortSignal.timeout(10_000), query =>
    query(`DROP TABLE IF EXISTS public."${tableOf(operationId)}"`),
  )
}

/** What happens to the primary. Done once another one was promoted in its place. */
export function takePrimaryAway(bench: Bench, from: ClusterNode, fault: Fault): ChangeStep {
  const { unit } = bench.layout
  const argv = fault === 'stop' ? ['systemctl', 'stop', unit] : ['systemctl', 'kill', '--signal=KILL', unit]
  return {
    id: `${from.name}/fault`,
    kind: 'change',
    title: fault === 'stop' ? `stop ${from.name}, the primary` : `kill ${from.name}, the primary, as a crash would`,
    node: from.name,
    destroys:
      fault === 'stop' ? 'the connections to it' : 'the connections to it, and what it had not sent to a standby',
    actions: [
      runCommand(bench.host(from), bench.cluster.name, { argv, as: 'root', timeoutMs: 120_000 }),
      act('wait until it is gone', context =>
        until(`PostgreSQL on ${from.name} is gone`, 60_000, context, async () => {
          const { running } = await bench.inspect(from, context.signal)
          return !running
        }),
      ),
    ],
    async check({ signal, operationId }): Promise<Check> {
      const promotion = (await bench.ledger?.read())?.promotion
      if (operationId !== undefined && promotion?.operation === operationId) return { done: true }
      const { running } = await bench.inspect(from, signal)
      return running ? { done: false, reason: 'it runs' } : { done: true }
    },
  }
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
        const rows = writer.rows + LAST_ROWS
        const deadline = performance.now() + WARM_UP_MS
        while (writer.rows < rows) {
          signal.throwIfAborted()
          if (performance.now() > deadline) throw new DrillCannotWrite(bench.cluster.name, 'after')
          await new Promise(resolve => setTimeout(resolve, 50))
        }
        await writer.stop()
        const seen = await onPrimary(bench, signal, query => writer.report(query))
        if (!seen) throw new DrillCannotWrite(bench.cluster.name, 'after')
        report(seen)
        const words = drillWords(seen)
        note(words)
        await endDrillWriter(bench, operationId)
        if (seen.lost > 0 && !mayLose) throw new RowsLost(bench.cluster.name, words)
      }),
    ],
  }
}
