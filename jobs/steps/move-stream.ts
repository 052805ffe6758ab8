/**
 * A running standby goes over to another node. Never without a source that works: the slot is there before the stream, the
 * way back stays until the new stream is seen, and only then is the slot of before dropped.
 */
import { escapeLiteral } from 'pg'
import { readConninfo } from '../../src/cluster/adoption.js'
import { parseLsn } from '../../src/cluster/lsn.js'
import type { ClusterNode } from '../../src/cluster/model.js'
import { slotName } from '../../src/cluster/slot.js'
import { divergence, type Position } from '../../src/cluster/timeline-history.js'
import { dataNodes, upstreamOf } from '../../src/cluster/topology.js'
import { act, runSql } from '../../src/host/actions.js'
import { OperationError } from '../../src/operations/errors.js'
import type { ChangeStep, Check, StepContext } from '../../src/operations/step.js'
import { ServerUnreachable } from '../../src/postgres/connect.js'
import type { Bench } from '../bench.js'
import { NotInTime, until } from '../until.js'
import { superuser } from './local-sql.js'
import { dropSlotSql } from './slot.js'
import { streamFrom } from './stream-source.js'
import { makeSlot } from './upstream-slot.js'

/** Thrown when a standby could never stream from the node that it is to go over to. It was left as it is. */
export class CannotFollow extends OperationError {
  constructor(node: string, upstream: string, why: string, remedy: string) {
    super(`${node} cannot stream from ${upstream}: ${why}.`, { code: 'cannot-follow', outcome: 'not_started', remedy })
  }
}

/** Thrown when a standby was told its new source, and nothing came from there. It streams from where it did before. */
class FollowFailed extends OperationError {
  constructor(node: string, upstream: string, before: string, waitedMs: number) {
    super(`${node} did not stream from ${upstream} within ${waitedMs / 1000} s, and was put back to ${before}.`, {
      code: 'follow-failed',
      outcome: 'failed_clean',
      remedy: `The log of PostgreSQL on ${node} says why (/var/log/postgresql). It may be that ${upstream} is behind ${node}: then repeat the call once it has caught up.`,
    })
  }
}

/** An upstream that is a little behind is asked again every five seconds (wal_retrieve_retry_interval). */
const STREAM_TIMEOUT_MS = 60_000
/** The stream of before ends by itself; where its host has vanished, the server notices after a minute. */
const PLACES_TIMEOUT_MS = 5000

const CONNINFO = "current_setting('primary_conninfo') AS conninfo, current_setting('primary_slot_name') AS slot"

/** What a standby was told, as it runs with it: a file that was written and not read yet does not count. */
async function toldSource(bench: Bench, node: ClusterNode, signal: AbortSignal) {
  const [row] = await bench.ask(node, { signal }, query => query(`SELECT ${CONNINFO}`))
  const [conninfo, slot] = [String(row?.conninfo ?? ''), String(row?.slot ?? '')]
  const values = readConninfo(conninfo)
  return { conninfo, slot, host: values?.get('host') ?? '', port: Number(values?.get('port') ?? 5432) }
}

async function streamsFrom(bench: Bench, node: ClusterNode, upstream: ClusterNode, signal: AbortSignal) {
  const rows = await bench.ask(upstream, { signal }, query =>
    query("SELECT 1 FROM pg_stat_replication WHERE application_name = $1 AND state = 'streaming'", [node.name]),
  )
  return rows.length > 0
}

/** Whom a node receives from now; undefined of a primary, and while nothing comes. */
async function receivesFrom(bench: Bench, node: ClusterNode, primary: ClusterNode, signal: AbortSignal) {
  const [row] = await bench.ask(node, { signal }, query =>
    query("SELECT sender_host AS host FROM pg_stat_wal_receiver WHERE status = 'streaming'"),
  )
  if (!row) return undefined
  const { nodes } = bench.cluster
  const byAddress = dataNodes(nodes).find(({ host }) => host === row.host)
  if (byAddress) return byAddress
  // It may know the other one by another address than this service does.
  const described = upstreamOf(node, nodes, primary)
  return (await streamsFrom(bench, node, described, signal)) ? described : undefined
}

