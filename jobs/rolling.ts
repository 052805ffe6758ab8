/**
 * From node to node, never two at a time: the standbys first, those that nobody streams from before those that pass on, each
 * streaming again before the next. The primary's turn is an exchange of roles, which leaves it a standby like the others.
 *
 * A worker that takes it up makes the plan anew, from servers whose roles may have changed meanwhile. So what has been begun
 * is in the cluster's record: who was the primary, who is to be it, and the phase. A phase that is written down is never gone
 * back from, and the steps before it are not planned any more; they stay in the journal. Whether the primary needs its turn is
 * seen on its server right before it, so that one that has had it never has another.
 */
import type { Handover, RollingPhase } from '../src/cluster/handover.js'
import type { ClusterNode } from '../src/cluster/model.js'
import type { RollingInput } from '../src/cluster/operation-inputs.js'
import { dataNodes, standbysByDepth, upstreamOf, witnesses } from '../src/cluster/topology.js'
import { act } from '../src/host/actions.js'
import { OperationError } from '../src/operations/errors.js'
import { WAY_BACK } from '../src/operations/operation.js'
import { type ChangeStep, type Check, type CheckContext, type Stage, type Step, stage } from '../src/operations/step.js'
import type { Store } from '../src/store/store.js'
import type { Bench } from './bench.js'
import { findPrimary } from './find-primary.js'
import { forgetHandover, ownHandover } from './handover.js'
import { ConfirmationRequired, nodeNamed, refuseStopped } from './refusals.js'
import { isDelayedLong } from './steps/delayed-proof.js'
import { follow } from './steps/standby.js'
import { endsToBe, exchangeStages, refuseOvertaken, type SwitchoverLimits } from './switchover.js'

/** What is done to each server. */
export interface RollingWork {
  /** In words that go after "…, ": `restart`. */
  name: string
  /** Of a standby, a witness, or a primary that has no standby. Without waiting for its stream. */
  renew(node: ClusterNode): Step[]
  /** Of the primary, before its turn. */
  beforeTurn?(primary: ClusterNode): Step[]
  /** Whether the primary needs no turn, as its server is now. */
  isDone(primary: ClusterNode, context: CheckContext): Promise<Check>
  /** Of the old primary, between its stop and its start as a standby. */
  whileStopped?(primary: ClusterNode): Step[]
}

/** The two that exchange their roles, and how far it has come. On the way back they have changed places. */
export interface RollingEnds {
  from: ClusterNode
  to: ClusterNode
  phase: RollingPhase
}

/** Thrown when somebody else has exchanged the roles while this was failed, or between two workers. */
class RolesChanged extends OperationError {
  constructor(primary: string, was: string) {
    super(`${primary} is the primary now, and ${was} was when this was begun.`, {
      code: 'roles-changed',
      outcome: 'not_started',
      remedy: 'Ask for it anew: it begins with the servers as they are now.',
    })
  }
}

/** Thrown when a node does not answer that would have its turn. */
class NodeAway extends OperationError {
  constructor(away: ReadonlyMap<string, string>) {
    super([...away].map(([node, reason]) => `${node} does not answer: ${reason}`).join(' '), {
      code: 'node-away',
      outcome: 'not_started',
      remedy:
        'Bring it back first, or remove it: with one standby less, the next one that is restarted may be the last.',
    })
  }
}

/** Every one has its turn, so every one must be there; once roles are exchanged, who is away is in nobody's way. */
function refuseUnready(bench: Bench): void {
  if (bench.absent.size > 0) throw new NodeAway(bench.absent)
  // One that this operation has stopped, with a worker that died there, is started by it.
  if (!ownHandover(bench)) for (const node of bench.cluster.nodes) refuseStopped(bench, node)
}

export const isAlone = ({ cluster }: Pick<Bench, 'cluster'>) => dataNodes(cluster.nodes).length === 1

/** From the record where it was begun, otherwise from the servers. Throws where it must not begin, or not go on. */
export function rollingEnds(bench: Bench, { to }: Pick<RollingInput, 'to'>): RollingEnds {
  const begun = ownHandover(bench)
  const phase = begun?.phase ?? 'standbys'
  if (phase === 'standbys') refuseUnready(bench)
  if (!begun) return { ...endsToBe(bench, to), phase }
  const ends = { from: nodeNamed(bench, begun.from), to: nodeNamed(bench, begun.to), phase }
  if (phase !== 'standbys') {
    refuseOvertaken(bench, ends.from, ends.to)
    return ends
  }
  const primary = findPrimary(bench)
  if (primary !== ends.from) throw new RolesChanged(primary.name, ends.from.name)
  return ends
}

