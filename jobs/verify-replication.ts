import { dataNodes } from '../src/cluster/topology.js'
import { stage } from '../src/operations/step.js'
import { defineOperation } from './define-operation.js'
import { findPrimary } from './find-primary.js'
import { proveReplication } from './steps/proof.js'

/** What is written on the primary is read on every standby, and every standby refuses to be written to. */
export const verifyReplication = defineOperation({
  type: 'verify-replication',
  surveys: 'servers',
  target: cluster => cluster,
  // A standby that does not answer is no standby that has it.
  mayBeAbsent: () => false,
  plan(bench) {
    const primary = findPrimary(bench)
    const standbys = dataNodes(bench.cluster.nodes).filter(node => node !== primary)
    return [stage('prove it', [proveReplication(bench, primary, standbys)])]
  },
  complete: async () => undefined,
})
