import { compareDesired, type Difference, withDescription } from '../src/cluster/desired.js'
import { OperationError } from '../src/operations/errors.js'
import { planCluster } from './bootstrap-cluster.js'
import { defineOperation } from './define-operation.js'
import { recordMembers } from './record-members.js'
import { refuseWrongSettings } from './refuse-settings.js'
import { refuseTakenDirectory } from './steps/archive-directory.js'
import { refuseUnusableCertificates } from './steps/tls-files.js'

/** Thrown when a description asks for what cannot be changed in place, or leaves out a node. */
class Unchangeable extends OperationError {
  constructor(cluster: string, refused: readonly Difference[]) {
    super(
      `${cluster} cannot be made what was described: ${refused.map(({ pointer, detail }) => `${pointer} ${detail}`).join('; ')}.`,
      {
        code: 'unchangeable',
        outcome: 'not_started',
        remedy: 'Somebody changed the cluster since. Read it, bring the description up to date, then repeat the call.',
      },
    )
  }
}

/** A cluster becomes what its description says: what differs is changed, what is new is added, the rest is found done. */
export const applyCluster = defineOperation({
  type: 'apply-cluster',
  target(cluster, { description }) {
    // The record may have become another one since the call was checked, and a node must not drop out by that.
    const { refused } = compareDesired(description, cluster)
    if (refused.length > 0) throw new Unchangeable(cluster.name, refused)
    return withDescription(cluster, description)
  },
  mayBeAbsent: () => false,
  async refuse(bench, _input, signal) {
    await refuseWrongSettings(bench, signal)
    await refuseTakenDirectory(bench, signal)
    await refuseUnusableCertificates(bench, signal)
  },
  plan: planCluster,
  // Before the first step: what is half applied when something fails is what the next try has to finish.
  async begin(store, { cluster }, { description }) {
    await store.clusters.update(cluster.name, current => withDescription(current, description))
  },
  complete: (store, bench) => recordMembers(store, bench, bench.cluster.nodes),
})
