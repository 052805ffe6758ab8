/**
 * The step that takes the place of a primary that is lost: votes, freeze and fence side by side, choose, promote, re-point.
 *
 * Until the standby is told everything can be put back, and is. From then on nothing is, and nobody else is chosen, whatever
 * the answer. Each voter remembers on its own disk what was begun, so that the next worker, or another service with a
 * majority of its own, finds it: any two majorities share a voter.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { type Choice, chooseCandidate, type FrozenStandby } from '../../../src/cluster/candidate.js'
import type { ClusterNode } from '../../../src/cluster/model.js'
import type { PromoteInput } from '../../../src/cluster/operation-inputs.js'
import { type Promotion, settledEpoch } from '../../../src/cluster/promotion.js'
import { slotName } from '../../../src/cluster/slot.js'
import { isWitness, upstreamOf } from '../../../src/cluster/topology.js'
import { newestBegun, readTrace, votersOf } from '../../../src/cluster/voters.js'
import type { Decision } from '../../../src/operations/decision.js'
import { OperationError } from '../../../src/operations/errors.js'
import { PROMOTION_STEP } from '../../../src/operations/operation.js'
import { WorkerGone } from '../../../src/operations/run-plan.js'
import type { ChangeStep, Check, StepContext } from '../../../src/operations/step.js'
import { readStanding, thaw } from '../../../src/postgres/freeze.js'
import { readTraceText, writeTrace } from '../../../src/postgres/vote.js'
import type { Bench, Ledger } from '../../bench.js'
import { streamConninfo } from '../stream-source.js'
import { type Ballot, confirm, hasMajority, settle, undo, type Voter, vote } from './ballot.js'
import { PromotionTakenBack, PromotionUnfinished, PromotionUnknown, PromotionUnsafe } from './errors.js'
import { type Evidence, gatherEvidence } from './evidence.js'
import { type Fence, fence, unfence } from './fencing.js'
import { measureLoss } from './loss.js'
import { objections, policyOf, refusePromotion } from './obstacles.js'

const TRIES = 4
/** At random, so that two that got half of the votes each do not meet again. */
const BACK_OFF_MS = [200, 1500] as const
const PROMOTION_MS = 60_000
const STREAM_MS = 10_000

export function promoteStandby(bench: Bench, input: PromoteInput): ChangeStep {
  return {
    id: PROMOTION_STEP,
    kind: 'change',
    title: input.to === undefined ? 'promote the standby that has the most' : `promote ${input.to}`,
    destroys: 'what the old primary committed and had not sent to the new one',
    actions: [
      {
        description: {
          kind: 'wait',
          text: 'votes of a majority; every standby frozen; the old primary fenced; the standby with the most WAL promoted (SELECT pg_promote()); the others re-pointed',
        },
        perform: context => new PromotionRun(bench, input, context).run(),
      },
    ],
    async check({ signal }): Promise<Check> {
      const { operationId, ledger } = bench
      const promotion = (await ledger?.read())?.promotion
      const own = promotion !== undefined && promotion.operation === operationId ? promotion : undefined
      const evidence = await gatherEvidence(bench, own?.to, signal)
      const who = evidence.lost.map(({ name }) => name).join(' and ')
      if (own?.state !== 'promoted') return { done: false, reason: `${who} is not replaced` }
      const left = [...evidence.traces].find(([, trace]) => trace.operation === operationId)
      if (left) return { done: false, reason: `${left[0]} is still frozen` }
      return { done: true, note: `${own.to} is the primary, on timeline ${own.timeline}` }
    },
  }
}

/** One try of one worker. */
class PromotionRun {
  private readonly whole = new AbortController()
  private readonly begun = performance.now()
  private readonly context: StepContext
  /** From the moment on that it was told, whatever the answer. */
  private told: string | undefined
  private readonly decision: Decision = {
    evidence: [],
    replaced: [],
    fencing: [],
    candidates: [],
    risks: [],
    times: [],
  }

  constructor(
    private readonly bench: Bench,
    private readonly input: PromoteInput,
    private readonly outer: StepContext,
  ) {
    // Though somebody calls it off: only another worker may take it from us.
    this.context = { ...outer, signal: this.whole.signal }
  }

  private get ledger(): Ledger {
    if (!this.bench.ledger) throw new TypeError('a promotion needs the record of its cluster')
    return this.bench.ledger
  }

  private time(what: string): void {
    const ms = Math.round(performance.now() - this.begun)
    this.decision.times.push({ what, ms })
    this.context.log(`${what} (after ${ms} ms)`)
    this.context.decide(structuredClone(this.decision))
  }