const POSITION = `SELECT CASE WHEN pg_is_in_recovery()
    THEN GREATEST((SELECT received_tli FROM pg_stat_wal_receiver), (SELECT timeline_id FROM pg_control_checkpoint()),
                  (SELECT min_recovery_end_timeline FROM pg_control_recovery()))
    ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int END AS timeline,
  (CASE WHEN pg_is_in_recovery() THEN GREATEST(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
    ELSE pg_current_wal_lsn() END)::text AS lsn,
  (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size')::text AS segment`

async function positionOf(bench: Bench, node: ClusterNode, signal: AbortSignal) {
  const [row] = await bench.ask(node, { signal }, query => query(POSITION))
  if (typeof row?.lsn !== 'string') throw new TypeError(`${node.name} has no position in the WAL`)
  const position: Position = { timeline: Number(row.timeline), lsn: parseLsn(row.lsn) }
  return { ...position, segmentBytes: BigInt(String(row.segment)) }
}

/** Throws `CannotFollow` where the standby would be stranded. Looked at before anything is changed. */
async function refuseStranding(
  bench: Bench,
  node: ClusterNode,
  upstream: ClusterNode,
  primary: ClusterNode,
  signal: AbortSignal,
) {
  const refuse = (why: string, remedy: string): never => {
    throw new CannotFollow(node.name, upstream.name, why, remedy)
  }
  const path = [upstream]
  for (let at = upstream; at !== primary; ) {
    const above = await receivesFrom(bench, at, primary, signal)
    if (!above) return refuse(`${at.name} receives no WAL itself`, `Bring the stream of ${at.name} back first.`)
    if (above === node || path.includes(above)) {
      const circle = [node, ...path].map(({ name }) => name).join(' would stream from ')
      return refuse(
        `${circle}, and that one from ${above.name}: a circle, without a primary`,
        `Let ${path.at(-1)?.name} stream from a node that is not below ${node.name} first.`,
      )
    }
    path.push(above)
    at = above
  }
  const [from, to] = await Promise.all([node, upstream].map(one => positionOf(bench, one, signal)))
  if (!from || !to) throw new TypeError('two nodes have two positions')
  const clone = `What ${node.name} has cannot be carried on there. Choose another upstream, or clone it anew (POST …/nodes/${node.name}/clone).`
  const [row] = await bench.ask(upstream, { signal }, query =>
    query(
      `SELECT pg_read_file('pg_wal/' || $1 || '.history', 0, 1000000, true) AS history,
              (SELECT min(substr(name, 9)) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$') AS oldest`,
      [to.timeline.toString(16).toUpperCase().padStart(8, '0')],
    ),
  )
  const apart = divergence(from, to, String(row?.history ?? ''))
  if (apart !== undefined) refuse(apart, clone)
  if (String(row?.oldest ?? '') > segmentOf(from.lsn, from.segmentBytes))
    refuse(`${upstream.name} has removed WAL that ${node.name} has not received`, clone)
}

/** The name of its WAL file without the timeline: names of files on different timelines compare by it. */
function segmentOf(lsn: string, segmentBytes: bigint): string {
  const [high = '', low = ''] = lsn.split('/')
  const segment = BigInt(`0x${low}`) / segmentBytes
  return [high, segment.toString(16)].map(half => half.toUpperCase().padStart(8, '0')).join('')
}

