import type { ClusterNode } from '../src/cluster/model.js'
import { isWitness, upstreamOf } from '../src/cluster/topology.js'
import { stage } from '../src/operations/step.js'
import type { Bench } from './bench.js'
import { defineOperation } from './define-operation.js'
import { findPrimary, isInUse, NotAStandby } from './find-primary.js'
import {
  ConfirmationRequired,
  callsUntilRegistered,
  isStandby,
  NodeIsPrimary,
  NodeIsWitness,
  nodeNamed,
  refuseUnprovisioned,
  StepOutOfOrder,
} from './refusals.js'
import { giveUpCopy, onceEmptied } from './steps/give-up-copy.js'
import { onceRegistered } from './steps/order.js'
import { preflight } from './steps/preflight.js'
import { readyForRepmgr } from './steps/ready-for-repmgr.js'
import { clone } from './steps/standby.js'
import { proveStopped, stopServer } from './steps/stop.js'

/** A copy of the primary, ready to be started as its standby. What is somebody's is emptied only where confirmed. */
export const cloneNode = defineOperation({
  type: 'clone-node',
  target: cluster => cluster,
  mayBeAbsent: (node, input) => node.name !== input.node,
  plan(bench, input) {
    const node = nodeNamed(bench, input.node)
    const primary = findPrimary(bench)
    if (isWitness(node)) throw new NodeIsWitness(node.name)
    if (node === primary) throw new NodeIsPrimary(node.name, 'cloned onto')
    refuseUnprovisioned(bench, node)
    refuseIdlePrimary(bench, primary)
    const { server } = bench.found(node)
    const upstream = upstreamOf(node, bench.cluster.nodes, primary)
    const copy = onceRegistered(bench, primary, clone(bench, node, primary))
    // A whole copy that nobody has started is what this call makes: there is nothing to replace.
    if (!isInUse(server) || !server.everStarted)
      return [
        stage('look first', [preflight(bench, [node], { upstream })]),
        stage('clone', [...readyForRepmgr(bench, node), copy]),
      ]
    if (!isStandby(server)) throw new NotAStandby(node.name, 'it may hold what the primary does not.')
    if (input.confirm !== node.name) {
      throw new ConfirmationRequired(
        `${node.name} is a standby that ${server.running ? 'runs' : 'was used'}: a new clone replaces its copy, which takes as long as the database is large.`,
        node.name,
      )
    }
    return [
      stage('look first', [preflight(bench, [node], { upstream, oldCopy: async () => 'emptied' })]),
      stage('give up the copy that it has', [
        ...readyForRepmgr(bench, node),
        stopServer(bench, node),
        proveStopped(bench, node),
        giveUpCopy(bench, node, primary),
      ]),
      stage('clone', [onceEmptied(bench, node, copy)]),
    ]
  },
  complete: async () => undefined,
})

function refuseIdlePrimary(bench: Bench, primary: ClusterNode): void {
  const { server } = bench.found(primary)
  if (isInUse(server) && server.running) return
  throw new StepOutOfOrder(
    `${primary.name}, the primary, does not run: there is nothing to clone.`,
    callsUntilRegistered(bench, primary),
  )
}
