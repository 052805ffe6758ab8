/**
 * Votes, and the freezing of those who gave them: a standby’s vote counts only once nothing can reach it from the old
 * primary, for until then it confirms commits to it.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { FrozenStandby } from '../../../src/cluster/candidate.js'
import type { ClusterNode } from '../../../src/cluster/model.js'
import { isWitness } from '../../../src/cluster/topology.js'
import { majorityOf, readTrace, STORE_VOTER, type VoteTrace } from '../../../src/cluster/voters.js'
import type { Command } from '../../../src/host/command.js'
import { guarded } from '../../../src/host/guard.js'
import type { StepContext } from '../../../src/operations/step.js'
import { endBlockers, freeze, readBefore, readStanding, type Standing, thaw } from '../../../src/postgres/freeze.js'
import { knownOfPrimary, SHARED_SETTINGS, tooLowToStart } from '../../../src/postgres/shared-settings.js'
import { readTraceText, takeVote, type Vote, VoteTaken, writeTrace } from '../../../src/postgres/vote.js'
import type { Bench } from '../../bench.js'
import type { Fact } from './evidence.js'

/** A server that has not heard of us for so long ends our session, and with it our vote. */
export const VOTE_IDLE_MS = 1500
const CONNECT_MS = 3000
const QUIET_MS = 200
const SSH_MS = 4000
const SETTLE_MS = 5000
/** The store’s lease must outlast what is left to do. */
const LEASE_MARGIN_MS = 2 * VOTE_IDLE_MS

export interface Voter {
  node: ClusterNode
  vote: Vote
  trace: VoteTrace
  standing: Standing
  /** What was on its disk when we came: of an operation that has not ended, or of an earlier turn. */
  found: VoteTrace | undefined
}

export interface Ballot {
  needed: number
  of: number
  voters: Voter[]
  given: Fact[]
  missing: Fact[]
}

export const hasMajority = ({ needed, given }: Ballot) => given.length >= needed

/** Asks every voter, side by side. Never throws for one that does not vote. */
export async function vote(
  bench: Bench,
  electors: readonly ClusterNode[],
  lost: readonly string[],
  context: StepContext,
): Promise<Ballot> {
  const given: Fact[] = []
  const missing: Fact[] = []
  const voters: Voter[] = []
  const ask = async (node: ClusterNode) => {
    try {
      const voter = await voteOf(bench, node, lost, context)
      voters.push(voter)
      const what = isWitness(node)
        ? 'the witness, by its lock'
        : `frozen at ${voter.standing.lsn ?? 'an unknown position'} on timeline ${voter.standing.timeline}`
      given.push({ who: node.name, detail: what })
    } catch (error) {
      context.signal.throwIfAborted()
      missing.push({ who: node.name, detail: error instanceof Error ? error.message : String(error) })
    }
  }
  const askStore = async () => {
    const answer = await storeVote(bench, context)
    if (answer === undefined)
      given.push({ who: STORE_VOTER, detail: `by the lease of this operation, turn ${context.epoch}` })
    else missing.push({ who: STORE_VOTER, detail: answer })
  }
  await Promise.all([...electors.map(ask), askStore()])
  return { needed: majorityOf(electors.length), of: electors.length + 1, voters, given, missing }
}

