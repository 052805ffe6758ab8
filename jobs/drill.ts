/** A rehearsal on the real cluster: a switchover, or a failover by a fault of its own, with a client that writes. */
import type { Cluster, ClusterNode } from '../src/cluster/model.js'
import type { OperationInputs } from '../src/cluster/operation-inputs.js'
import { pauseInForce } from '../src/cluster/pause.js'
import { dataNodes } from '../src/cluster/topology.js'
import { majorityOf, votersOf } from '../src/cluster/voters.js'
import { OperationError } from '../src/operations/errors.js'
import { type Plan, type Stage, stage } from '../src/operations/step.js'
import type { Store } from '../src/store/store.js'
import type { Bench } from './bench.js'
import { defineOperation } from './define-operation.js'
import { ownHandover, withoutHandover } from './handover.js'
import { promote } from './promote.js'
import { ConfirmationRequired, nodeNamed } from './refusals.js'
import { endDrillWriter, reportDrill, startDrillWriter, takePrimaryAway } from './steps/drill.js'
import { nestedOperation } from './steps/nested.js'
import { startServer } from './steps/primary.js'
import { endsToBe, exchangeStages, refuseOvertaken } from './switchover.js'

type DrillInput = OperationInputs['drill']

/** Thrown when the cluster's policy does not allow it, or it could not be carried out safely. */
class DrillRefused extends OperationError {
  constructor(detail: string, remedy: string) {
    super(detail, { code: 'drill-refused', outcome: 'not_started', remedy })
  }
}

/** Thrown when nobody could be promoted in place of the primary that was taken away: it was started again. */
class DrillTakenBack extends OperationError {
  constructor(primary: string, cause: OperationError) {
    super(`Nobody was promoted: ${cause.message} ${primary} was started again and is the primary as before.`, {
      code: 'drill-taken-back',
      outcome: 'failed_clean',
      remedy: cause.remedy,
      cause,
    })
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
  const missing = dataNodes(cluster.nodes).filter(
    node => node !== from && (bench.absent.has(node.name) || bench.found(node).server.inRecovery !== true),
  )
  if (missing.length > 0) {
    throw new DrillRefused(
      `${missing.map(({ name }) => name).join(', ')} ${missing.length === 1 ? 'is' : 'are'} not there as a standby.`,
      `See GET /v1/clusters/${cluster.name}/status: a primary is taken away only from a cluster that is whole.`,
    )
  }
  await refuseWithoutVotes(bench, from, signal)
}

/** The steps of a promotion, and the way back where nobody can be promoted. */
function promotionStages(bench: Bench, from: ClusterNode, to: ClusterNode | undefined): Stage[] {
  const plan = promote.plan(bench, to === undefined ? {} : { to: to.name }) as Stage[]
  const restart = startServer(bench, from)
  const [first, ...rest] = plan
  if (!first) return plan
  const guarded = first.tracks.map(track =>
    track.map(step => ({
      ...step,
      actions: step.actions.map(action => ({
        ...action,
        perform: async (context: Parameters<typeof action.perform>[0]) => {
          try {
            await action.perform(context)
          } catch (error) {
            const untouched =
              error instanceof OperationError && (error.outcome === 'not_started' || error.outcome === 'failed_clean')
            if (!untouched || context.signal.aborted) throw error
            context.log(`nobody is promoted: ${error.message}`)
            for (const back of restart.actions) await back.perform(context)
            throw new DrillTakenBack(from.name, error)
          }
        },
      })),
    })),
  )
  return [stage(first.title, ...guarded), ...rest]
}

function failoverPlan(bench: Bench, input: DrillInput): Plan {
  const { from, to } = endsOf(bench, input)
  return [
    stage('let a client write', [startDrillWriter(bench)]),
    stage('take the primary away', [takePrimaryAway(bench, from, input.fault ?? 'kill')]),
    ...promotionStages(bench, from, to),
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
  return [
    stage('let a client write', [startDrillWriter(bench)]),
    ...exchangeStages(bench, from, to, {}),
    stage('report', [reportDrill(bench, false)]),
  ]
}

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
    if (bench.operationId !== undefined) await endDrillWriter(bench, bench.operationId).catch(() => undefined)
    // Otherwise who the primary was must be known to whoever takes it up.
    if (outcome === 'not_started' || code === 'switchover-taken-back' || code === 'drill-taken-back')
      await forgetDrill(store, bench)
  },
})
