import { isWitness } from '../src/cluster/topology.js'
import { stage } from '../src/operations/step.js'
import { defineOperation } from './define-operation.js'
import { refuseForeign } from './find-primary.js'
import {
  ConfirmationRequired,
  isStandby,
  mayAcceptWrites,
  nodeNamed,
  refuseStopped,
  refuseUnprovisioned,
  runningPrimary,
} from './refusals.js'
import { restartServer } from './steps/restart.js'
import { follow } from './steps/standby.js'

/** A running server is stopped (fast) and started again. */
export const restartNode = defineOperation({
  type: 'restart-node',
  surveys: 'servers',
  target: cluster => cluster,
  mayBeAbsent: (node, input) => node.name !== input.node,
  holdsRepmgrd: () => ({}),
  plan(bench, input) {
    const node = nodeNamed(bench, input.node)
    const { server } = bench.found(node)
    refuseForeign(bench, node, server)
    refuseUnprovisioned(bench, node)
    refuseStopped(bench, node)
    if (mayAcceptWrites(server) && !isWitness(node) && input.confirm !== node.name) {
      throw new ConfirmationRequired(
        `${node.name} is the primary: connections are cut, and nobody can write until it is back.`,
        node.name,
      )
    }
    const primary = isStandby(server) ? runningPrimary(bench) : undefined
    return [
      stage('restart the server', [
        restartServer(bench, node, isStandby(server)),
        ...(primary ? [follow(bench, node, primary)] : []),
      ]),
    ]
  },
  complete: async () => undefined,
})
