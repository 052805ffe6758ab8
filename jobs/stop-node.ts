import { isWitness } from '../src/cluster/topology.js'
import { stage } from '../src/operations/step.js'
import { defineOperation } from './define-operation.js'
import { refuseForeign } from './find-primary.js'
import { ConfirmationRequired, mayAcceptWrites, nodeNamed, refuseUnprovisioned } from './refusals.js'
import { holdStopped, proveStopped, stopServer } from './steps/stop.js'

/** A server ends in PostgreSQL's mode "fast": transactions are rolled back, nothing is lost. It stays stopped. */
export const stopNode = defineOperation({
  type: 'stop-node',
  surveys: 'servers',
  target: cluster => cluster,
  mayBeAbsent: (node, input) => node.name !== input.node,
  holdsRepmgrd: () => ({}),
  plan(bench, input) {
    const node = nodeNamed(bench, input.node)
    const { server } = bench.found(node)
    refuseForeign(bench, node, server)
    refuseUnprovisioned(bench, node)
    if (mayAcceptWrites(server) && !isWitness(node) && input.confirm !== node.name) {
      throw new ConfirmationRequired(
        `${node.name} is the primary: without it nobody can write, and no standby takes over by itself.`,
        node.name,
      )
    }
    return [stage('stop the server', [holdStopped(bench, node), stopServer(bench, node), proveStopped(bench, node)])]
  },
  complete: async () => undefined,
})
