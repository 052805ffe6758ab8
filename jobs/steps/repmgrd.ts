/**
 * repmgrd, where a cluster runs it, would take what we do to a server for a failure, and promote one itself. It is paused
 * before and unpaused after: a pair of stages around a plan. The flag is in a server's shared memory and in a file beside its
 * statistics; it outlives a restart and is lost in a crash, and repmgrd heeds it whenever it is about to act.
 *
 * @see https://www.repmgr.org/docs/current/repmgrd-pausing.html
 */
import type { ClusterNode } from '../../src/cluster/model.js'
import type { RepmgrdObservation } from '../../src/cluster/repmgrd.js'
import { isWitness } from '../../src/cluster/topology.js'
import { runSql } from '../../src/host/actions.js'
import { Superseded } from '../../src/host/errors.js'
import { OperationError } from '../../src/operations/errors.js'
import {
  type Action,
  type ChangeStep,
  type Check,
  type Plan,
  type StepContext,
  stage,
} from '../../src/operations/step.js'
import type { Bench } from '../bench.js'
import type { RepmgrdRecord } from '../repmgrd-record.js'
import { superuser } from './local-sql.js'

type Hosts = Pick<Bench, 'cluster' | 'layout' | 'host'>

/** What one server says of its repmgrd, of itself, and of who streams from it. */
interface State extends RepmgrdObservation {
  acceptsWrites: boolean
  streams: string[]
}

const READ = `SELECT COALESCE(repmgr.repmgrd_is_running(), false), COALESCE(repmgr.repmgrd_is_paused(), false),
  NOT pg_is_in_recovery(), (SELECT string_agg(application_name, ',') FROM pg_stat_replication);`

/** A server that does not run, or is on its way up or down; a database, schema or function that is not there. */
const NOT_THERE = /No such file or directory|Connection refused|the database system is|does not exist/

/** Thrown when a server runs, and does not say how its repmgrd is. */
class RepmgrdUnreadable extends OperationError {
  constructor(node: ClusterNode, said: string) {
    super(`${node.name} does not say whether its repmgrd is paused: ${said.trim()}`, {
      code: 'repmgrd-unreadable',
      outcome: 'not_started',
      remedy: `Look at the log of ${node.name} (/var/log/postgresql), then repeat the call.`,
    })
  }
}

/** Undefined where no server answers that repmgr knows of: nobody is promoted there. Throws where the host does not answer. */
async function read(bench: Hosts, node: ClusterNode, signal: AbortSignal): Promise<State | undefined> {
  const { psql, port, database } = superuser(bench, 'repmgr')
  const { stdout, stderr, exitCode } = await bench.host(node).run(
    {
      argv: [psql, '-XAtqw', '-v', 'ON_ERROR_STOP=1', '-p', String(port), '-d', database, '-f', '-'],
      as: 'postgres',
      stdin: `SET statement_timeout = '10s';\n${READ}\n`,
      timeoutMs: 20_000,
      shownAs: 'see whether repmgrd runs, and is paused',
    },
    { signal, acceptExit: [0, 2, 3] },
  )
  if (exitCode !== 0) {
    if (NOT_THERE.test(stderr)) return undefined
    throw new RepmgrdUnreadable(node, stderr)
  }
  const [running, paused, writes, streams = ''] = stdout.trim().split('|')
  return {
    running: running === 't',
    paused: paused === 't',
    acceptsWrites: writes === 't' && !isWitness(node),
    streams: streams.split(',').filter(name => name !== ''),
  }
}

interface Survey {
  states: Map<ClusterNode, State | undefined>
  /** Hosts that do not answer. */
  away: ClusterNode[]
  /** And why. */
  reasons: string[]
}

async function survey(bench: Hosts, signal: AbortSignal): Promise<Survey> {
  const { nodes } = bench.cluster
  // Asked twice: what is not known here decides whether somebody may be promoted.
  const twice = (node: ClusterNode) =>
    read(bench, node, signal).catch(error => {
      if (!(error instanceof OperationError) || signal.aborted) throw error
      return read(bench, node, signal)
    })
  const answers = await Promise.allSettled(nodes.map(twice))
  const states = new Map<ClusterNode, State | undefined>()
  const away: ClusterNode[] = []
  const reasons: string[] = []
  for (const [index, answer] of answers.entries()) {
    const node = nodes[index] as ClusterNode
    if (answer.status === 'fulfilled') states.set(node, answer.value)
    else if (answer.reason instanceof OperationError && !signal.aborted) {
      away.push(node)
      reasons.push(answer.reason.message)
    } else throw answer.reason
  }
  return { states, away, reasons }
}

