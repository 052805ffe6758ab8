import type { ClusterNode } from '../src/cluster/model.js'
import { isWitness } from '../src/cluster/topology.js'
import { stage } from '../src/operations/step.js'
import type { Bench } from './bench.js'
import { defineOperation } from './define-operation.js'
import { findPrimary, isInUse, NotAStandby, refuseForeign } from './find-primary.js'
import { recordIdentifier } from './record-members.js'
import {
  ConfirmationRequired,
  callFor,
  callsUntilRegistered,
  isStandby,
  nodeNamed,
  refuseUnprovisioned,
  runningPrimary,
  StepOutOfOrder,
} from './refusals.js'
import { startAlone } from './steps/primary.js'
import { startStandby } from './steps/standby.js'

/** A server that is stopped, or was never started, accepts connections. */
export const startNode = defineOperation({
  type: 'start-node',
  surveys: 'servers',
  target: cluster => cluster,
  mayBeAbsent: (node, input) => node.name !== input.node,
  holdsRepmgrd: () => ({}),
  plan(bench, input) {
    const node = nodeNamed(bench, input.node)
    const { server } = bench.found(node)
    refuseForeign(bench, node, server)
    refuseUnprovisioned(bench, node)
    if (isWitness(node)) return [stage('start the witness', startAlone(bench, node))]
    // A standby may always start: it accepts no writes, whoever the primary is.
    if (isStandby(server)) {
      refuseAnotherDatabase(bench, node)
      return [stage('start the standby', startStandby(bench, node, runningPrimary(bench)))]
    }
    refuseUnlessPrimary(bench, node, input.confirm)
    return [stage('start the primary', startAlone(bench, node))]
  },
  complete: (store, bench, input) => recordIdentifier(store, bench, nodeNamed(bench, input.node)),
})

function refuseAnotherDatabase({ cluster, found }: Bench, node: ClusterNode): void {
  const { systemIdentifier } = found(node).server
  if (cluster.systemIdentifier === undefined || systemIdentifier === cluster.systemIdentifier) return
  throw new NotAStandby(
    node.name,
    `it is another database cluster (${systemIdentifier ?? 'unreadable'}, not ${cluster.systemIdentifier}).`,
  )
}

function refuseUnlessPrimary(bench: Bench, node: ClusterNode, confirm: string | undefined): void {
  const { cluster, absent } = bench
  const missing = [...absent.keys()]
  const stopped = isInUse(bench.found(node).server) && !bench.found(node).server.running
  if (stopped && missing.length > 0 && runningPrimary(bench) === undefined && confirm !== node.name) {
    throw new ConfirmationRequired(
      `${missing.join(' and ')} does not answer. If it became the primary while ${node.name} was stopped, starting ${node.name} makes two.`,
      node.name,
    )
  }
  const answering = cluster.nodes.filter(({ name }) => !absent.has(name))
  const primary =
    confirm === node.name
      ? findPrimary({ ...bench, cluster: { ...cluster, nodes: answering }, absent: new Map() })
      : findPrimary(bench)
  if (primary === node) return
  const built = isInUse(bench.found(primary).server)
  throw new StepOutOfOrder(
    `${node.name} holds no copy of ${primary.name}, ${built ? 'the primary' : 'which is to be the primary'}.`,
    `${built ? '' : `${callsUntilRegistered(bench, primary)}, then `}${callFor(cluster, node, 'clone')}`,
  )
}
