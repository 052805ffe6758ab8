/** A rehearsal on the real cluster: a switchover, or a failover by a fault of its own, with a client that writes. */
import type { Cluster, ClusterNode } from '../src/cluster/model.js'
import type { OperationInputs } from '../src/cluster/operation-inputs.js'
import { pauseInForce } from '../src/cluster/pause.js'
import { dataNodes } from '../src/cluster/topology.js'
import { majorityOf, votersOf } from '../src/cluster/voters.js'
import { OperationError } from '../src/operations/errors.js'
import { type Plan, stage } from '../src/operations/step.js'
import type { Store } from '../src/store/store.js'
import type { Bench } from './bench.js'
import { defineOperation } from './define-operation.js'
import { ownHandover, withoutHandover } from './handover.js'
import { promote } from './promote.js'
import { ConfirmationRequired, nodeNamed } from './refusals.js'
import { endDrillWriter, reportDrill, startDrillWriter, stopWriter } from './steps/drill.js'
import { promoteAfterFault } from './steps/drill-fault.js'
import { nestedOperation } from './steps/nested.js'
import { MAX_LOSS_BYTES } from './steps/promotion/obstacles.js'
import { endsToBe, exchangeStages, refuseOvertaken } from './switchover.js'

type DrillInput = OperationInputs['drill']

/** Thrown when the cluster's policy does not allow it, or it could not be carried out safely. */
class DrillRefused extends OperationError {
  constructor(detail: string, remedy: string) {
    super(detail, { code: 'drill-refused', outcome: 'not_started', remedy })
  }
}

const runningDrill = ({ cluster: { drill }, operationId }: Bench) =>
  drill !== undefined && drill.operation === operationId ? drill : undefined

const withoutDrill = ({ drill, ...cluster }: Cluster, operationId: string | undefined): Cluster =>
  drill === undefined || drill.operation === operationId ? cluster : { drill, ...cluster }

/** The old primary and, of a switchover, the new one: also where it is taken up half-way. */
function endsOf(bench: Bench, { kind, to }: DrillInput): { from: ClusterNode; to: ClusterNode | undefined } {
  const begun = ownHandover(bench)
  if (begun) {
    const ends = { from: nodeNamed(bench, begun.from), to: nodeNamed(bench, begun.to) }
    refuseOvertaken(bench, ends.from, ends.to)
    return ends
  }
  const drill = runningDrill(bench)
  if (drill) return { from: nodeNamed(bench, drill.from), to: to === undefined ? undefined : nodeNamed(bench, to) }
  const ends = endsToBe(bench, to)
  return kind === 'failover' && to === undefined ? { from: ends.from, to: undefined } : ends
}

/** Whether a promotion would have the votes that it needs: a primary is not taken away to find out. */
async function refuseWithoutVotes(bench: Bench, from: ClusterNode, signal: AbortSignal): Promise<void> {
  const electors = votersOf(bench.cluster.nodes, [from.name])
  const answers = await Promise.all(
    electors.map(node =>
      bench
        .ask(node, { signal, timeoutMs: 3000 }, query => query('SELECT 1'))
        .then(
          () => true,
          () => false,
        ),
    ),
  )
  const store = await bench.ledger?.vote()
  const count = answers.filter(Boolean).length + (store?.may ? 1 : 0)
  const needed = majorityOf(electors.length)
  if (count >= needed) return
  const silent = electors.filter((_, index) => !answers[index]).map(({ name }) => `${name} does not answer`)
  const why = [...silent, ...(store && !store.may ? [`the store may not vote: ${store.reason}`] : [])].join('; ')
  throw new DrillRefused(
    `A promotion would need ${needed} of ${electors.length + 1} votes, and ${count} could be had: ${why}.`,
    `See GET /v1/clusters/${bench.cluster.name}/readiness.`,
  )
}

/** Standbys that are away, do not stream, or lack more than a promotion may lose: in words. */
async function notFollowing(bench: Bench, from: ClusterNode, signal: AbortSignal): Promise<string[]> {
  const others = dataNodes(bench.cluster.nodes).filter(node => node !== from)
  const written = await bench.ask(from, { signal, timeoutMs: 3000 }, query =>
    query('SELECT pg_current_wal_lsn()::text AS lsn'),
  )
  const found = await Promise.all(
    others.map(async ({ name, ...node }) => {
      if (bench.absent.has(name)) return `${name} does not answer`
      const rows = await bench
        .ask({ name, ...node }, { signal, timeoutMs: 3000 }, query =>
          query(
            "SELECT pg_wal_lsn_diff($1::pg_lsn, pg_last_wal_receive_lsn())::bigint::text AS behind FROM pg_stat_wal_receiver WHERE status = 'streaming'",
            [written[0]?.lsn],
          ),
        )
        .catch(() => [])
      if (rows.length === 0) return `${name} is not there as a standby that streams`
      const behind = Number(rows[0]?.behind)
      return behind > MAX_LOSS_BYTES
        ? `${name} is ${behind} bytes behind, and at most ${MAX_LOSS_BYTES} may be lost`
        : []
    }),
  )
  return found.flat()
}

