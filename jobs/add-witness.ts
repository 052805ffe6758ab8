import { stage } from '../src/operations/step.js'
import { defineOperation } from './define-operation.js'
import { canDoWithout, enterNode, joiningNode, letItIn, runningPrimary, withNode } from './joining-node.js'
import { recordMembers } from './record-members.js'
import { tellOfAbsent } from './steps/absent.js'
import { preflight } from './steps/preflight.js'
import { refuseUnusableCertificates } from './steps/tls-files.js'
import { makeWitness } from './steps/witness.js'

/** A bare host becomes the witness of a running cluster. */
export const addWitness = defineOperation({
  type: 'add-witness',
  target: withNode,
  mayBeAbsent: canDoWithout,
  refuse: (bench, input, signal) => refuseUnusableCertificates(bench, signal, [joiningNode(bench, input)]),
  plan(bench, input) {
    const primary = runningPrimary(bench)
    const joining = joiningNode(bench, input)
    return [
      stage('look first', [preflight(bench, [joining])]),
      letItIn(bench, joining),
      stage('make the witness', [...makeWitness(bench, joining, primary), ...tellOfAbsent(bench)]),
    ]
  },
  begin: enterNode,
  complete: (store, bench, input) => recordMembers(store, bench, [joiningNode(bench, input)]),
})
