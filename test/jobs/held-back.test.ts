import t from 'tap'
import type { Bench } from '../../jobs/bench.js'
import { restartIfNeeded } from '../../jobs/steps/restart-if-needed.js'
import type { ClusterNode } from '../../src/cluster/model.js'
import type { Host } from '../../src/host/host.js'
import { stepsOf } from '../../src/operations/step.js'
import { benchOf, primary, standby } from './fixtures/bench.js'

const DEFAULTS = {
  max_connections: 100,
  max_worker_processes: 8,
  max_wal_senders: 10,
  max_prepared_transactions: 0,
  max_locks_per_transaction: 64,
}
type Values = Partial<typeof DEFAULTS>

/** A delayed pg2 whose files, server and control file have these values; others are PostgreSQL's own. */
function stepOn(
  applyDelayMs: number,
  {
    next = {},
    running = {},
    known = {},
    pending,
  }: { next?: Values; running?: Values; known?: Values; pending: string[] },
) {
  const bench = benchOf({ pg1: primary, pg2: standby }, { absent: [], built: true })
  const [pg1, pg2] = bench.cluster.nodes
  if (!pg1 || !pg2) throw new Error('two nodes')
  const node: ClusterNode = { ...pg2, applyDelayMs }
  const all = { ...DEFAULTS, ...known }
  const controldata = `pg_control version number:            1300
max_connections setting:              ${all.max_connections}
max_worker_processes setting:         ${all.max_worker_processes}
max_wal_senders setting:              ${all.max_wal_senders}
max_prepared_xacts setting:           ${all.max_prepared_transactions}
max_locks_per_xact setting:           ${all.max_locks_per_transaction}
track_commit_timestamp setting:       off
`
  const run = async ({ argv }: { argv: string[] }) => {
    if (argv[0]?.endsWith('pg_controldata')) return { stdout: controldata }
    const state = argv.at(-1)?.includes('pending_restart')
      ? { pending, shadowed: [], wrong: [], applied: [] }
      : { next: { ...DEFAULTS, ...next }, running: { ...DEFAULTS, ...running } }
    return { stdout: JSON.stringify(state) }
  }
  const asked: Bench = {
    ...bench,
    host: one => ({ ...bench.host(one), run }) as unknown as Host,
    inspect: async one => bench.found(one).server,
  }
  const [step] = stepsOf([{ title: 'x', tracks: [[restartIfNeeded(asked, node, { upstream: pg1 })]] }])
  if (step?.kind !== 'change') throw new Error('no step')
  return step
}

const context = { signal: new AbortController().signal, log: () => undefined }
const HOUR = 3_600_000

t.test('a standby that is long behind is not waited for', async t => {
  const waits = (applyDelayMs: number) =>
    stepOn(applyDelayMs, { pending: [] }).actions.some(
      ({ description }) => description.kind === 'wait' && description.text.includes('has replayed'),
    )
  t.ok(waits(1000))
  t.notOk(waits(HOUR))
})

t.test('what it can be started with, it is started with', async t => {
  const more = { next: { max_connections: 200 }, pending: ['max_connections'] }
  t.match(await stepOn(HOUR, more).check(context), { done: false, reason: 'max_connections waits for it' })
  const other = { pending: ['shared_buffers'] }
  t.match(await stepOn(HOUR, other).check(context), { done: false, reason: 'shared_buffers waits for it' })
  const applied = { running: { max_connections: 200 }, pending: ['max_connections'] }
  t.match(await stepOn(HOUR, applied).check(context), { done: false }, 'less, once it knows of it')
})

t.test('what it cannot be started with yet is left for later, and said', async t => {
  const less = {
    running: { max_connections: 200, max_prepared_transactions: 5 },
    known: { max_connections: 200, max_prepared_transactions: 5 },
    pending: ['max_connections', 'max_prepared_transactions'],
  }
  t.match(await stepOn(HOUR, less).check(context), {
    done: true,
    note: /^max_connections, max_prepared_transactions of pg2 wait for a restart\..*3600000 ms after/,
  })
  t.match(await stepOn(1000, less).check(context), { done: false }, 'a short delay is waited for')
})

t.test('where it also needs more of another, the primary must not get that before it', async t => {
  const both = {
    next: { max_wal_senders: 20 },
    running: { max_connections: 200 },
    known: { max_connections: 200 },
    pending: ['max_connections', 'max_wal_senders'],
  }
  await t.rejects(stepOn(HOUR, both).check(context), {
    code: 'restart-held-back',
    message: /max_wal_senders.*max_connections/,
  })
})