async function refuseUnsafe(bench: Bench, input: DrillInput, signal: AbortSignal): Promise<void> {
  const { cluster } = bench
  if (ownHandover(bench) || runningDrill(bench)) return
  if ((cluster.drills ?? 'refused') !== 'allowed') {
    throw new DrillRefused(
      `${cluster.name} is not to be rehearsed on: its policy does not allow drills.`,
      `Describe it with "drills": "allowed" (PUT /v1/clusters/${cluster.name}).`,
    )
  }
  const pause = pauseInForce(cluster, Date.now())
  if (pause) {
    throw new DrillRefused(
      `${cluster.name} is paused by ${pause.by} until ${pause.until} (${pause.reason}): somebody works on it.`,
      `Wait for that, or end it: POST /v1/clusters/${cluster.name}/resume.`,
    )
  }
  const { from } = endsOf(bench, input)
  if (input.kind !== 'failover') return
  if (input.confirm !== cluster.name) {
    throw new ConfirmationRequired(
      `${from.name}, the primary of ${cluster.name}, is taken away: connections to it are cut, and what it had not sent to a standby is lost.`,
      cluster.name,
    )
  }
  const missing = await notFollowing(bench, from, signal)
  if (missing.length > 0) {
    throw new DrillRefused(
      `${missing.join('; ')}.`,
      `See GET /v1/clusters/${cluster.name}/status: a primary is taken away only from a cluster that is whole.`,
    )
  }
  await refuseWithoutVotes(bench, from, signal)
}

function failoverPlan(bench: Bench, input: DrillInput): Plan {
  const { from, to } = endsOf(bench, input)
  // The first stage of a promotion is the promotion; here it has the fault in it.
  const [, ...afterwards] = promote.plan(bench, to === undefined ? {} : { to: to.name })
  return [
    stage('let a client write', [startDrillWriter(bench, from)]),
    stage('take the primary away, and its place', [promoteAfterFault(bench, from, to, input.fault ?? 'kill')]),
    ...afterwards,
    stage('bring the old primary back as a standby', [
      nestedOperation(
        {
          id: `${from.name}/rejoin`,
          title: `bring ${from.name} back as a standby`,
          node: from.name,
          text: `as POST /v1/clusters/${bench.cluster.name}/nodes/${from.name}/rejoin does`,
          destroys: `what ${from.name} committed and had not sent to the new primary`,
        },
        signal => {
          if (!bench.nested) throw new TypeError('a drill needs to plan what comes after')
          return bench.nested('rejoin-node', { node: from.name, confirm: from.name }, signal)
        },
        async ({ signal }) => {
          const { running, inRecovery } = await bench.inspect(from, signal)
          const promotion = (await bench.ledger?.read())?.promotion
          if (!running || inRecovery !== true || promotion?.operation !== bench.operationId)
            return { done: false, reason: 'it is no standby yet' }
          const rows = await bench.ask(nodeNamed(bench, promotion?.to ?? ''), { signal }, query =>
            query('SELECT 1 FROM pg_stat_replication WHERE application_name = $1', [from.name]),
          )
          return rows.length > 0 ? { done: true } : { done: false, reason: 'it does not stream yet' }
        },
      ),
    ]),
    stage('report', [reportDrill(bench, true)]),
  ]
}

function switchoverPlan(bench: Bench, input: DrillInput): Plan {
  const { from, to } = endsOf(bench, input)
  if (!to) throw new TypeError('a switchover has two ends')
  // What stands in the way is said before anything is written.
  const [look, ...exchange] = exchangeStages(bench, from, to, {})
  return [
    ...(look ? [look] : []),
    stage('let a client write', [startDrillWriter(bench, from)]),
    ...exchange,
    stage('report', [reportDrill(bench, false)]),
  ]
}

/** Everything went back: the primary is who it was. */
const AS_BEFORE = ['switchover-taken-back', 'drill-taken-back']

async function forgetDrill(store: Store, bench: Bench): Promise<void> {
  await store.clusters.update(bench.cluster.name, cluster =>
    withoutDrill(withoutHandover(cluster, bench.operationId), bench.operationId),
  )
}

export const drill = defineOperation({
  type: 'drill',
  surveys: 'servers',
  target: cluster => cluster,
  mayBeAbsent: () => true,
  holdsRepmgrd: () => ({}),
  refuse: refuseUnsafe,
  plan: (bench, input) => (input.kind === 'failover' ? failoverPlan(bench, input) : switchoverPlan(bench, input)),
  async begin(store, bench, input) {
    const { operationId: operation } = bench
    if (operation === undefined) return
    const { from, to } = endsOf(bench, input)
    const begun =
      input.kind === 'failover' || !to
        ? { drill: { operation, from: from.name } }
        : { handover: { operation, from: from.name, to: to.name } }
    await store.clusters.update(bench.cluster.name, cluster => ({ ...cluster, ...begun }))
  },
  complete: forgetDrill,
  async failed(store, bench, { code, outcome }) {
    const { operationId } = bench
    if (operationId !== undefined) {
      if (code === 'rows-lost') await stopWriter(operationId)
      else await endDrillWriter(bench, operationId).catch(() => undefined)
    }
    // Otherwise who the primary was must be known to whoever takes it up.
    const asBefore = code === 'drill-cannot-write' && outcome === 'failed_clean'
    if (outcome === 'not_started' || asBefore || AS_BEFORE.includes(code)) await forgetDrill(store, bench)
  },
})