export function rollingPlan(
  bench: Bench,
  { from, to, phase }: RollingEnds,
  work: RollingWork,
  { switchBack = false, ...input }: RollingInput,
): Stage[] {
  const { to: _to, confirm: _confirm, ...limits } = input
  const { nodes } = bench.cluster
  const last = witnesses(nodes)
    .filter(({ name }) => !bench.absent.has(name))
    .map(node => stage(`${work.name} ${node.name}, the witness`, work.renew(node)))
  if (phase === 'back')
    return [...turn(bench, from, to, limits, { phase, taken: true, suffix: WAY_BACK }, async () => undefined), ...last]
  const standbys = standbysByDepth(nodes, from)
    .reverse()
    .flat()
    .map(node => stage(`${work.name} ${node.name}`, [...work.renew(node), ...streamsAgain(bench, node, from)]))
  const there: Turn = { phase: 'exchange', taken: phase === 'exchange', suffix: '' }
  const needless = async (context: CheckContext) => {
    const found = await work.isDone(from, context)
    return found.done ? `${from.name} needs no turn${found.note === undefined ? '' : `: ${found.note}`}` : undefined
  }
  const back: Turn = { phase: 'back', taken: false, suffix: WAY_BACK }
  return [
    ...(phase === 'standbys' ? standbys : []),
    ...(phase === 'standbys' && work.beforeTurn
      ? [stage(`${work.name} ${from.name}, the primary`, work.beforeTurn(from))]
      : []),
    ...turn(bench, from, to, limits, there, needless, work.whileStopped?.(from)),
    ...(switchBack ? turn(bench, to, from, limits, back, async () => there.needless) : []),
    ...last,
  ]
}

/** The one server with data: whoever asks knows that nobody can write meanwhile. */
export function inPlacePlan(bench: Bench, work: RollingWork, { confirm }: RollingInput): Stage[] {
  const primary = findPrimary(bench)
  if (bench.absent.size > 0) throw new NodeAway(bench.absent)
  if (confirm !== primary.name) {
    throw new ConfirmationRequired(
      `${primary.name} is the only node with data: connections are cut, and nobody can write until it is back.`,
      primary.name,
    )
  }
  return [primary, ...witnesses(bench.cluster.nodes)].map(node => stage(`${work.name} ${node.name}`, work.renew(node)))
}

/** It, and those that stream from it. One that is held back opens a stream only once it has applied what it has. */
function streamsAgain(bench: Bench, node: ClusterNode, primary: ClusterNode): Step[] {
  const { nodes } = bench.cluster
  const below = dataNodes(nodes).filter(other => other !== primary && upstreamOf(other, nodes, primary) === node)
  return [node, ...below]
    .filter(other => !isDelayedLong(other))
    .map(other => ({
      ...follow(bench, other, primary),
      id: other === node ? `${other.name}/follow-again` : `${other.name}/follow-${node.name}-again`,
    }))
}

/** An exchange of roles in a rolling plan. */
interface Turn {
  /** The phase that it is. */
  phase: Exclude<RollingPhase, 'standbys'>
  /** It is in the record: from then on it is carried out, whatever the servers say. */
  taken: boolean
  /** Why it is left out; undefined where it is not, or nobody has looked yet. */
  needless?: string
  suffix: string
}

function turn(
  bench: Bench,
  from: ClusterNode,
  to: ClusterNode,
  limits: SwitchoverLimits,
  state: Turn,
  needless: (context: CheckContext) => Promise<string | undefined>,
  whileStopped: readonly Step[] = [],
): Stage[] {
  const { suffix } = state
  const decide: ChangeStep = {
    id: `cluster/turn${suffix}`,
    kind: 'change',
    title: `write down that ${to.name} takes over from ${from.name} now`,
    actions: [
      act(`keep it with the cluster, so that whoever takes this up goes on from there`, async () => {
        await bench.keepHandover?.(handover => ({ ...handover, from: from.name, to: to.name, phase: state.phase }))
        state.taken = true
      }),
    ],
    async check(context): Promise<Check> {
      if (state.taken) return { done: true, note: 'it is written down' }
      const why = await needless(context)
      if (why === undefined) return { done: false, reason: `${from.name} is the primary` }
      state.needless = why
      return { done: true, note: why }
    },
  }
  const stages = exchangeStages(bench, from, to, limits, { whileStopped, suffix })
  return [
    stage(`the turn of ${from.name}, the primary`, [decide]),
    ...stages.map(({ title, tracks }) =>
      stage(title, ...tracks.map(track => track.map(step => unless(() => state.needless, step)))),
    ),
  ]
}

/** The step as it is, but where there is a reason to leave it out by the time it is reached. */
function unless(needless: () => string | undefined, step: Step): Step {
  if (step.kind === 'change') {
    return {
      ...step,
      async check(context) {
        const note = needless()
        return note === undefined ? step.check(context) : { done: true, note }
      },
    }
  }
  return {
    ...step,
    actions: step.actions.map(action => ({
      ...action,
      async perform(context) {
        const why = needless()
        if (why === undefined) await action.perform(context)
        else context.note(`left out: ${why}`)
      },
    })),
  }
}

/** What was begun, with what goes with it: once, and not again by whoever takes it up. */
export async function beginRolling(
  store: Store,
  bench: Bench,
  { from, to, phase }: RollingEnds,
  about: Pick<Handover, 'versions'> = {},
): Promise<void> {
  const { operationId } = bench
  if (operationId === undefined || ownHandover(bench)) return
  const handover: Handover = { operation: operationId, from: from.name, to: to.name, phase, ...about }
  await store.clusters.update(bench.cluster.name, cluster => ({ ...cluster, handover }))
}

export const completeRolling = forgetHandover

/** Where nothing was done there is nothing to go on from. Anything else is taken up where it stopped. */
export async function failedRolling(store: Store, bench: Bench, { outcome }: { outcome: string }): Promise<void> {
  if (outcome === 'not_started') await forgetHandover(store, bench)
}
