import type { ClusterNode } from '../src/cluster/model.js'
import { dataNodes, isWitness, witnesses } from '../src/cluster/topology.js'
import { OperationError } from '../src/operations/errors.js'
import { type Stage, stage } from '../src/operations/step.js'
import type { Bench } from './bench.js'
import { defineOperation } from './define-operation.js'
import { findPrimary, isInUse, NotAStandby, refuseOutdated } from './find-primary.js'
import {
  ConfirmationRequired,
  isStandby,
  mayAcceptWrites,
  NodeIsPrimary,
  refuseStopped,
  runningPrimary,
} from './refusals.js'
import { grantAccess, passFileStep } from './steps/access.js'
import { archiveMembersStages } from './steps/archive.js'
import { wipeArchive } from './steps/archive-wipe.js'
import { closeFirewall, openFirewall } from './steps/firewall.js'
import { keepAside, proveGone, tellWhatStays, tellWhoStillKnows } from './steps/let-go.js'
import { nodeSshStages } from './steps/node-ssh.js'
import { readyForRepmgr } from './steps/ready-for-repmgr.js'
import { dropSlot } from './steps/slot.js'
import { proveStopped, stopServer } from './steps/stop.js'
import { takeOver } from './steps/take-over.js'
import { NodeHasStandbys, unregister } from './steps/unregister.js'
import { identifierOf, isOfNode, refuseToWipe, removeTraces, wipeServer } from './steps/wipe.js'
import { informWitness } from './steps/witness.js'

/** Thrown when the last node was to be removed. */
class LastNode extends OperationError {
  constructor(cluster: string, node: string) {
    super(`${node} is the only node of ${cluster}.`, {
      code: 'last-node',
      outcome: 'not_started',
      remedy: `DELETE /v1/clusters/${cluster} forgets the cluster; with destroy=true its servers are wiped.`,
    })
  }
}

/** Thrown when a host that does not answer was to be wiped. */
class CannotWipe extends OperationError {
  constructor(node: string, reason: string) {
    super(`${node} does not answer, so it cannot be wiped: ${reason}`, {
      code: 'cannot-wipe',
      outcome: 'not_started',
      remedy:
        'Repeat the call without "wipe": it is taken out of the cluster, and what is on its host stays. Or bring the host back first.',
    })
  }
}

/** A standby leaves the cluster. Its host may be dead. Its data stay unless asked for. */
export const removeNode = defineOperation({
  type: 'remove-node',
  target: cluster => cluster,
  mayBeAbsent: () => true,
  plan(bench, { node: name, wipe = false, confirm }) {
    const node = bench.cluster.nodes.find(one => one.name === name)
    // An earlier turn has come to the very end.
    if (!node) return []
    const rest = without(bench, node)
    if (dataNodes(rest.cluster.nodes).length === 0) throw new LastNode(bench.cluster.name, name)
    refuseThePrimary(bench, rest, node)
    const below = rest.cluster.nodes.filter(({ upstream }) => upstream === name)
    if (below.length > 0)
      throw new NodeHasStandbys(
        name,
        below.map(one => one.name),
      )
    const primary = findPrimary(rest)
    const built = isInUse(bench.found(primary).server)
    if (built) refuseStopped(bench, primary)
    if (wipe) refuseWiping(bench, node, primary, confirm)
    const here = !bench.absent.has(name) && isOfNode(bench, node)
    // Without its mark it would not be wiped, and that would show when it has left the cluster.
    const marked = here && wipe ? takeOver(bench, node) : []
    return [
      ...(marked.length > 0 ? [stage('mark what was adopted', marked)] : []),
      ...(built ? leave(bench, rest, node, primary) : []),
      ...(here ? [stage('stop it', [stopServer(bench, node), proveStopped(bench, node)])] : []),
      ...(built ? forgetStream(bench, rest, node, primary) : []),
      // The node itself comes last: from the proof on nobody misses it.
      ...itself(bench, node, here, wipe),
    ]
  },
  async complete(store, { cluster }, { node }) {
    await store.clusters.update(cluster.name, current => ({
      ...current,
      // Its number is not given to another one: nextNodeId stays.
      nodes: current.nodes.filter(({ name }) => name !== node),
    }))
  },
})

