/** What can be seen of a primary that may be lost, from here and from its standbys. Changes nothing. */
import { readConninfo } from '../../../src/cluster/adoption.js'
import type { ClusterNode } from '../../../src/cluster/model.js'
import { settledEpoch } from '../../../src/cluster/promotion.js'
import { dataNodes } from '../../../src/cluster/topology.js'
import { newestBegun, readTrace, type VoteTrace } from '../../../src/cluster/voters.js'
import { OperationError } from '../../../src/operations/errors.js'
import { ServerUnreachable } from '../../../src/postgres/connect.js'
import { readStanding, type Standing } from '../../../src/postgres/freeze.js'
import { readTraceText } from '../../../src/postgres/vote.js'
import type { Bench } from '../../bench.js'

export interface Fact {
  who: string
  detail: string
}

export interface Evidence {
  /** The primary that is to be replaced; several where it is not certain which one it was. */
  lost: ClusterNode[]
  /** Why one of them is taken to be alive, in sentences. */
  alive: { node: ClusterNode; how: string[] }[]
  /** Standbys that answered. */
  standbys: Map<string, Standing>
  /** Nodes that did not answer by SQL, and why. */
  silent: Map<string, string>
  traces: Map<string, VoteTrace>
  /** Names of the nodes whose repmgrd is about, and not paused. */
  repmgrd: string[]
  facts: Fact[]
}

const ASK_MS = 2000
/** Whole seconds: pg_isready knows no others. */
const ISREADY_S = 2

/** They do not let us in, and they are there. */
const LIVING: readonly string[] = ['starting_up', 'too_many_connections', 'authentication', 'tls']

interface Said {
  node: ClusterNode
  standing?: Standing
  trace?: VoteTrace
  primaries: string[]
  repmgrd?: boolean
  failure?: { reason: string; detail: string }
}

async function askNode(bench: Bench, node: ClusterNode, signal: AbortSignal): Promise<Said> {
  try {
    return await bench.ask(node, { timeoutMs: ASK_MS, signal }, async query => {
      const standing = await readStanding(query)
      const trace = readTrace(await readTraceText(query), node.name)
      const rows = await query("SELECT node_name FROM repmgr.nodes WHERE type = 'primary' AND active").catch(() => [])
      // Without its library the server has no such function.
      const [daemon] = await query(
        'SELECT repmgr.repmgrd_is_running() AND NOT repmgr.repmgrd_is_paused() AS acts',
      ).catch(() => [])
      return {
        node,
        standing,
        ...(trace ? { trace } : {}),
        primaries: rows.map(row => String(row.node_name)),
        repmgrd: daemon?.acts === true,
      }
    })
  } catch (error) {
    signal.throwIfAborted()
    const reason = error instanceof ServerUnreachable ? error.reason : 'other'
    return { node, primaries: [], failure: { reason, detail: error instanceof Error ? error.message : String(error) } }
  }
}

/** `promoted`: whom this very operation has promoted, in an earlier turn: it is nobody's old primary. */
export async function gatherEvidence(
  bench: Bench,
  promoted: string | undefined,
  signal: AbortSignal,
): Promise<Evidence> {
  const { cluster } = bench
  const data = dataNodes(cluster.nodes)
  const said = await Promise.all(cluster.nodes.map(node => askNode(bench, node, signal)))
  const of = (node: ClusterNode) => said.find(one => one.node === node)
  const ours = (node: ClusterNode) => {
    const standing = of(node)?.standing
    return standing?.systemIdentifier === (cluster.systemIdentifier ?? standing?.systemIdentifier)
      ? standing
      : undefined
  }
  const standbys = new Map(
    data.flatMap(node => {
      const standing = ours(node)
      return standing?.inRecovery ? [[node.name, standing] as const] : []
    }),
  )
  const traces = new Map(said.flatMap(({ node, trace }) => (trace ? [[node.name, trace] as const] : [])))
  const silent = new Map(said.flatMap(({ node, failure }) => (failure ? [[node.name, failure.detail] as const] : [])))
  const lost = lostPrimaries(bench, said, standbys, traces, promoted)
  const alive = await Promise.all(
    lost.map(async node => ({ node, how: await signsOfLife(bench, node, of(node), [...standbys.keys()], signal) })),
  )
  const repmgrd = said.flatMap(one => (one.repmgrd ? [one.node.name] : []))
  const facts = said.flatMap(({ node, standing, failure }): Fact[] => {
    if (failure) return [{ who: node.name, detail: failure.detail }]
    if (!standing) return []
    if (!standing.inRecovery) return [{ who: node.name, detail: `accepts writes, on timeline ${standing.timeline}` }]
    const stream = standing.receiver === undefined ? 'receives no WAL' : 'has an open stream'
    return [
      { who: node.name, detail: `a standby on timeline ${standing.timeline} at ${standing.lsn ?? '?'}; ${stream}` },
    ]
  })
  return { lost, alive: alive.filter(({ how }) => how.length > 0), standbys, silent, traces, repmgrd, facts }
}