/** Undefined: it votes. Otherwise why it does not. */
export async function storeVote({ ledger }: Bench, { operationId, epoch }: StepContext): Promise<string | undefined> {
  if (!ledger) return 'it cannot be asked here'
  try {
    const answer = await ledger.vote()
    if (!answer.may) return answer.reason
    return (await ledger.leaseLeftMs(operationId, epoch)) > LEASE_MARGIN_MS
      ? undefined
      : 'this worker does not hold its lease any more'
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
}

export const sessionOn = (bench: Bench, node: ClusterNode, signal: AbortSignal) =>
  takeVote(
    { host: node.host, port: bench.cluster.port, trust: bench.tls.trust },
    { user: 'repmgr', database: 'repmgr', password: bench.password },
    { connectMs: CONNECT_MS, idleMs: VOTE_IDLE_MS, signal },
  ).catch(error => {
    throw error instanceof VoteTaken ? new Error(`${error.message}: another operation or service is at work`) : error
  })

async function voteOf(bench: Bench, node: ClusterNode, lost: readonly string[], context: StepContext): Promise<Voter> {
  const { cluster } = bench
  const { operationId, epoch, signal } = context
  const mine = await sessionOn(bench, node, signal)
  try {
    const standing = await readStanding(mine.query)
    const found = readTrace(await readTraceText(mine.query), node.name)
    const identifier = cluster.systemIdentifier
    const own = standing.systemIdentifier === identifier
    if (isWitness(node) ? own || standing.inRecovery : !own || !standing.inRecovery)
      throw new Error(`it is no ${isWitness(node) ? 'witness' : 'standby'} of this cluster`)
    // From here on its host refuses a worker of before; one that SSH does not reach is held by its vote alone.
    await bump(bench, node, context)
    const before = isWitness(node) ? undefined : (found?.before ?? (await readBefore(mine.query)))
    const trace: VoteTrace = {
      node: node.name,
      operation: operationId,
      epoch,
      lost: [...lost],
      ...(before ? { before } : {}),
      // What another one has begun stays known until it is known what came of it.
      ...(found?.candidate === undefined
        ? {}
        : { candidate: found.candidate, operation: found.operation, epoch: found.epoch }),
    }
    await writeTrace(mine, trace)
    if (isWitness(node)) return { node, vote: mine, trace, standing, found }
    await freeze(mine, standing.version)
    await untilQuiet(bench, node, mine, context)
    return { node, vote: mine, trace, standing: await readStanding(mine.query), found }
  } catch (error) {
    await mine.release()
    throw error
  }
}

const onHost = (bench: Bench, node: ClusterNode, command: Command, { epoch, signal }: StepContext) =>
  bench.host(node).run(guarded(command, { scope: bench.cluster.name, epoch, waitMs: 1000 }), {
    signal: AbortSignal.any([signal, AbortSignal.timeout(SSH_MS)]),
  })

async function bump(bench: Bench, node: ClusterNode, context: StepContext): Promise<void> {
  if (bench.absent.has(node.name)) return
  await onHost(bench, node, { argv: ['true'], as: 'root', timeoutMs: 2000 }, context).catch(error => {
    context.signal.throwIfAborted()
    context.log(`${node.name}: its host was not told of this turn: ${error instanceof Error ? error.message : error}`)
  })
}

const END = `receiver=$1 startup=$2
[ -z "$receiver" ] || kill -TERM "$receiver" 2>/dev/null
[ -z "$startup" ] || pkill -TERM -P "$startup" 2>/dev/null
exit 0`

/** Its receiver has ended, and a restore_command that still runs: by itself, or by a signal. Throws where it goes on. */
async function untilQuiet(bench: Bench, node: ClusterNode, mine: Vote, context: StepContext): Promise<void> {
  const deadline = performance.now() + SETTLE_MS
  let told = false
  for (const begun = performance.now(); ; await sleep(20)) {
    const { receiver, startup } = await readStanding(mine.query)
    const restoring = startup?.waitsFor.includes('RestoreCommand') === true
    if (receiver === undefined && !restoring) return
    if (performance.now() > deadline)
      throw new Error('its receiver does not end, so it may still confirm commits to the old primary')
    if (told || performance.now() - begun < QUIET_MS) continue
    told = true
    const pids = [receiver === undefined ? '' : String(receiver), restoring && startup ? String(startup.pid) : '']
    await onHost(
      bench,
      node,
      {
        argv: ['sh', '-c', END, 'understudy-end-receiver', ...pids],
        as: 'postgres',
        timeoutMs: 3000,
        shownAs: `end the WAL receiver of ${node.name}`,
      },
      context,
    ).catch(error => {
      context.signal.throwIfAborted()
      context.log(
        `${node.name}: its receiver could not be ended over SSH: ${error instanceof Error ? error.message : error}`,
      )
    })
  }
}

/**
 * Its position, once it stands still and everything that is there is replayed, or replay moves. Sessions of clients that
 * hold replay back are ended where it is not only looked at.
 */
export async function settle(bench: Bench, { node, vote: mine }: Voter, context: StepContext): Promise<FrozenStandby> {
  const deadline = performance.now() + SETTLE_MS
  let before = await readStanding(mine.query)
  let heldBackBy: string | undefined
  const tooLow = before.paused ? await tooLowOf(bench, node, context) : undefined
  if (before.paused && tooLow === undefined) await mine.query('SELECT pg_wal_replay_resume()')
  for (;;) {
    await sleep(40)
    const now = await readStanding(mine.query)
    const still = now.lsn === before.lsn && now.receiver === undefined
    const waits = now.startup?.waitsFor ?? ''
    const atEnd = now.replayed === now.lsn || /RecoveryWalStream|RecoveryRetrieveRetryInterval/.test(waits)
    const moves = now.replayed !== before.replayed
    if (still && (atEnd || moves) && !now.paused) return frozen(node, now, true)
    if (performance.now() > deadline || tooLow !== undefined) {
      const why = now.paused ? 'it is paused' : (heldBackBy ?? (waits === '' ? undefined : `it waits for ${waits}`))
      return { ...frozen(node, now, false), ...(why ? { heldBackBy: why } : {}), ...(tooLow ? { tooLow } : {}) }
    }
    if (/^Lock:|RecoveryConflict|BufferPin/.test(waits)) {
      heldBackBy = `sessions of clients held it back (${waits})`
      const ended = await endBlockers(mine.query)
      context.log(`${node.name}: ${ended} sessions that held replay back were ended`)
    }
    before = now
  }
}

const frozen = (node: ClusterNode, now: Standing, replays: boolean): FrozenStandby => ({
  node,
  systemIdentifier: now.systemIdentifier,
  timeline: now.timeline,
  lsn: now.lsn,
  replays,
  promotionPending: now.promotionPending,
})

/** Paused by the server itself, because its settings are too low: told to go on, or promoted, it would shut down. */
async function tooLowOf(bench: Bench, node: ClusterNode, { signal }: StepContext): Promise<string | undefined> {
  const { layout } = bench
  const [{ stdout }, rows] = await Promise.all([
    bench
      .host(node)
      .run(
        { argv: [`${layout.binDirectory}/pg_controldata`, layout.dataDirectory], as: 'postgres', timeoutMs: 5000 },
        { signal },
      ),
    bench.ask(node, { signal }, query =>
      query('SELECT name, setting FROM pg_settings WHERE name = ANY($1)', [[...SHARED_SETTINGS]]),
    ),
  ])
  const own = Object.fromEntries(rows.map(({ name, setting }) => [String(name), Number(setting)]))
  const needed = knownOfPrimary(stdout)
  const [name] = tooLowToStart(own, needed)
  return name === undefined ? undefined : `has ${name} = ${own[name]}, and the primary ${needed[name]}`
}

/** Whether each still is as it was when it voted; throws for the first that is not. */
export async function confirm(
  bench: Bench,
  { voters, given }: Ballot,
  lsns: ReadonlyMap<string, string>,
  context: StepContext,
) {
  await Promise.all(
    voters.map(async ({ node, vote: mine }) => {
      await mine.ping()
      const was = lsns.get(node.name)
      if (was === undefined) return
      const { lsn, receiver } = await readStanding(mine.query)
      if (receiver !== undefined || lsn !== was) throw new Error(`${node.name} has moved from ${was} to ${lsn}`)
    }),
  )
  if (given.some(({ who }) => who === STORE_VOTER)) {
    const refused = await storeVote(bench, context)
    if (refused !== undefined) throw new Error(`the store has lost its vote: ${refused}`)
  }
}

/** Puts back what freezing has changed, and gives the votes back. Returns what could not be put back. */
export async function undo(
  bench: Bench,
  { voters }: Pick<Ballot, 'voters'>,
  { signal, log }: StepContext,
): Promise<string[]> {
  const left = await Promise.all(
    voters.map(async ({ node, vote: given, trace, standing, found }) => {
      let mine = given
      try {
        // One that was lost meanwhile is asked for again: nobody changes a standby without its vote.
        if (!given.held) mine = await sessionOn(bench, node, signal)
        if (trace.before) await thaw(mine, trace.before, standing.version)
        // One that an earlier operation left goes on to be remembered.
        await writeTrace(mine, found?.candidate === undefined ? undefined : found)
        await mine.query('SELECT pg_reload_conf()')
        return []
      } catch (error) {
        log(`${node.name}: ${error instanceof Error ? error.message : error}`)
        return [
          `${node.name} was cut off from its stream, and could not be put back: retry this operation, which does it.`,
        ]
      } finally {
        await mine.release()
      }
    }),
  )
  return left.flat()
}
