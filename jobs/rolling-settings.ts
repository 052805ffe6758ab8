/** Settings with a restart of every server that one waits on, the primary's by an exchange of roles. */
import type { ClusterNode } from '../src/cluster/model.js'
import type { SettingsChange } from '../src/cluster/settings-change.js'
import { isWitness } from '../src/cluster/topology.js'
import { OperationError } from '../src/operations/errors.js'
import { type Plan, stage } from '../src/operations/step.js'
import { SHARED_SETTINGS } from '../src/postgres/shared-settings.js'
import type { Bench } from './bench.js'
import { rollingEnds, rollingPlan } from './rolling.js'
import { targetOf } from './steps/hardware-settings.js'
import { restartIfNeeded } from './steps/restart-if-needed.js'
import { settingState, writeSettings } from './steps/settings.js'
import { proveSettings } from './steps/settings-proof.js'

/** Thrown when the primary has to be restarted in place: with less than it has, no standby starts, and so none could take over. */
class PrimaryMustGoFirst extends OperationError {
  constructor(cluster: string, primary: string, lowered: readonly string[]) {
    super(
      `A standby must not have less of ${lowered.join(', ')} than its primary, so ${primary} has to be restarted with less before any standby is.`,
      {
        code: 'primary-must-go-first',
        outcome: 'not_started',
        remedy: `Ask with {"restart":"when-needed"} (PATCH /v1/clusters/${cluster}/settings): the primary is then restarted where it is. Or leave that setting as it is.`,
      },
    )
  }
}

/**
 * What is raised of the shared settings is so on each standby before one of them takes over, and the old primary comes back
 * with as much. What is lowered is refused: that begins with the primary.
 */
export function rollingSettings(bench: Bench, input: SettingsChange): Plan {
  const ends = rollingEnds(bench, {})
  const { from, phase } = ends
  if (phase === 'standbys') refuseLowered(bench, from)
  const present = bench.cluster.nodes.filter(({ name }) => !bench.absent.has(name))
  return [
    ...rollingPlan(
      bench,
      ends,
      {
        name: 'settings of',
        renew: node => [
          writeSettings(bench, node),
          restartIfNeeded(bench, node, isWitness(node) ? {} : { upstream: from }),
        ],
        beforeTurn: primary => [writeSettings(bench, primary, { afterRestart: true })],
        async isDone(primary, { signal }) {
          const { pending } = await settingState(bench, primary, signal)
          return pending.length === 0
            ? { done: true, note: 'no setting waits for a restart' }
            : { done: false, reason: `${pending.join(', ')} ${pending.length === 1 ? 'waits' : 'wait'} for a restart` }
        },
      },
      {},
    ),
    stage('prove it', [proveSettings(bench, present, input)]),
  ]
}

function refuseLowered(bench: Bench, primary: ClusterNode): void {
  const target = targetOf(bench)
  const { inForce } = bench.found(primary).server
  const lowered = SHARED_SETTINGS.filter(name => target[name] < (inForce[name] ?? 0))
  if (lowered.length > 0) throw new PrimaryMustGoFirst(bench.cluster.name, primary.name, lowered)
}
