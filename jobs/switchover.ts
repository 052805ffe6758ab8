import type { Handover } from '../src/cluster/handover.js'
import type { ClusterNode } from '../src/cluster/model.js'
import type { SwitchoverInput } from '../src/cluster/operation-inputs.js'
import { successorOf, verdicts } from '../src/cluster/successor.js'
import { dataNodes, upstreamOf, witnesses } from '../src/cluster/topology.js'
import { OperationError } from '../src/operations/errors.js'
import { type Stage, type Step, stage } from '../src/operations/step.js'
import type { Bench } from './bench.js'
import { defineOperation } from './define-operation.js'
import { findPrimary, isInUse, PrimaryUnclear } from './find-primary.js'
import { forgetHandover, ownHandover } from './handover.js'
import { nodeNamed } from './refusals.js'
import { tellOfAbsent } from './steps/absent.js'
import { isDelayedLong } from './steps/delayed-proof.js'
import { exchangeRoles } from './steps/exchange-roles.js'
import { startServer } from './steps/primary.js'
import { clearPromotionMark } from './steps/promotion-mark.js'
import { proveReplication } from './steps/proof.js'
import { readyForRepmgr } from './steps/ready-for-repmgr.js'
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
  loseLogicalSlots: false,
} as const

/** Thrown when no standby, or not the one that was named, can take over. */
class NoSuccessor extends OperationError {
  constructor(why: string, remedy: string) {
    super(why, { code: 'no-successor', outcome: 'not_started', remedy })
  }
}

/** As for a start: a standby replays before it answers. */
const START_MS = 24 * 3_600_000

/**
 * Throws where somebody made another primary since it was begun: by hand, while a host was away. What is left of a
 * switchover must then not be finished, nor taken back.
 */
export function refuseOvertaken(
  bench: Pick<Bench, 'cluster' | 'absent' | 'found'>,
  from: ClusterNode,
  to: ClusterNode,
): void {
  const present = dataNodes(bench.cluster.nodes).filter(({ name }) => !bench.absent.has(name))
  const server = (node: ClusterNode) => bench.found(node).server
  const writing = present.filter(node => isInUse(server(node)) && server(node).inRecovery === false)
  const timeline = (node: ClusterNode) => (bench.absent.has(node.name) ? 0 : (server(node).timeline ?? 0))
  // Of an exchange that is through, the new primary's is the newest; of one that is not, nobody has a newer one.
  const known = Math.max(timeline(from), timeline(to))
  const third = writing.find(node => node !== from && node !== to)
  const newer = present.find(node => node !== from && node !== to && timeline(node) > known)
  const both = writing.includes(from) && writing.includes(to)
  if (!third && !newer && !both) return
  const why = third
    ? `${third.name} accepts writes`
    : both
      ? `${from.name} and ${to.name} both accept writes`
      : `${newer?.name} has seen timeline ${timeline(newer as ClusterNode)}`
  throw new PrimaryUnclear(
    `A switchover from ${from.name} to ${to.name} was begun, and meanwhile somebody made another primary: ${why}.`,
    `Keep ${from.name} stopped unless it is the right one, and bring the others back as standbys of the right one by hand. Nothing was changed.`,
  )
}

/** What a switchover takes, and what is a reason not to begin. */
export type SwitchoverLimits = Omit<SwitchoverInput, 'to'>

