import { isWitness } from '../src/cluster/topology.js'
import { stage } from '../src/operations/step.js'
import { defineOperation } from './define-operation.js'
import { findPrimary } from './find-primary.js'
import { recordMembers } from './record-members.js'
import { nodeNamed, refuseStopped, refuseUnprovisioned } from './refusals.js'
import { onceRegistered, onceStarted } from './steps/order.js'
import { registerPrimaryNode } from './steps/primary.js'
import { readyForRepmgr } from './steps/ready-for-repmgr.js'
import { follow, registerStandbyNode } from './steps/standby.js'
import { informWitness } from './steps/witness.js'

/** repmgr's metadata get to know a running node: the primary first, then each standby that streams. */
export const registerNode = defineOperation({
  type: 'register-node',
  target: cluster => cluster,
  mayBeAbsent: (node, input) => node.name !== input.node,
  plan(bench, input) {
    const node = nodeNamed(bench, input.node)
    const primary = findPrimary(bench)
    for (const one of [primary, node]) {
      refuseUnprovisioned(bench, one)
      refuseStopped(bench, one)
    }
    return [
      stage('register with repmgr', [
        ...readyForRepmgr(bench, node),
        ...(isWitness(node)
          ? [onceRegistered(bench, primary, informWitness(bench, node, primary))]
          : node === primary
            ? [onceStarted(bench, primary, registerPrimaryNode(bench, node))]
            : [
                onceRegistered(bench, primary, follow(bench, node, primary)),
                registerStandbyNode(bench, node, primary),
              ]),
      ]),
    ]
  },
  complete: (store, bench, input) => recordMembers(store, bench, [nodeNamed(bench, input.node)]),
})