/**
 * Whoever accepts writes; whom the standbys stream from or were told to; whom repmgr’s metadata name on the standby that has
 * the most; whom somebody has begun to promote and who does not answer. Where nobody says, every node that is no standby.
 */
function lostPrimaries(
  { cluster }: Bench,
  said: readonly Said[],
  standbys: ReadonlyMap<string, Standing>,
  traces: ReadonlyMap<string, VoteTrace>,
  promoted: string | undefined,
): ClusterNode[] {
  const data = dataNodes(cluster.nodes).filter(({ name }) => !standbys.has(name) && name !== promoted)
  const sources = [...standbys].flatMap(([name, { conninfo }]) => {
    const told = conninfo || traces.get(name)?.before?.primary_conninfo || ''
    const host = readConninfo(told)?.get('host')
    return host === undefined ? [] : [host]
  })
  const metadata = said.filter(({ node }) => standbys.has(node.name)).flatMap(({ primaries }) => primaries)
  const { promotion } = cluster
  const remembered = [...traces.values()].flatMap(({ lost = [] }) => lost)
  const begun = newestBegun(traces, settledEpoch(promotion))?.trace.candidate
  const named = data.filter(
    node =>
      said.find(one => one.node === node)?.standing?.inRecovery === false ||
      sources.includes(node.host) ||
      metadata.includes(node.name) ||
      remembered.includes(node.name) ||
      begun === node.name,
  )
  if (named.length > 0) return named
  const last = data.filter(({ name }) => name === promotion?.to)
  return last.length > 0 ? last : data
}

async function signsOfLife(
  bench: Bench,
  node: ClusterNode,
  said: Said | undefined,
  standbys: readonly string[],
  signal: AbortSignal,
): Promise<string[]> {
  if (said?.standing) return ['It answers, and accepts writes.']
  const how: string[] = []
  if (said?.failure && LIVING.includes(said.failure.reason)) how.push(`It answers: ${said.failure.detail}`)
  const observers = bench.cluster.nodes.filter(({ name }) => standbys.includes(name) && !bench.absent.has(name))
  const seen = await Promise.all(
    observers.map(async from => [from.name, await isReady(bench, from, node, signal)] as const),
  )
  for (const [from, answer] of seen) if (answer !== undefined) how.push(`Seen from ${from}, ${answer}.`)
  return how
}

/** As PostgreSQL’s own tool sees it from the host of a standby. Undefined: no answer, or nobody could look. */
async function isReady(bench: Bench, from: ClusterNode, node: ClusterNode, signal: AbortSignal) {
  const argv = [`${bench.layout.binDirectory}/pg_isready`, '-q', '-h', node.host, '-p', String(bench.cluster.port)]
  try {
    const { exitCode } = await bench
      .host(from)
      .run(
        { argv: [...argv, '-t', String(ISREADY_S)], as: 'login', timeoutMs: (ISREADY_S + 2) * 1000 },
        { signal, acceptExit: [0, 1, 2, 3] },
      )
    return exitCode === 0 ? 'it accepts connections' : exitCode === 1 ? 'it is starting, or shutting down' : undefined
  } catch (error) {
    signal.throwIfAborted()
    if (error instanceof OperationError) return undefined
    throw error
  }
}