  async run(): Promise<void> {
    const { signal } = this.outer
    signal.throwIfAborted()
    const onAbort = () => {
      if (signal.reason instanceof WorkerGone) this.whole.abort(signal.reason)
    }
    signal.addEventListener('abort', onAbort)
    try {
      await this.promote()
    } finally {
      signal.removeEventListener('abort', onAbort)
      this.context.decide(structuredClone(this.decision))
    }
  }

  private async promote(): Promise<void> {
    const { bench, context, input, decision } = this
    const earlier = (await this.ledger.read())?.promotion
    const own = earlier?.operation === context.operationId ? earlier : undefined
    let evidence = await gatherEvidence(bench, own?.to, context.signal)
    this.note(evidence)
    if (own && (await this.isPrimary(own.to))) {
      await this.finish(own, await this.votesThereAre(evidence))
      return
    }
    // One that was told in an earlier turn and has not said so yet may become it at any moment.
    const begun = newestBegun(evidence.traces, settledEpoch(earlier))
    if (
      begun &&
      begun.trace.operation === context.operationId &&
      evidence.standbys.get(begun.trace.candidate)?.promotionPending
    ) {
      await this.untilPromoted(begun.trace.candidate, 'it was told in an earlier turn.')
      evidence = await gatherEvidence(bench, begun.trace.candidate, context.signal)
      if (own) await this.finish(own, await this.votesThereAre(evidence))
      return
    }
    decision.risks = await refusePromotion(bench, evidence, input, context.signal)
    this.time('seen what there is')
    const ballot = await this.votesOf(evidence)
    let fences: Fence[] = []
    try {
      fences = await this.fenceAll(evidence)
      await this.choose(evidence, ballot, fences)
    } catch (error) {
      context.signal.throwIfAborted()
      // Whom this turn, or an earlier one, has told may be a primary by now: an old one must not come back beside it.
      if (this.told !== undefined || this.toldBefore(evidence, ballot) !== undefined) {
        await Promise.all(ballot.voters.map(({ vote }) => vote.release()))
        if (this.told === undefined || error instanceof PromotionUnknown) throw error
        throw new PromotionUnfinished(this.told, error)
      }
      await this.takeBack(ballot, fences, error)
    }
  }

  private note({ facts, lost, alive }: Evidence): void {
    this.decision.evidence = [
      ...facts,
      ...alive.flatMap(({ node, how }) => how.map(detail => ({ who: node.name, detail }))),
    ]
    this.decision.replaced = lost.map(({ name }) => name)
  }

  private async isPrimary(name: string): Promise<boolean> {
    const { bench, context } = this
    const node = this.node(name)
    const rows = await bench
      .ask(node, { timeoutMs: 2000, signal: context.signal }, query => query('SELECT pg_is_in_recovery() AS recovery'))
      .catch(() => [])
    return rows[0]?.recovery === false
  }

  private node(name: string): ClusterNode {
    const node = this.bench.cluster.nodes.find(one => one.name === name)
    if (!node) throw new PromotionUnknown(name, 'the record of the cluster has no such node any more.')
    return node
  }

  private electors({ lost }: Evidence): { nodes: ClusterNode[]; lost: string[] } {
    const names = lost.map(({ name }) => name)
    return { nodes: votersOf(this.bench.cluster.nodes, names), lost: names }
  }

  /** The decision has been made before: whoever is there is put behind the new primary. */
  private async votesThereAre(evidence: Evidence): Promise<Ballot> {
    const { nodes, lost } = this.electors(evidence)
    return vote(this.bench, nodes, lost, this.context)
  }

  /** Throws where there is no majority and nobody has forced it; then nothing is changed. */
  private async votesOf(evidence: Evidence): Promise<Ballot> {
    const { bench, context, decision, input } = this
    const { nodes, lost } = this.electors(evidence)
    const store = await this.ledger.vote().catch(() => undefined)
    if (store && !store.may && store.waitMs !== undefined) {
      context.log(`the store may vote in ${store.waitMs} ms: ${store.reason}`)
      await sleep(store.waitMs + 50, undefined, { signal: context.signal })
    }
    for (let turn = 1; ; turn += 1) {
      const ballot = await vote(bench, nodes, lost, context)
      decision.votes = { needed: ballot.needed, of: ballot.of, given: ballot.given, missing: ballot.missing }
      this.time(`${ballot.given.length} of ${ballot.of} votes, and their standbys are frozen`)
      if (hasMajority(ballot) || (input.force === true && ballot.voters.some(({ node }) => !isWitness(node))))
        return ballot
      const left = await undo(bench, ballot, context)
      if (turn === TRIES || left.length > 0) {
        const missing = ballot.missing.map(({ who, detail }) => `${who}: ${detail}`).join('; ')
        const why = `only ${ballot.given.length} of ${ballot.of} voters voted, and ${ballot.needed} are needed (${missing}).`
        throw new PromotionTakenBack(
          why,
          'Bring back those that are missing, then retry. "force" goes on without them.',
          left,
        )
      }
      const [least, most] = BACK_OFF_MS
      await sleep(least + Math.random() * (most - least), undefined, { signal: context.signal })
    }
  }

