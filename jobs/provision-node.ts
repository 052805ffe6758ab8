import { stage } from '../src/operations/step.js'
import { defineOperation } from './define-operation.js'
import { refuseForeign } from './find-primary.js'
import { nodeNamed } from './refusals.js'
import { refuseWrongSettings } from './refuse-settings.js'
import { nodeSshStages } from './steps/node-ssh.js'
import { preflight } from './steps/preflight.js'
import { prepareHost } from './steps/prepare-host.js'
import { refuseUnusableCertificates } from './steps/tls-files.js'

/** From a bare host to a configured server that has never been started. */
export const provisionNode = defineOperation({
  type: 'provision-node',
  target: cluster => cluster,
  mayBeAbsent: (node, input) => node.name !== input.node,
  async refuse(bench, { node }, signal) {
    await refuseWrongSettings(bench, signal, [nodeNamed(bench, node)])
    await refuseUnusableCertificates(bench, signal, [nodeNamed(bench, node)])
  },
  plan(bench, input) {
    const node = nodeNamed(bench, input.node)
    refuseForeign(bench, node, bench.found(node).server)
    return [
      stage('look first', [preflight(bench, [node])]),
      stage('prepare the host', prepareHost(bench, node)),
      ...nodeSshStages(bench, node),
    ]
  },
  complete: async () => undefined,
})
