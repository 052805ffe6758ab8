import { dataNodes, upstreamOf, witnesses } from '../src/cluster/topology.js'
import { stage } from '../src/operations/step.js'
import { defineOperation } from './define-operation.js'
import {
  canDoWithout,
  enterNode,
  joiningNode,
  letItIn,
  membersBeside,
  runningPrimary,
  withNode,
} from './joining-node.js'
import { recordMembers } from './record-members.js'
import { refuseWrongSettings } from './refuse-settings.js'
import { tellOfAbsent } from './steps/absent.js'
import { archiveMembersStages } from './steps/archive.js'
import { proveArchive } from './steps/archive-proof.js'
import { nodeSshStages, proveNodeSsh } from './steps/node-ssh.js'
import { preflight } from './steps/preflight.js'
import { proveReplication } from './steps/proof.js'
import { readyForRepmgr } from './steps/ready-for-repmgr.js'
import { makeStandby } from './steps/standby.js'
import { refuseUnusableCertificates } from './steps/tls-files.js'
import { refuseIdleUpstream } from './steps/upstream.js'
import { informWitness } from './steps/witness.js'

/** A bare host becomes one more standby of a running cluster. */
export const addStandby = defineOperation({
  type: 'add-standby',
  target: withNode,
  mayBeAbsent: canDoWithout,
  async refuse(bench, input, signal) {
    await refuseWrongSettings(bench, signal, [joiningNode(bench, input)])
    await refuseUnusableCertificates(bench, signal, [joiningNode(bench, input)])
  },
  plan(bench, input) {
    const primary = runningPrimary(bench)
    const joining = joiningNode(bench, input)
    refuseIdleUpstream(bench, joining, upstreamOf(joining, bench.cluster.nodes, primary))
    const members = membersBeside(bench, joining)
    const witness = witnesses(members)
    return [
      stage('look first', [preflight(bench, [joining])]),
      letItIn(bench, joining),
      ...nodeSshStages(bench),
      ...archiveMembersStages(bench, dataNodes(members)),
      stage('make the standby', makeStandby(bench, joining, primary)),
      ...(witness.length > 0
        ? [
            stage(
              'let the witness know',
              ...witness.map(node => [...readyForRepmgr(bench, node), informWitness(bench, node, primary)]),
            ),
          ]
        : []),
      stage('prove it', [
        ...tellOfAbsent(bench),
        proveReplication(bench, primary, [joining]),
        ...proveNodeSsh(bench),
        ...proveArchive(bench, primary, [joining]),
      ]),
    ]
  },
  begin: enterNode,
  complete: (store, bench, input) => recordMembers(store, bench, [joiningNode(bench, input)]),
})