  private async fenceAll({ lost }: Evidence): Promise<Fence[]> {
    const { bench, context, decision, input } = this
    const fences = await Promise.all(lost.map(node => fence(bench, node, context)))
    decision.fencing = fences.map(({ node, method, detail }) => ({ node: node.name, method, detail }))
    this.time(fences.map(({ node, method }) => `${node.name} fenced: ${method}`).join(', '))
    const open = fences.filter(({ method }) => method === 'none')
    if (open.length > 0 && input.force !== true) {
      throw new FenceMissing(
        fences,
        open.map(({ node, detail }) => `${node.name} could not be fenced: ${detail}`).join(' '),
      )
    }
    return fences
  }

  private async choose(evidence: Evidence, ballot: Ballot, fences: readonly Fence[]): Promise<void> {
    const { bench, context, decision, input } = this
    const standbys = ballot.voters.filter(({ node }) => !isWitness(node))
    const frozen = await Promise.all(standbys.map(voter => settle(bench, voter, context)))
    const policy = policyOf(bench.cluster, input)
    const told = this.toldBefore(evidence, ballot)
    const fenced = fences.some(({ node, method }) => node.name === told && method !== 'none')
    if (told !== undefined && !fenced && !frozen.some(({ node }) => node.name === told))
      throw new PromotionUnknown(told, 'it was told before, and gave no vote now.')
    // It may take effect yet, unseen: nobody else is chosen while it is not fenced.
    const only = told !== undefined && !fenced ? { ...policy, to: told, maxLossBytes: Number.MAX_SAFE_INTEGER } : policy
    const choice = chooseCandidate(frozen, only)
    decision.candidates = choice.verdicts
    decision.behindBytes = choice.behindBytes
    const against = objections(choice, input).filter(({ risk }) => risk === undefined || input.force !== true)
    if (against.length > 0 || !choice.candidate) throw new PromotionUnsafe(against, 'failed_clean')
    const candidate = standbys.find(({ node }) => node === choice.candidate) as Voter
    decision.chosen = candidate.node.name
    this.time(`${candidate.node.name} has the most`)
    await this.measure(evidence, fences, candidate, frozen, choice)
    const promotion: Promotion = {
      operation: context.operationId,
      epoch: context.epoch,
      state: 'promoting',
      to: candidate.node.name,
      replaced: evidence.lost.map(({ name }) => name),
      unfenced: fences.filter(({ method }) => method === 'none').map(({ node }) => node.name),
      at: new Date().toISOString(),
    }
    await this.tell(promotion, ballot, candidate, frozen)
    await this.finish(promotion, ballot)
  }

  /** Whom a turn before this one, or another service, had begun to promote, as any voter remembers. */
  private toldBefore({ traces }: Evidence, { voters }: Ballot): string | undefined {
    const found = voters.flatMap(({ node, found: trace }) => (trace ? [[node.name, trace] as const] : []))
    return newestBegun(new Map([...traces, ...found]), settledEpoch(this.bench.cluster.promotion))?.trace.candidate
  }

  /** What the disk of the old primary has and the candidate has not. Throws where that is more than may be lost. */
  private async measure(
    { lost }: Evidence,
    fences: readonly Fence[],
    { node, standing }: Voter,
    frozen: readonly FrozenStandby[],
    { behindBytes }: Choice,
  ): Promise<void> {
    const { bench, context, decision, input } = this
    const position = frozen.find(one => one.node === node)?.lsn
    const [old] = lost
    const reachable = fences.some(fenced => fenced.node === old && fenced.method === 'ssh')
    const nobody = 'What the old primary had committed and not sent cannot be seen; it is measured when it is rejoined.'
    if (!old || position === undefined) return
    const found = reachable ? await measureLoss(bench, old, standing.timeline, position, context.signal) : undefined
    decision.loss = found ?? { detail: nobody }
    this.time(decision.loss.detail)
    const most = policyOf(bench.cluster, input).maxLossBytes
    if (input.force === true || found?.knownBytes === undefined || found.knownBytes + behindBytes <= most) return
    throw new PromotionUnsafe(
      [
        {
          detail: `${old.name} has ${found.knownBytes} bytes of WAL on its disk that ${node.name} does not have, and at most ${most} may be lost.`,
          remedy: `Start ${old.name} again, which has them, or ask with a larger maxLossBytes.`,
        },
      ],
      'failed_clean',
    )
  }

