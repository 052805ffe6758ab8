import { stage } from '../src/operations/step.js'
import { defineOperation } from './define-operation.js'
import { refuseForeign } from './find-primary.js'
import { nodeNamed } from './refusals.js'
import { refuseWrongSettings } from './refuse-settings.js'
import { nodeSshStages } from './steps/node-ssh.js'
import { prepareHost } from './steps/prepare-host.js'

/** From a bare host to a configured server that has never been started. */
export const provisionNode = defineOperation({
  type: 'provision-node',
  target: cluster => cluster,
  mayBeAbsent: (node, input) => node.name !== input.node,
  refuse: (bench, { node }, signal) => refuseWrongSettings(bench, signal, [nodeNamed(bench, node)]),
  plan(bench, input) {
    const node = nodeNamed(bench, input.node)
    refuseForeign(bench, node, bench.found(node).server)
    return [stage('prepare the host', prepareHost(bench, node)), ...nodeSshStages(bench, node)]
  },
  complete: async () => undefined,
})
