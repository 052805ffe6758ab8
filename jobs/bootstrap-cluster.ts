import type { ClusterNode } from '../src/cluster/model.js'
import { standbysByDepth, upstreamOf, witnesses } from '../src/cluster/topology.js'
import { type Plan, stage } from '../src/operations/step.js'
import type { Bench } from './bench.js'
import { defineOperation } from './define-operation.js'
import { findPrimary } from './find-primary.js'
import { recordMembers } from './record-members.js'
import { refuseWrongSettings } from './refuse-settings.js'
import { refuseTakenDirectory } from './steps/archive-directory.js'
import { proveArchive } from './steps/archive-proof.js'
import { archiveRemovalStages } from './steps/archive-removal.js'
import { dropFormerSlots } from './steps/move-stream.js'
import { nodeSshStages, proveNodeSsh } from './steps/node-ssh.js'
import { preflight } from './steps/preflight.js'
import { prepareHost } from './steps/prepare-host.js'
import { startPrimary } from './steps/primary.js'
import { proveReplication } from './steps/proof.js'
import { makeStandby } from './steps/standby.js'
import { refuseUnusableCertificates } from './steps/tls-files.js'
import { makeWitness } from './steps/witness.js'

/**
 * Everything that a described cluster needs, in order, wherever it stands: a check before each step finds what is done.
 * Of nodes that do not answer, and of standbys of such nodes, there is nothing in it.
 */
export function planCluster(bench: Bench): Plan {
  const primary = findPrimary(bench)
  const { nodes } = bench.cluster
  const answers = ({ name }: ClusterNode) => !bench.absent.has(name)
  const levels = standbysByDepth(nodes, primary)
    .map(level => level.filter(node => answers(node) && answers(upstreamOf(node, nodes, primary))))
    .filter(level => level.length > 0)
  const witness = witnesses(nodes).filter(answers)
  return [
    stage('look first', [preflight(bench, nodes.filter(answers))]),
    stage('prepare the hosts', ...nodes.filter(answers).map(node => prepareHost(bench, node))),
    ...nodeSshStages(bench),
    stage('start the primary', startPrimary(bench, primary)),
    ...levels.map((standbys, depth) =>
      stage(
        depth === 0 ? 'make the standbys' : `make the standbys of standbys${depth === 1 ? '' : `, level ${depth}`}`,
        ...standbys.map(node => makeStandby(bench, node, primary)),
      ),
    ),
    // Once all of them run: any of them may have been the upstream of another.
    ...(levels.length > 0
      ? [stage('forget former streams', ...levels.flat().map(node => [dropFormerSlots(bench, node, primary)]))]
      : []),
    // Last, for it copies the metadata of all that were registered before it.
    ...(witness.length > 0
      ? [stage('make the witness', ...witness.map(node => makeWitness(bench, node, primary)))]
      : []),
    ...archiveRemovalStages(bench),
    stage('prove it', [
      proveReplication(bench, primary, levels.flat()),
      ...proveNodeSsh(bench),
      ...proveArchive(bench, primary, levels.flat()),
    ]),
  ]
}

/** Bare hosts become a running cluster; what is done already is not done again. */
export const bootstrapCluster = defineOperation({
  type: 'bootstrap-cluster',
  target: cluster => cluster,
  mayBeAbsent: () => false,
  async refuse(bench, _input, signal) {
    await refuseWrongSettings(bench, signal)
    await refuseTakenDirectory(bench, signal)
    await refuseUnusableCertificates(bench, signal)
  },
  plan: planCluster,
  complete: (store, bench) => recordMembers(store, bench, bench.cluster.nodes),
})