  /** Written down everywhere first; then told, on its own vote. From there on nothing goes back. */
  private async tell(
    promotion: Promotion,
    ballot: Ballot,
    candidate: Voter,
    frozen: readonly FrozenStandby[],
  ): Promise<void> {
    const { bench, context } = this
    await Promise.all(
      ballot.voters.map(async voter => {
        const { operation, epoch, to } = promotion
        voter.trace = { ...voter.trace, operation, epoch, candidate: to }
        await writeTrace(voter.vote, voter.trace)
      }),
    )
    await this.ledger.update(cluster => ({ ...cluster, promotion }))
    const lsns = new Map(
      frozen.flatMap(({ node, lsn }) => (lsn === undefined ? [] : [[node.name, lsn as string] as const])),
    )
    await confirm(bench, ballot, lsns, context)
    await candidate.vote.ping()
    let said = 'it was told.'
    this.told = promotion.to
    try {
      await candidate.vote.query('SELECT pg_promote(false)')
      this.time(`${promotion.to} was told`)
    } catch (error) {
      said = error instanceof Error ? error.message : String(error)
      // Refused by the server, it was not told; an answer that got lost says nothing.
      if (candidate.vote.held && isRefusal(error) && !(await this.isPrimary(promotion.to))) {
        this.told = undefined
        throw error
      }
    }
    await this.untilPromoted(promotion.to, said)
    this.time(`${promotion.to} is the primary`)
  }

  private async untilPromoted(name: string, said: string): Promise<void> {
    const deadline = performance.now() + PROMOTION_MS
    while (!(await this.isPrimary(name))) {
      this.context.signal.throwIfAborted()
      if (performance.now() > deadline) throw new PromotionUnknown(name, said)
      await sleep(20)
    }
  }

  /** The new primary is one: the others follow it, everything is put back, and it is written down. */
  private async finish(promotion: Promotion, ballot: Ballot): Promise<void> {
    const { bench, context } = this
    const primary = this.node(promotion.to)
    const standbys = ballot.voters.filter(({ node }) => node !== primary && !isWitness(node))
    const position = await bench.ask(primary, { signal: context.signal }, async query => {
      // Not confirmed by standbys that have yet to come.
      await query('SET synchronous_commit = local')
      await query("SELECT pg_logical_emit_message(true, 'understudy', 'promoted')")
      const [row] = await query(
        "SELECT ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int AS timeline, pg_read_file('pg_wal/' || left(pg_walfile_name(pg_current_wal_lsn()), 8) || '.history', 0, 100000, true) AS history",
      )
      return { timeline: Number(row?.timeline), history: String(row?.history ?? '') }
    })
    const [switchLsn] = position.history.match(/[0-9A-F]+\/[0-9A-F]+(?=\s[^\n]*\s*$)/i) ?? []
    const done: Promotion = {
      ...promotion,
      state: 'promoted',
      timeline: position.timeline,
      ...(switchLsn ? { switchLsn } : {}),
    }
    // An exchange of roles that was begun before is history now.
    await this.ledger.update(({ handover: _handover, ...cluster }) => ({ ...cluster, promotion: done }))
    const above = (node: ClusterNode) => {
      const upstream = upstreamOf(node, bench.cluster.nodes, primary)
      return standbys.some(voter => voter.node === upstream) ? upstream : primary
    }
    // One that cannot be reached any more is left to a rejoin: there is a primary.
    await Promise.all(
      standbys.map(async voter => {
        try {
          await this.makeSlot(above(voter.node), voter.node)
          await this.follow(voter, above(voter.node))
        } catch (error) {
          context.signal.throwIfAborted()
          context.log(`${voter.node.name} could not be re-pointed: ${error instanceof Error ? error.message : error}`)
        }
      }),
    )
    await this.untilStreaming(standbys.map(({ node }) => ({ node, upstream: above(node) })))
    const rest = ballot.voters.filter(({ node }) => node === primary || isWitness(node))
    await Promise.all(
      rest.map(async ({ node, vote, trace, standing }) => {
        if (node === primary && trace.before)
          await thaw(vote, trace.before, standing.version, { primary_conninfo: null, primary_slot_name: null })
        await writeTrace(vote, undefined)
        await vote.query('SELECT pg_reload_conf()')
      }),
    )
    await Promise.all(ballot.voters.map(({ vote }) => vote.release()))
    // One that gave no vote in this turn, because it is the primary, still remembers the one before.
    if (!rest.some(({ node }) => node === primary)) await this.forgetTrace(primary)
    this.time('the votes are given back')
  }