/** The two ends of a switchover that is to begin: the primary, and the standby that takes over. */
export function endsToBe(bench: Bench, to: string | undefined): { from: ClusterNode; to: ClusterNode } {
  const { cluster } = bench
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

/** The one that was the primary when it began, and the one that is to be it: also when it is taken up half-way. */
function endsOf(bench: Bench, { to }: SwitchoverInput): { from: ClusterNode; to: ClusterNode } {
  const begun = ownHandover(bench)
  if (!begun) return endsToBe(bench, to)
  const ends = { from: nodeNamed(bench, begun.from), to: nodeNamed(bench, begun.to) }
  refuseOvertaken(bench, ends.from, ends.to)
  return ends
}

/**
 * The stages of an exchange of roles, wherever it stands in a plan. Made from its two ends alone, never from who is the
 * primary as they are made: that is another one half-way. `whileStopped`: what is done to the old primary between its stop
 * and its start. `suffix` goes after the id of each step, for a plan that has two exchanges.
 */
export function exchangeStages(
  bench: Bench,
  from: ClusterNode,
  to: ClusterNode,
  asked: SwitchoverLimits,
  { whileStopped = [], suffix = '' }: { whileStopped?: readonly Step[]; suffix?: string } = {},
): Stage[] {
  for (const node of [from, to]) {
    const reason = bench.absent.get(node.name)
    if (reason !== undefined)
      throw new NoSuccessor(`${node.name} does not answer: ${reason}`, `Bring ${node.name} back, then retry.`)
  }
  const { nodes } = bench.cluster
  const limits = { ...SWITCHOVER_DEFAULTS, ...asked }
  const others = dataNodes(nodes).filter(node => node !== to && !bench.absent.has(node.name))
  const before = (node: ClusterNode) => (node === from ? undefined : upstreamOf(node, nodes, from))
  const after = (node: ClusterNode) => upstreamOf(node, nodes, to)
  // A cascading standby below one that stays where it is does not notice.
  const moved = others.filter(node => before(node) !== after(node))
  const siblings = moved.filter(node => node !== from)
  // One that is held back opens a stream only once it has applied what it has: it is told, and not waited for.
  const waited = siblings.filter(node => !isDelayedLong(node))
  const left = [to, ...waited].filter(node => before(node) === from)
  const stages = [
    stage('look first', [readyForSwitchover(bench, from, to, limits)]),
    stage('prepare the new order', ...moved.map(node => [makeSlot(bench, after(node), node)]), [
      streamFrom(bench, from, after(from)),
    ]),
    stage('exchange the roles', [exchangeRoles(bench, from, to, limits.deadlineMs)]),
    stage(
      'bring the others behind it',
      [...whileStopped, startServer(bench, from, START_MS), follow(bench, from, to)],
      ...siblings.map(node => [streamFrom(bench, node, after(node))]),
    ),
    stage('write it down', [
      recordRoles(bench, to, others, {
        name: 'standby_switchover',
        details: `node ${to.nodeId} is the primary, node ${from.nodeId} its standby (Understudy)`,
      }),
      ...witnesses(nodes)
        .filter(({ name }) => !bench.absent.has(name))
        .flatMap(node => [...readyForRepmgr(bench, node), informWitness(bench, node, to)]),
    ]),
    ...(waited.length > 0 ? [stage('wait for the others', ...waited.map(node => [follow(bench, node, to)]))] : []),
    // What nobody streams from any more would keep WAL for ever.
    stage('clear away', [clearPromotionMark(bench, to)], ...left.map(node => [dropSlot(bench, from, node)])),
    stage(
      'prove it',
      [
        proveReplication(
          bench,
          to,
          others.filter(node => node === from || !isDelayedLong(node)),
        ),
      ],
      tellOfAbsent(bench),
    ),
  ]
  return stages.map(({ title, tracks }) =>
    stage(title, ...tracks.map(track => track.map(step => ({ ...step, id: `${step.id}${suffix}` })))),
  )
}

/** The primary and a standby exchange their roles while both live; no commit is lost, and writes are refused for a moment. */
export const switchover = defineOperation({
  type: 'switchover',
  surveys: 'servers',
  target: cluster => cluster,
  // A standby that is away is no reason to keep the primary; the two that exchange their roles are looked at in the plan.
  mayBeAbsent: () => true,
  holdsRepmgrd: () => ({}),
  plan(bench, input) {
    const { from, to } = endsOf(bench, input)
    return exchangeStages(bench, from, to, input)
  },
  async begin(store, bench, input) {
    const { operationId } = bench
    if (operationId === undefined) return
    const { from, to } = endsOf(bench, input)
    const handover: Handover = { operation: operationId, from: from.name, to: to.name }
    await store.clusters.update(bench.cluster.name, cluster => ({ ...cluster, handover }))
  },
  complete: forgetHandover,
  // Only where the roles are as they were: otherwise the two ends must be known to whoever takes it up.
  async failed(store, bench, { code, outcome }) {
    if (outcome === 'not_started' || code === 'switchover-taken-back') await forgetHandover(store, bench)
  },
})