const named = (nodes: readonly ClusterNode[]) => nodes.map(({ name }) => name).join(', ')
const those = ({ states }: Survey, which: (state: State) => boolean) =>
  [...states].flatMap(([node, state]) => (state !== undefined && which(state) ? [node] : []))

/** Those that do not answer us and may be at work all the same: they stream, or nobody can say. */
function outOfReach({ states, away }: Survey): ClusterNode[] {
  const said = [...states.values()].filter(state => state !== undefined)
  if (said.length === 0) return away
  const streams = said.flatMap(state => state.streams)
  return away.filter(({ name }) => streams.includes(name))
}

/** Whether any server of the cluster has one. Those that do not answer are not asked twice. */
export async function runsRepmgrd(bench: Bench, signal: AbortSignal): Promise<boolean> {
  const running = bench.cluster.nodes
    .filter(({ name }) => !bench.absent.has(name))
    .filter(node => {
      const { server } = bench.found(node)
      return server.running && server.marker !== undefined
    })
  if (running.length === 0) return false
  const found = await survey({ ...bench, cluster: { ...bench.cluster, nodes: running } }, signal)
  return those(found, state => state.running).length > 0
}

/** Thrown when a node still streams, so that its repmgrd sees what happens, and cannot be told to stand still. */
export class RepmgrdOutOfReach extends OperationError {
  constructor(nodes: readonly ClusterNode[]) {
    super(
      `repmgrd runs in this cluster, and cannot be paused on ${named(nodes)}, which does not answer us and may be at work: it could promote one in the middle.`,
      {
        code: 'repmgrd-out-of-reach',
        outcome: 'not_started',
        remedy: `Bring the connection to ${named(nodes)} back, or end repmgrd or PostgreSQL there, then repeat the call.`,
      },
    )
  }
}

const pauseSql = (paused: boolean) => `SELECT repmgr.repmgrd_pause(${paused});`

/** Guarded by the host's lock and epoch, so that a worker of before can neither pause nor unpause it. */
const tell = (bench: Hosts, node: ClusterNode, statement: string): Action =>
  runSql(bench.host(node), bench.cluster.name, {
    ...superuser(bench, 'repmgr'),
    shown: statement,
    statement: () => `SET statement_timeout = '30s';\n${statement}\n`,
  })

/** `rebuilds`: a node that gets another one's data, and with them the other one's flag. */
function pauseRepmgrd(bench: Bench, record: RepmgrdRecord, rebuilds: string | undefined): ChangeStep {
  return {
    id: 'cluster/pause-repmgrd',
    kind: 'change',
    title: 'pause repmgrd on every node, the witness too',
    actions: [
      {
        description: { kind: 'sql', text: `${pauseSql(true)}   -- on each node, once it is recorded that we do` },
        async perform(context) {
          const now = await survey(bench, context.signal)
          const alive = outOfReach(now)
          for (const reason of now.reasons) context.log(reason)
          if (alive.length > 0) throw new RepmgrdOutOfReach(alive)
          const awake = those(now, ({ paused }) => !paused)
          const before = await record.read()
          const copied =
            awake.length === 0 ? [] : [...now.states].filter(([node, state]) => node.name === rebuilds && !state)
          const ours = new Set([
            ...(before?.nodes ?? []),
            ...awake.map(({ name }) => name),
            ...copied.map(([node]) => node.name),
          ])
          if (ours.size === 0) return
          await record.write({ operation: context.operationId, nodes: [...ours] })
          context.log(`to be unpaused afterwards: ${[...ours].join(', ')}`)
          await Promise.all(awake.map(node => tell(bench, node, pauseSql(true)).perform(context)))
        },
      },
    ],
    async check({ signal, operationId }): Promise<Check> {
      const now = await survey(bench, signal)
      const awake = those(now, ({ paused }) => !paused)
      if (awake.length > 0) return { done: false, reason: `it is not paused on ${named(awake)}` }
      const alive = outOfReach(now)
      if (alive.length > 0) return { done: false, reason: `${named(alive)} does not answer` }
      const hold = await record.read()
      if (hold && (hold.operation !== operationId || hold.kept !== undefined))
        return { done: false, reason: `it is paused on ${hold.nodes.join(', ')} since ${hold.operation}` }
      return { done: true, note: hold ? `paused on ${hold.nodes.join(', ')}` : 'it was paused everywhere already' }
    },
  }
}

