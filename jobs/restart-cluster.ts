import type { ClusterNode } from '../src/cluster/model.js'
import { isWitness } from '../src/cluster/topology.js'
import type { Bench } from './bench.js'
import { defineOperation } from './define-operation.js'
import {
  beginRolling,
  completeRolling,
  failedRolling,
  inPlacePlan,
  isAlone,
  type RollingWork,
  rollingEnds,
  rollingPlan,
} from './rolling.js'
import { restartServer } from './steps/restart.js'
import { restartIfNeeded } from './steps/restart-if-needed.js'
import { settingState } from './steps/settings.js'

/** Every server is started again, and writes are refused only for the moment of an exchange of roles. */
export const restartCluster = defineOperation({
  type: 'restart-cluster',
  target: cluster => cluster,
  // Looked at in the plan: once roles are exchanged, a standby that is away must not keep that from being finished.
  mayBeAbsent: () => true,
  holdsRepmgrd: () => ({}),
  plan(bench, input) {
    const { onlyPending = false, ...asked } = input
    if (isAlone(bench)) return inPlacePlan(bench, workOf(bench, onlyPending), asked)
    const ends = rollingEnds(bench, asked)
    return rollingPlan(bench, ends, workOf(bench, onlyPending, ends.from), asked)
  },
  async begin(store, bench, input) {
    if (!isAlone(bench)) await beginRolling(store, bench, rollingEnds(bench, input))
  },
  complete: completeRolling,
  failed: failedRolling,
})

function workOf(bench: Bench, onlyPending: boolean, primary?: ClusterNode): RollingWork {
  const restart = (node: ClusterNode) => {
    const standby = primary !== undefined && !isWitness(node)
    if (!onlyPending) return restartServer(bench, node, standby)
    return restartIfNeeded(bench, node, standby ? { upstream: primary } : {})
  }
  return {
    name: 'restart',
    renew: node => [restart(node)],
    async isDone(node, context) {
      if (!onlyPending) return restartServer(bench, node, false).check(context)
      const { pending } = await settingState(bench, node, context.signal)
      return pending.length === 0
        ? { done: true, note: 'no setting waits for a restart' }
        : { done: false, reason: `${pending.join(', ')} ${pending.length === 1 ? 'waits' : 'wait'} for a restart` }
    },
  }
}
