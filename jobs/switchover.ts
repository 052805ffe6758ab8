import type { Handover } from '../src/cluster/handover.js'
import type { ClusterNode } from '../src/cluster/model.js'
import type { SwitchoverInput } from '../src/cluster/operation-inputs.js'
import { successorOf, verdicts } from '../src/cluster/successor.js'
import { dataNodes, upstreamOf, witnesses } from '../src/cluster/topology.js'
import { OperationError } from '../src/operations/errors.js'
import { stage } from '../src/operations/step.js'
import type { Bench } from './bench.js'
import { defineOperation } from './define-operation.js'
import { findPrimary, isInUse } from './find-primary.js'
import { nodeNamed } from './refusals.js'
import { tellOfAbsent } from './steps/absent.js'
import { exchangeRoles } from './steps/exchange-roles.js'
import { startServer } from './steps/primary.js'
import { proveReplication } from './steps/proof.js'
import { recordRoles } from './steps/roles-record.js'
import { dropSlot } from './steps/slot.js'
import { follow } from './steps/standby.js'
import { streamFrom } from './steps/stream-source.js'
import { readyForSwitchover } from './steps/switchover-ready.js'
import { makeSlot } from './steps/upstream-slot.js'
import { informWitness } from './steps/witness.js'

export const SWITCHOVER_DEFAULTS = {
  deadlineMs: 30_000,
  maxTransactionAgeMs: 60_000,
  maxLagBytes: 16 * 1024 * 1024,
} as const

/** Thrown when no standby, or not the one that was named, can take over. */
class NoSuccessor extends OperationError {
  constructor(why: string, remedy: string) {
    super(why, { code: 'no-successor', outcome: 'not_started', remedy })
  }
}

/** As for a start: a standby replays before it answers. */
const START_MS = 24 * 3_600_000

/** The one that was the primary when it began, and the one that is to be it: also when it is taken up half-way. */
function endsOf(bench: Bench, { to }: SwitchoverInput): { from: ClusterNode; to: ClusterNode } {
  const { cluster } = bench
  const begun = cluster.handover
  if (begun !== undefined && begun.operation === bench.operationId)
    return { from: nodeNamed(bench, begun.from), to: nodeNamed(bench, begun.to) }
  const from = findPrimary(bench)
  const { server } = bench.found(from)
  if (!isInUse(server) || server.inRecovery !== false) {
    throw new NoSuccessor(
      `${from.name}, the primary of ${cluster.name}, does not run.`,
      `Start it (POST /v1/clusters/${cluster.name}/nodes/${from.name}/start): roles are exchanged between servers that live.`,
    )
  }
  const seen = verdicts(cluster.nodes, from, node => {
    const away = bench.absent.get(node.name)
    return { away, standby: away === undefined && bench.found(node).server.inRecovery === true }
  })
  if (to === from.name) throw new NoSuccessor(`${to} is the primary already.`, 'Name one of the standbys, or nobody.')
  if (to !== undefined) {
    const node = nodeNamed(bench, to)
    // A priority says who is to be taken where nobody is named.
    const unfit = seen.find(verdict => verdict.node === to)?.unfit
    if (unfit === undefined || /^has priority 0/.test(unfit)) return { from, to: node }
    throw new NoSuccessor(`${to} ${unfit}.`, 'Name another standby, or put that right first.')
  }
  const chosen = successorOf(cluster.nodes, seen)
  if (chosen) return { from, to: chosen }
  throw new NoSuccessor(
    seen.length === 0
      ? `${cluster.name} has no standby.`
      : `No standby of ${cluster.name} can take over: ${seen.map(({ node, unfit }) => `${node} ${unfit}`).join('; ')}.`,
    `Add a standby (POST /v1/clusters/${cluster.name}/nodes), or put one of them right first.`,
  )
}

/** The primary and a standby exchange their roles while both live; no commit is lost, and writes are refused for a moment. */
export const switchover = defineOperation({
  type: 'switchover',
  target: cluster => cluster,
  // A standby that is away is no reason to keep the primary; the two that exchange their roles are looked at in the plan.
  mayBeAbsent: () => true,
  plan(bench, input) {
    const { from, to } = endsOf(bench, input)
    for (const node of [from, to]) {
      const reason = bench.absent.get(node.name)
      if (reason !== undefined)
        throw new NoSuccessor(`${node.name} does not answer: ${reason}`, `Bring ${node.name} back, then retry.`)
    }
    const { nodes } = bench.cluster
    const limits = { ...SWITCHOVER_DEFAULTS, ...input }
    const others = dataNodes(nodes).filter(node => node !== to && !bench.absent.has(node.name))
    const before = (node: ClusterNode) => (node === from ? undefined : upstreamOf(node, nodes, from))
    const after = (node: ClusterNode) => upstreamOf(node, nodes, to)
    // A cascading standby below one that stays where it is does not notice.
    const moved = others.filter(node => before(node) !== after(node))
    const siblings = moved.filter(node => node !== from)
    const left = [to, ...siblings].filter(node => before(node) === from)
    return [
      stage('look first', [readyForSwitchover(bench, from, to, limits)]),
      stage('prepare the new order', ...moved.map(node => [makeSlot(bench, after(node), node)]), [
        streamFrom(bench, from, after(from)),
      ]),
      stage('exchange the roles', [exchangeRoles(bench, from, to, limits.deadlineMs)]),
      stage(
        'bring the others behind it',
        [startServer(bench, from, START_MS), follow(bench, from, to)],
        ...siblings.map(node => [streamFrom(bench, node, after(node)), follow(bench, node, to)]),
      ),
      stage(
        'write it down',
        [
          recordRoles(bench, to, others, {
            name: 'standby_switchover',
            details: `node ${to.nodeId} is the primary, node ${from.nodeId} its standby (Understudy)`,
          }),
          ...witnesses(nodes)
            .filter(({ name }) => !bench.absent.has(name))
            .map(node => informWitness(bench, node, to)),
        ],
        // What nobody streams from any more would keep WAL for ever.
        ...left.map(node => [dropSlot(bench, from, node)]),
      ),
      stage('prove it', [proveReplication(bench, to, others)], tellOfAbsent(bench)),
    ]
  },
  async begin(store, bench, input) {
    const { operationId } = bench
    if (operationId === undefined) return
    const { from, to } = endsOf(bench, input)
    const handover: Handover = { operation: operationId, from: from.name, to: to.name }
    await store.clusters.update(bench.cluster.name, cluster => ({ ...cluster, handover }))
  },
  async complete(store, bench) {
    await store.clusters.update(bench.cluster.name, ({ handover: _done, ...cluster }) => cluster)
  },
})