  private async makeSlot(upstream: ClusterNode, standby: ClusterNode): Promise<void> {
    const slot = slotName(standby.nodeId)
    await this.bench.ask(upstream, { signal: this.context.signal }, query =>
      query(
        'SELECT pg_create_physical_replication_slot($1, true) WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)',
        [slot],
      ),
    )
  }

  private async follow({ node, vote, trace, standing }: Voter, upstream: ClusterNode): Promise<void> {
    const { bench } = this
    await thaw(vote, trace.before ?? {}, standing.version, {
      primary_conninfo: streamConninfo(bench, node, upstream),
      primary_slot_name: slotName(node.nodeId),
    })
    await writeTrace(vote, undefined)
    await vote.query('SELECT pg_reload_conf()')
  }

  /** Who does not come is told of, and left to a rejoin: there is a primary, and it is not waited for any longer. */
  private async untilStreaming(pairs: readonly { node: ClusterNode; upstream: ClusterNode }[]): Promise<void> {
    const { bench, context } = this
    const deadline = performance.now() + STREAM_MS
    let missing = pairs
    while (missing.length > 0 && performance.now() < deadline) {
      const seen = await Promise.all(
        missing.map(async ({ node, upstream }) => {
          const rows = await bench
            .ask(upstream, { signal: context.signal }, query =>
              query("SELECT 1 FROM pg_stat_replication WHERE application_name = $1 AND state = 'streaming'", [
                node.name,
              ]),
            )
            .catch(() => [])
          return rows.length > 0
        }),
      )
      missing = missing.filter((_, index) => !seen[index])
      if (missing.length > 0) await sleep(50, undefined, { signal: context.signal })
    }
    const names = missing.map(({ node }) => node.name)
    this.time(names.length === 0 ? 'the others follow it' : `${names.join(' and ')} does not follow it yet`)
  }

  private async forgetTrace(node: ClusterNode): Promise<void> {
    const { bench, context } = this
    await bench.ask(node, { signal: context.signal }, async query => {
      const trace = readTrace(await readTraceText(query), node.name)
      if (!trace) return
      const { version } = await readStanding(query)
      const aside = { query, outside: async (statement: string) => void (await query(statement)) }
      await thaw(aside, trace.before ?? {}, version, { primary_conninfo: null, primary_slot_name: null })
      await writeTrace(aside, undefined)
      await query('SELECT pg_reload_conf()')
    })
  }

  /** Always throws: nobody was promoted, and it is said what is as it was and what is not. */
  private async takeBack(ballot: Ballot, fences: readonly Fence[], error: unknown): Promise<never> {
    const { bench, context } = this
    const all = error instanceof FenceMissing ? error.fences : fences
    // The old primary first, while nobody streams: standbys find it again by themselves.
    const restored = (await Promise.all(all.map(one => unfence(bench, one, context)))).flat()
    const left = [...restored, ...(await undo(bench, ballot, context))]
    await this.ledger
      .update(({ promotion, ...cluster }) =>
        promotion?.state === 'promoting' && promotion.operation === context.operationId
          ? cluster
          : { ...cluster, ...(promotion ? { promotion } : {}) },
      )
      .catch(reason => context.log(`the record still has it: ${reason}`))
    this.time('taken back')
    const why = error instanceof Error ? error.message : String(error)
    const remedy =
      error instanceof OperationError
        ? error.remedy
        : error instanceof FenceMissing
          ? 'Bring the host back, or switch it off for certain and say so with "force"; or set a fence hook (docs/promote.md).'
          : 'Look at what the log of the operation says, then retry.'
    throw new PromotionTakenBack(why, remedy, left)
  }
}

class FenceMissing extends Error {
  constructor(
    readonly fences: Fence[],
    why: string,
  ) {
    super(why)
    this.name = 'FenceMissing'
  }
}

/** An error of the server’s own: it has answered. */
const isRefusal = (error: unknown) =>
  error instanceof Error &&
  /^[0-9A-Z]{5}$/.test((error as { code?: string }).code ?? '') &&
  !/^57P/.test((error as { code?: string }).code ?? '')
