/** The fault of a drill with the promotion that answers it: one step, so that nobody can call the drill off in between. */
import type { Fault } from '../../src/cluster/drills.js'
import type { Cluster, ClusterNode } from '../../src/cluster/model.js'
import { settledEpoch } from '../../src/cluster/promotion.js'
import { dataNodes } from '../../src/cluster/topology.js'
import { newestBegun } from '../../src/cluster/voters.js'
import { runCommand } from '../../src/host/actions.js'
import { OperationError } from '../../src/operations/errors.js'
import type { Action, ChangeStep, StepContext } from '../../src/operations/step.js'
import type { Bench } from '../bench.js'
import { startServer } from './primary.js'
import { type Evidence, gatherEvidence } from './promotion/evidence.js'
import { promoteStandby } from './promotion/promote-standby.js'

/** Thrown when nobody could be promoted in place of the primary that was taken away: it was started again. */
class DrillTakenBack extends OperationError {
  constructor(primary: string, cause: OperationError) {
    super(`Nobody was promoted: ${cause.message} ${primary} runs again and is the primary as before.`, {
      code: 'drill-taken-back',
      outcome: 'failed_clean',
      remedy: cause.remedy,
      cause,
    })
  }
}

/** Thrown when nobody could be promoted, and somebody else may be the primary by now: two would be worse than none. */
class PrimaryLeftAway extends OperationError {
  constructor(cluster: string, primary: string, cause: OperationError, why: readonly string[]) {
    super(
      `Nobody was promoted: ${cause.message} ${primary}, which the drill took away, was not started again: ${why.join(', ')}.`,
      {
        code: 'drill-primary-away',
        outcome: 'failed_partial',
        remedy: `Nobody may accept writes now. ${cause.remedy} Retrying the operation then promotes a standby. To have ${primary} back instead, see that no other node accepts writes, then POST /v1/clusters/${cluster}/nodes/${primary}/start.`,
        cause,
      },
    )
  }
}

/** Returns only once the postmaster is gone. One that its unit starts again is another one. */
const TAKE_AWAY = `unit=$1 data=$2 fault=$3
if [ "$fault" = stop ]; then exec systemctl stop "$unit"; fi
read -r pid <"$data/postmaster.pid" || exit 1
systemctl kill --signal=KILL "$unit" || exit 1
tries=0
while [ -e "/proc/$pid" ] && [ "$tries" -lt 100 ]; do
  tries=$((tries + 1))
  sleep 0.1
done
[ ! -e "/proc/$pid" ]`

/** `from` is taken away where it is the primary yet; then as `promoteStandby` does, with a way back. */
export function promoteAfterFault(
  bench: Bench,
  from: ClusterNode,
  to: ClusterNode | undefined,
  fault: Fault,
): ChangeStep {
  const promotion = promoteStandby(bench, to === undefined ? {} : { to: to.name })
  const lost = 'the connections to it, and what it had not sent to a standby'
  return {
    ...promotion,
    title: `${fault} ${from.name}, the primary, and ${promotion.title}`,
    destroys: fault === 'stop' ? 'the connections to it' : lost,
    actions: [takeAway(bench, from, fault), ...promotion.actions.map(action => orGoBack(bench, from, action))],
  }
}

function takeAway(bench: Bench, from: ClusterNode, fault: Fault): Action {
  const { unit, dataDirectory } = bench.layout
  const command = runCommand(bench.host(from), bench.cluster.name, {
    argv: ['sh', '-c', TAKE_AWAY, 'understudy-fault', unit, dataDirectory, fault],
    as: 'root',
    timeoutMs: 120_000,
    shownAs: `sudo -n -- systemctl ${fault === 'stop' ? 'stop' : 'kill --signal=KILL'} ${unit}`,
  })
  return {
    description: command.description,
    async perform(context) {
      // A worker before this one has done it, or a standby was told already: what runs there now is not the old primary.
      const promotion = (await bench.ledger?.read())?.promotion
      const { running, inRecovery } = await bench.inspect(from, context.signal)
      if (running && inRecovery !== true && promotion?.operation !== context.operationId) await command.perform(context)
    },
  }
}

function orGoBack(bench: Bench, from: ClusterNode, action: Action): Action {
  return {
    ...action,
    async perform(context) {
      try {
        await action.perform(context)
      } catch (error) {
        const untouched =
          error instanceof OperationError && (error.outcome === 'not_started' || error.outcome === 'failed_clean')
        if (!untouched || context.signal.aborted) throw error
        await goBack(bench, from, error, context)
      }
    },
  }
}

/** Always throws. */
async function goBack(bench: Bench, from: ClusterNode, cause: OperationError, context: StepContext): Promise<never> {
  context.log(`nobody is promoted: ${cause.message}`)
  const cluster = (await bench.ledger?.read()) ?? bench.cluster
  const evidence = await gatherEvidence(bench, undefined, context.signal)
  const { timeline = 0 } = await bench.inspect(from, context.signal)
  const why = reasonsNotToStart(cluster, from, timeline, evidence)
  if (why.length > 0) throw new PrimaryLeftAway(cluster.name, from.name, cause, why)
  for (const action of startServer(bench, from).actions) await action.perform(context)
  throw new DrillTakenBack(from.name, cause)
}

/**
 * Why the old primary could be one beside another: who promoted somebody meanwhile need not have asked this service.
 * `timeline`: the newest that its own copy has seen. Pure.
 */
export function reasonsNotToStart(
  { nodes, promotion }: Pick<Cluster, 'nodes' | 'promotion'>,
  from: Pick<ClusterNode, 'name'>,
  timeline: number,
  { standbys, traces }: Pick<Evidence, 'standbys' | 'traces'>,
): string[] {
  const others = dataNodes(nodes).filter(({ name }) => name !== from.name)
  const begun = newestBegun(traces, settledEpoch(promotion))?.trace.candidate
  return [
    ...others.flatMap(({ name }) => {
      const standing = standbys.get(name)
      if (!standing) return [`${name} does not answer as a standby`]
      if (standing.promotionPending) return [`${name} was told to become the primary`]
      return standing.timeline > timeline ? [`${name} has seen timeline ${standing.timeline}`] : []
    }),
    ...(begun === undefined ? [] : [`a promotion of ${begun} was begun`]),
  ]
}
