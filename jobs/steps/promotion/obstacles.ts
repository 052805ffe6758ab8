/** What stands in the way of a promotion that cannot go wrong: looked at before anything is touched. */
import { type Choice, chooseCandidate, type FrozenStandby } from '../../../src/cluster/candidate.js'
import type { Cluster } from '../../../src/cluster/model.js'
import type { PromoteInput } from '../../../src/cluster/operation-inputs.js'
import { settledEpoch } from '../../../src/cluster/promotion.js'
import { isWitness } from '../../../src/cluster/topology.js'
import { majorityOf, newestBegun, STORE_VOTER, votersOf } from '../../../src/cluster/voters.js'
import type { Bench } from '../../bench.js'
import { ConfirmationRequired } from '../../refusals.js'
import { type Obstacle, PrimaryAlive, PromotionPending, PromotionUnsafe } from './errors.js'
import type { Evidence } from './evidence.js'
import { fenceable } from './fencing.js'

/** Sixteen mebibytes: a segment of WAL. */
export const MAX_LOSS_BYTES = 16 * 1024 * 1024

export const policyOf = (
  { systemIdentifier, promotion }: Cluster,
  { to, maxLossBytes = MAX_LOSS_BYTES }: PromoteInput,
) => ({
  systemIdentifier,
  timeline: promotion?.timeline ?? 0,
  to,
  maxLossBytes,
})

/** The same choice on what was seen without freezing anybody: positions may still move. */
export function dryChoice(bench: Bench, evidence: Evidence, input: PromoteInput): Choice {
  const seen = bench.cluster.nodes.flatMap((node): FrozenStandby[] => {
    const standing = evidence.standbys.get(node.name)
    if (!standing || isWitness(node)) return []
    const { systemIdentifier, timeline, lsn, promotionPending } = standing
    return [{ node, systemIdentifier, timeline, lsn, promotionPending, replays: true }]
  })
  return chooseCandidate(seen, policyOf(bench.cluster, input))
}

/** In words, for who has to decide: nobody can be promoted, or not the one that was asked for. */
export function objections({ verdicts, candidate, behindBytes, better }: Choice, input: PromoteInput): Obstacle[] {
  const { to, maxLossBytes = MAX_LOSS_BYTES } = input
  if (!candidate) {
    const said = verdicts.filter(({ node, objection }) => (to === undefined || node === to) && objection !== undefined)
    const why = said.map(({ node, objection }) => `${node} ${objection}.`).join(' ')
    const detail = to === undefined ? 'No standby can be promoted.' : `${to} cannot be promoted.`
    return [
      {
        detail:
          `${detail} ${why || (to === undefined ? 'None answers.' : `${to} does not answer as a standby.`)}`.trim(),
        remedy: 'Bring a standby back that has the data, or start the old primary.',
      },
    ]
  }
  if (behindBytes <= maxLossBytes) return []
  return [
    {
      detail: `${better} has ${behindBytes} bytes of WAL that ${candidate.name} does not have, and at most ${maxLossBytes} may be lost.`,
      remedy: `Promote ${better}, or ask with a larger maxLossBytes.`,
      risk: `The commits in ${behindBytes} bytes of WAL that ${better} has and ${candidate.name} does not have are lost.`,
    },
  ]
}

/** Everything that stands in the way, of what can be known before. Throws where it has begun already, elsewhere. */
export async function obstaclesTo(
  bench: Bench,
  evidence: Evidence,
  input: PromoteInput,
  signal: AbortSignal,
): Promise<Obstacle[]> {
  const { cluster } = bench
  const begun = newestBegun(evidence.traces, settledEpoch(cluster.promotion))
  const told = begun && evidence.standbys.get(begun.trace.candidate)
  if (begun && told?.promotionPending && begun.trace.operation !== bench.operationId)
    throw new PromotionPending(begun.trace.candidate, begun.trace.operation)

  const lost = evidence.lost.map(({ name }) => name)
  const electors = votersOf(cluster.nodes, lost)
  const silent = electors.filter(({ name }) => evidence.silent.has(name))
  const store = await bench.ledger
    ?.vote()
    .catch(error => ({ may: false as const, reason: String(error), waitMs: undefined }))
  const storeVotes = store?.may === true || (store !== undefined && store.waitMs !== undefined)
  const needed = majorityOf(electors.length)
  const count = electors.length - silent.length + (storeVotes ? 1 : 0)
  const found: Obstacle[] = []
  if (count < needed) {
    const missing = [
      ...silent.map(({ name }) => `${name}: ${evidence.silent.get(name)}`),
      ...(storeVotes || !store || store.may ? [] : [`${STORE_VOTER}: ${store.reason}`]),
    ]
    found.push({
      detail: `Only ${count} of ${electors.length + 1} voters can vote, and ${needed} are needed (${missing.join('; ')}).`,
      remedy: 'Bring back those that are missing, or add a witness for the next time.',
      risk: `With ${count} of ${electors.length + 1} votes another service could promote another standby at the same time.`,
    })
  }
  if (evidence.repmgrd.length > 0) {
    const where = evidence.repmgrd.join(' and ')
    found.push({
      detail: `repmgrd runs on ${where} and is not paused: it may promote a standby by itself meanwhile.`,
      remedy: 'Wait until it has, or pause it (repmgr service pause), then repeat the call.',
      risk: `repmgrd on ${where} may promote another standby at the same time.`,
    })
  }
  const fences = await Promise.all(
    evidence.lost.map(async node => [node.name, await fenceable(bench, node, signal)] as const),
  )
  for (const [name, why] of fences) {
    if (why === undefined) continue
    found.push({
      detail: `${name} cannot be fenced: ${why}, and no fence hook is set.`,
      remedy: `Bring the host of ${name} back, or switch it off for certain; set a fence hook (docs/promote.md) for the next time.`,
      risk: `${name} may still run and accept writes: two primaries, until you have seen for yourself that it is off.`,
    })
  }
  return [...found, ...objections(dryChoice(bench, evidence, input), input)]
}

/** Throws unless it may begin. Returns what is risked by force. */
export async function refusePromotion(
  bench: Bench,
  evidence: Evidence,
  input: PromoteInput,
  signal: AbortSignal,
): Promise<string[]> {
  const { cluster } = bench
  const [alive] = evidence.alive
  if (alive && input.force !== true) throw new PrimaryAlive(cluster.name, alive.node.name, alive.how)
  const found = await obstaclesTo(bench, evidence, input, signal)
  const hard = found.filter(({ risk }) => risk === undefined)
  if (hard.length > 0 || (found.length > 0 && input.force !== true)) throw new PromotionUnsafe(found)
  const risks = [
    ...(alive
      ? [
          `${alive.node.name} lives: it is stopped, its clients are cut off, and what it committed and had not sent is lost.`,
        ]
      : []),
    ...found.flatMap(({ risk }) => risk ?? []),
  ]
  if (risks.length > 0 && input.confirm !== cluster.name)
    throw new ConfirmationRequired(`Force would risk this: ${risks.join(' ')}`, cluster.name)
  return risks
}
