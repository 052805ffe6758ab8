import { stage } from '../src/operations/step.js'
import { defineOperation } from './define-operation.js'
import { findPrimary } from './find-primary.js'
import { NodeIsPrimary, nodeNamed, refuseStopped } from './refusals.js'
import { readyForRepmgr } from './steps/ready-for-repmgr.js'
import { unregister } from './steps/unregister.js'

/** repmgr's metadata forget a standby; its server goes on as it was. */
export const unregisterNode = defineOperation({
  type: 'unregister-node',
  target: cluster => cluster,
  // It is asked of the primary: a dead node can be unregistered too.
  mayBeAbsent: () => true,
  plan(bench, input) {
    const node = nodeNamed(bench, input.node)
    const primary = findPrimary(bench)
    if (node === primary) throw new NodeIsPrimary(node.name, 'unregistered')
    refuseStopped(bench, primary)
    return [stage('unregister from repmgr', [...readyForRepmgr(bench, primary), unregister(bench, node, primary)])]
  },
  complete: async () => undefined,
})