function unpauseRepmgrd(bench: Bench, record: RepmgrdRecord): ChangeStep {
  return {
    id: 'cluster/unpause-repmgrd',
    kind: 'change',
    title: 'unpause repmgrd where it was paused for this',
    actions: [
      {
        description: { kind: 'sql', text: `${pauseSql(false)}   -- on each node that was paused for this` },
        perform: context => releaseRepmgrd(bench, record, context),
      },
    ],
    async check({ operationId }): Promise<Check> {
      if (operationId === undefined) return { done: false, reason: 'it is to go on afterwards' }
      const hold = await record.read()
      if (hold?.operation !== operationId) return { done: true }
      if (hold.kept === undefined) return { done: false, reason: `it is paused on ${hold.nodes.join(', ')}` }
      return { done: true, note: `it stays paused on ${hold.nodes.join(', ')}: ${hold.kept}` }
    },
  }
}

/**
 * Unpauses it where it was paused for this operation. Not where nobody accepts writes: it would take for a failure what is
 * our own doing, or what somebody is asked to look at first, and promote one. Then, and where a node does not answer, the
 * record keeps what is left to do, for the next operation and for the diagnosis.
 */
export async function releaseRepmgrd(
  bench: Hosts,
  record: RepmgrdRecord,
  context: Pick<StepContext, 'operationId' | 'epoch' | 'signal' | 'log'>,
): Promise<void> {
  const hold = await record.read()
  if (hold?.operation !== context.operationId) return
  const keep = (nodes: readonly string[], kept: string) => {
    context.log(`repmgrd stays paused on ${nodes.join(', ')}: ${kept}`)
    return record.write({ ...hold, nodes: [...nodes], kept })
  }
  const now = await survey(bench, context.signal)
  const writable = those(now, ({ acceptsWrites }) => acceptsWrites)
  const [primary] = writable
  if (!primary || writable.length > 1)
    return keep(hold.nodes, primary ? `${named(writable)} both accept writes` : 'no server accepts writes')
  const left = await Promise.all(
    bench.cluster.nodes
      .filter(({ name }) => hold.nodes.includes(name))
      .map(async node => {
        const state = now.states.get(node)
        if (state && !state.paused) return []
        try {
          if (!state) return [node]
          await tell(bench, node, wake(node, primary)).perform(context as StepContext)
          return []
        } catch (error) {
          if (!(error instanceof OperationError) || error instanceof Superseded) throw error
          context.log(`${node.name}: ${error.message}`)
          return [node]
        }
      }),
  )
  const silent = left.flat()
  if (silent.length > 0)
    return keep(
      silent.map(({ name }) => name),
      `${named(silent)} did not answer`,
    )
  await record.write(undefined)
}

/** repmgr itself tells a witness whom to watch: its copy of the metadata alone does not turn its repmgrd round. */
const wake = (node: ClusterNode, primary: ClusterNode) =>
  isWitness(node) ? `SELECT repmgr.notify_follow_primary(${primary.nodeId}); ${pauseSql(false)}` : pauseSql(false)

/**
 * A plan with repmgrd held still around it: from before the first step that changes something, so that a plan that is refused
 * by its own first look pauses nobody, to its very end. Whoever ends the operation otherwise calls `releaseRepmgrd`.
 */
export function withRepmgrdHeld(
  bench: Bench,
  record: RepmgrdRecord,
  plan: Plan,
  { rebuilds }: { rebuilds?: string | undefined } = {},
): Plan {
  const looks = plan.findIndex(({ tracks }) => tracks.flat().some(({ kind }) => kind === 'change'))
  if (looks < 0) return plan
  return [
    ...plan.slice(0, looks),
    stage('hold repmgrd still', [pauseRepmgrd(bench, record, rebuilds)]),
    ...plan.slice(looks),
    stage('let repmgrd go on', [unpauseRepmgrd(bench, record)]),
  ]
}