/** The cluster as it will be. */
const without = (bench: Bench, node: ClusterNode): Bench => ({
  ...bench,
  cluster: { ...bench.cluster, nodes: bench.cluster.nodes.filter(one => one !== node) },
  absent: new Map([...bench.absent].filter(([name]) => name !== node.name)),
})

function refuseThePrimary(bench: Bench, rest: Bench, node: ClusterNode): void {
  if (bench.absent.has(node.name) || isWitness(node)) return
  const { server } = bench.found(node)
  const only = !isStandby(server) && runningPrimary(rest) === undefined
  if (isInUse(server) && (mayAcceptWrites(server) || only)) throw new NodeIsPrimary(node.name, 'removed')
}

function refuseWiping(bench: Bench, node: ClusterNode, primary: ClusterNode, confirm: string | undefined): void {
  const reason = bench.absent.get(node.name)
  if (reason !== undefined) throw new CannotWipe(node.name, reason)
  if (confirm !== node.name)
    throw new ConfirmationRequired(`Wiping removes the data of ${node.name} for good.`, node.name)
  refuseToWipe(bench, node)
  const { server } = bench.found(node)
  // One that was a primary itself may hold what no other has.
  if (isInUse(server) && server.marker?.state === 'in-use' && !isStandby(server) && !isWitness(node))
    throw new NotAStandby(node.name, 'it was a primary itself, and may hold what the others do not.')
  // What is half wiped already has nothing left to lose.
  if (isInUse(server) && server.marker?.state !== 'wiping' && !isWitness(node)) refuseOutdated(bench, primary, [node])
}

const membersOf = ({ cluster, absent, found }: Bench) =>
  cluster.nodes.filter(one => !absent.has(one.name) && isInUse(found(one).server))

/** What the others know of it, so that it cannot come in again. */
const leave = (bench: Bench, rest: Bench, node: ClusterNode, primary: ClusterNode): Stage[] => [
  stage('take it out of the cluster', [...readyForRepmgr(bench, primary), unregister(bench, node, primary)]),
  stage(
    'let it in no more',
    ...membersOf(rest).map(member => [
      grantAccess(rest, member),
      ...openFirewall(rest, member),
      passFileStep(rest, member),
    ]),
    ...[...rest.absent].map(([name, reason]) => [tellWhoStillKnows(name, reason, node)]),
  ),
  ...nodeSshStages(rest),
  ...archiveMembersStages(rest, dataNodes(membersOf(rest))),
  ...informStages(bench, rest, primary),
]

/** A witness has a copy of the metadata, which somebody has to bring it. */
function informStages(bench: Bench, rest: Bench, primary: ClusterNode): Stage[] {
  const running = witnesses(membersOf(rest)).filter(one => bench.found(one).server.running)
  if (running.length === 0) return []
  return [
    stage(
      'let the witness know',
      ...running.map(one => [...readyForRepmgr(rest, one), informWitness(rest, one, primary)]),
    ),
  ]
}

const forgetStream = (bench: Bench, rest: Bench, node: ClusterNode, primary: ClusterNode): Stage[] => [
  stage(
    'drop its slot',
    ...dataNodes(membersOf(rest))
      .filter(member => bench.found(member).server.running)
      .map(member => [dropSlot(bench, member, node)]),
  ),
  stage('prove it', [proveGone(bench, primary, node)]),
]

function itself(bench: Bench, node: ClusterNode, here: boolean, wipe: boolean): Stage[] {
  if (bench.absent.has(node.name)) return [stage('what stays', [tellWhatStays(bench, node)])]
  if (!wipe) return here ? [stage('keep its data', [keepAside(bench, node)])] : []
  const identifier = identifierOf(bench, node)
  return [
    stage('wipe it', [
      ...(here ? [...wipeArchive(bench, node, identifier), wipeServer(bench, node, identifier)] : []),
      ...closeFirewall(bench, node),
      removeTraces(bench, node),
    ]),
  ]
}
