/** From whatever a node holds to a standby of the primary: the plan that `rejoin-node` and `rebuild-node` share. */
import type { ClusterNode } from '../src/cluster/model.js'
import { chooseRung, type RebuildMethod } from '../src/cluster/rejoin.js'
import { isWitness, upstreamOf, witnesses } from '../src/cluster/topology.js'
import { type CheckContext, type Plan, type Step, stage } from '../src/operations/step.js'
import type { Bench } from './bench.js'
import { currentPrimary } from './current-primary.js'
import { ConfirmationRequired, mayAcceptWrites, NodeIsWitness, nodeNamed, refuseUnprovisioned } from './refusals.js'
import { tellOfAbsent } from './steps/absent.js'
import { holdingOf } from './steps/comeback.js'
import { recoverFromCrash } from './steps/crash-recovery.js'
import { cloneInstead } from './steps/give-up-old.js'
import { isBack, methodNow, unlessBack } from './steps/is-back.js'
import { refuseUnconfirmed, reportLoss } from './steps/loss-report.js'
import { preflight } from './steps/preflight.js'
import { startServer } from './steps/primary.js'
import { checkpointPrimary } from './steps/primary-checkpoint.js'
import { thawStandby } from './steps/promotion/thaw-standby.js'
import { proveReplication } from './steps/proof.js'
import { readyForRepmgr } from './steps/ready-for-repmgr.js'
import { NotRewindable, refuseUnmeantClone, rewind } from './steps/rewind.js'
import { recordRoles } from './steps/roles-record.js'
import { follow, registerStandbyNode } from './steps/standby.js'
import { markAsStandby } from './steps/standby-mark.js'
import { holdStopped, stopServer } from './steps/stop.js'
import { tellSource } from './steps/told-source.js'
import { dropUnusedSlots } from './steps/unused-slots.js'
import { refuseIdleUpstream } from './steps/upstream.js'
import { makeSlot } from './steps/upstream-slot.js'
import { informWitness } from './steps/witness.js'

export interface ComeBackInput {
  node: string
  method: RebuildMethod
  confirm?: string
  keepOldData?: boolean
}

/** A standby replays before it answers. */
const START_MS = 24 * 3_600_000

function endsOf(bench: Bench, { node: name }: ComeBackInput): { node: ClusterNode; primary: ClusterNode } {
  const node = nodeNamed(bench, name)
  if (isWitness(node)) throw new NodeIsWitness(node.name)
  const primary = currentPrimary(bench, node)
  refuseUnprovisioned(bench, node)
  return { node, primary }
}

export function planComeBack(bench: Bench, input: ComeBackInput): Plan {
  const { node, primary } = endsOf(bench, input)
  const { method, confirm, keepOldData = false } = input
  const { nodes } = bench.cluster
  const upstream = upstreamOf(node, nodes, primary)
  if (upstream !== primary) refuseIdleUpstream(bench, node, upstream)
  const once = (step: Step): Step => (step.kind === 'change' ? unlessBack(bench, node, primary, method, step) : step)
  // Where a rewind may be enough, nobody knows yet whether there will be a clone: it looks for its room itself.
  const oldCopy = async (context: CheckContext) =>
    (await methodNow(bench, node, method, context)) === 'clone' ? (keepOldData ? 'kept-aside' : 'emptied') : undefined
  return [
    stage('look first', [preflight(bench, [node], { upstream, oldCopy })]),
    stage('prepare the primary for it', [
      checkpointPrimary(bench, primary),
      // repmgr's clone goes by its metadata, and a promotion by hand does not write them.
      {
        ...recordRoles(bench, primary, [], {
          name: 'standby_promote',
          details: `node ${primary.nodeId} is the primary, as Understudy found it`,
        }),
        id: 'cluster/primary',
        title: `see to it that repmgr’s metadata have ${primary.name} as the primary`,
      },
      makeSlot(bench, upstream, node),
    ]),
    stage('see to it that nobody writes there', [
      ...readyForRepmgr(bench, node),
      ...[markAsStandby(bench, node), holdStopped(bench, node), stopServer(bench, node)].map(once),
    ]),
    stage('see what it has, and bring it to what the primary has', [
      ...[
        recoverFromCrash(bench, node),
        reportLoss(bench, node, primary, confirm),
        rewind(bench, node, primary, { method, confirm }),
      ].map(once),
      ...cloneInstead(bench, node, primary, { method, keepOldData }),
    ]),
    stage('let it stream', [
      tellSource(bench, node, upstream),
      startServer(bench, node, START_MS),
      thawStandby(bench, node),
      follow(bench, node, primary),
    ]),
    stage(
      'write it down',
      [
        registerStandbyNode(bench, node, primary),
        recordRoles(bench, primary, [node], {
          name: 'node_rejoin',
          details: `node ${node.nodeId} is a standby of node ${primary.nodeId} (Understudy)`,
        }),
        ...witnesses(nodes)
          .filter(({ name }) => !bench.absent.has(name))
          .flatMap(witness => [...readyForRepmgr(bench, witness), informWitness(bench, witness, primary)]),
      ],
      [dropUnusedSlots(bench, node, primary)],
    ),
    stage('prove it', [proveReplication(bench, primary, [node])], tellOfAbsent(bench)),
  ]
}

/** Before anything is touched: what would be lost has to be meant. */
export async function refuseComeBack(bench: Bench, input: ComeBackInput, signal: AbortSignal): Promise<void> {
  const { node, primary } = endsOf(bench, input)
  const { confirm } = input
  const context = {
    signal,
    log: () => undefined,
    ...(bench.operationId === undefined ? {} : { operationId: bench.operationId }),
  }
  if (await isBack(bench, node, primary, input.method, context)) return
  const method = await methodNow(bench, node, input.method, context)
  if (confirm === node.name && method !== 'rewind') return
  const holding = await holdingOf(bench, node, primary, signal)
  if (method === 'rewind') {
    const { rung, why } = chooseRung(holding, method)
    // A rewind may be under way, begun by a worker that is gone: the step itself looks for it.
    if (rung === 'clone' && holding.copy !== 'cut-short') throw new NotRewindable(node.name, `${why}.`, 'not_started')
    if (confirm === node.name) return
  }
  if (holding.loss) refuseUnconfirmed(node, holding.loss, confirm)
  if (mayAcceptWrites(bench.found(node).server)) {
    throw new ConfirmationRequired(
      `${node.name} still accepts writes, beside ${primary.name}, the primary: connections to it are cut, and what is written there until then is thrown away.`,
      node.name,
    )
  }
  const { rung, why } = chooseRung(holding, method)
  if (rung === 'clone') refuseUnmeantClone(node, why, confirm)
}