/** Tells a standby whom to stream from where that is another node, and sees that it does; otherwise it goes back. */
export function moveStream(bench: Bench, node: ClusterNode, primary: ClusterNode): ChangeStep {
  const upstream = upstreamOf(node, bench.cluster.nodes, primary)
  const told = (signal: AbortSignal) => toldSource(bench, node, signal)
  const isThere = ({ host, port }: { host: string; port: number }) =>
    host === upstream.host && port === bench.cluster.port
  let before: { conninfo: string; slot: string; host: string } | undefined
  return {
    id: `${node.name}/upstream`,
    kind: 'change',
    title: `let it stream from ${upstream.name}`,
    node: node.name,
    actions: [
      act(
        `see that ${node.name} can go on from ${upstream.name}, and that it is no circle`,
        async ({ signal, log }) => {
          await refuseStranding(bench, node, upstream, primary, signal)
          before = await told(signal)
          log(`it streams from ${before.host} until now`)
        },
      ),
      ...makeSlot(bench, upstream, node).actions,
      ...streamFrom(bench, node, upstream).actions,
      act(`wait until it streams; if it does not, put it back to where it streamed from`, async context => {
        try {
          await until(`${node.name} streams from ${upstream.name}`, STREAM_TIMEOUT_MS, context, () =>
            streamsFrom(bench, node, upstream, context.signal),
          )
        } catch (error) {
          if (!(error instanceof NotInTime) || !before || before.conninfo === '') throw error
          await putBack(bench, node, before, context)
          // It would keep WAL there for nobody.
          await runSql(bench.host(upstream), bench.cluster.name, {
            ...superuser(bench),
            ...dropSlotSql(slotName(node.nodeId)),
          }).perform(context)
          throw new FollowFailed(node.name, upstream.name, before.host, STREAM_TIMEOUT_MS)
        }
      }),
    ],
    async check({ signal }): Promise<Check> {
      const source = await told(signal)
      if (isThere(source)) return { done: true }
      // A server may be known by several addresses, and its own list of streams is the better witness.
      if (await streamsFrom(bench, node, upstream, signal)) return { done: true }
      const other = dataNodes(bench.cluster.nodes).find(({ host }) => host === source.host)
      return { done: false, reason: `it streams from ${other?.name ?? (source.host || 'nowhere')}` }
    },
  }
}

/** Written by the server: a string of somebody else may hold a password, so it goes over standard input and into no log. */
async function putBack(
  bench: Bench,
  node: ClusterNode,
  before: { conninfo: string; slot: string },
  context: StepContext,
) {
  const statement = `ALTER SYSTEM SET primary_conninfo = ${escapeLiteral(before.conninfo)};
ALTER SYSTEM SET primary_slot_name = ${escapeLiteral(before.slot)};
SELECT pg_reload_conf();
`
  const back = runSql(bench.host(node), bench.cluster.name, {
    ...superuser(bench),
    shown: 'ALTER SYSTEM SET primary_conninfo, primary_slot_name as they were',
    statement: () => statement,
  })
  await back.perform(context)
}

/**
 * The slots that a standby had on nodes from which it does not stream any more: they would keep WAL there for ever. A node
 * that does not answer keeps its own until it is asked again.
 */
export function dropFormerSlots(bench: Bench, node: ClusterNode, primary: ClusterNode): ChangeStep {
  const upstream = upstreamOf(node, bench.cluster.nodes, primary)
  const slot = slotName(node.nodeId)
  const places = dataNodes(bench.cluster.nodes).filter(
    other => other !== node && other !== upstream && !bench.absent.has(other.name),
  )
  const found = async (signal: AbortSignal) => {
    const asked = await Promise.all(
      places.map(async place => {
        try {
          const rows = await bench.ask(place, { signal, timeoutMs: PLACES_TIMEOUT_MS }, query =>
            query('SELECT 1 FROM pg_replication_slots WHERE slot_name = $1', [slot]),
          )
          return rows.length > 0 ? [place] : []
        } catch (error) {
          if (error instanceof ServerUnreachable) return []
          throw error
        }
      }),
    )
    return asked.flat()
  }
  const drop = (place: ClusterNode) =>
    runSql(bench.host(place), bench.cluster.name, { ...superuser(bench), ...dropSlotSql(slot) })
  return {
    id: `${node.name}/former-slots`,
    kind: 'change',
    title: `drop the slots that it does not stream through any more`,
    node: node.name,
    actions: [
      {
        description: { kind: 'sql', text: `${dropSlotSql(slot).shown}, on each node but ${upstream.name} that has it` },
        async perform(context) {
          if (!(await streamsFrom(bench, node, upstream, context.signal)))
            throw new CannotFollow(
              node.name,
              upstream.name,
              'its stream from there has ended again',
              'Its former slots were kept. Look at the status of the cluster, then repeat the call.',
            )
          for (const place of await found(context.signal)) {
            context.log(`on ${place.name}`)
            await drop(place).perform(context)
          }
        },
      },
    ],
    async check({ signal }): Promise<Check> {
      const left = (await found(signal)).map(({ name }) => name)
      return left.length === 0
        ? { done: true }
        : { done: false, reason: `${left.join(' and ')} ${left.length === 1 ? 'has' : 'have'} a slot of it too` }
    },
  }
}
