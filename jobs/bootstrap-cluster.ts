import { stage } from '../src/operations/step.js'
import { defineOperation } from './define-operation.js'
import { findPrimary } from './find-primary.js'
import { recordMembers } from './record-members.js'
import { prepareHost } from './steps/prepare-host.js'
import { startPrimary } from './steps/primary.js'
import { proveReplication } from './steps/proof.js'
import { makeStandby } from './steps/standby.js'

/** Bare hosts become a running cluster; what is done already is not done again. */
export const bootstrapCluster = defineOperation({
  type: 'bootstrap-cluster',
  target: cluster => cluster,
  mayBeAbsent: () => false,
  plan(bench) {
    const primary = findPrimary(bench)
    const standbys = bench.cluster.nodes.filter(node => node !== primary)
    return [
      stage('prepare the hosts', ...bench.cluster.nodes.map(node => prepareHost(bench, node))),
      stage('start the primary', startPrimary(bench, primary)),
      ...(standbys.length > 0
        ? [stage('make the standbys', ...standbys.map(node => makeStandby(bench, node, primary)))]
        : []),
      stage('prove it', [proveReplication(bench, primary, standbys)]),
    ]
  },
  complete: (store, bench) => recordMembers(store, bench, bench.cluster.nodes),
})
