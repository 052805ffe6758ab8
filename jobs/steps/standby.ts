/** A standby: a clone of the node that it is to stream from, started, following, registered. */
import { setTimeout as sleep } from 'node:timers/promises'
import { cloneBytes } from '../../src/cluster/check-hosts.js'
import type { ClusterNode } from '../../src/cluster/model.js'
import { slotName } from '../../src/cluster/slot.js'
import { hasTls } from '../../src/cluster/tls.js'
import { upstreamOf } from '../../src/cluster/topology.js'
import { act, changing, runCommand } from '../../src/host/actions.js'
import { forgetDetached } from '../../src/host/detached.js'
import { detachedId, runDetached } from '../../src/host/detached-action.js'
import type { CommandFailed } from '../../src/host/errors.js'
import { writeFile } from '../../src/host/files.js'
import { diskFree } from '../../src/host/system.js'
import { OperationError } from '../../src/operations/errors.js'
import { paceOf, recentSamples, type Sample } from '../../src/operations/pace.js'
import type { Action, ChangeStep, Check, Step, StepContext } from '../../src/operations/step.js'
import type { Marker } from '../../src/postgres/inspect.js'
import { cloneStandby, registerStandby } from '../../src/repmgr/commands.js'
import { addressOf, type Bench } from '../bench.js'
import { isInUse, NotAStandby, refuseForeign } from '../find-primary.js'
import { until } from '../until.js'
import { emptyUnused, markerFile } from './data-directory.js'
import { moveStream } from './move-stream.js'
import { startServer } from './primary.js'
import { registrationOf } from './registration.js'
import { streamStep } from './stream-tls.js'
import { refuseUsedTablespaces } from './tablespaces.js'

export function makeStandby(bench: Bench, node: ClusterNode, primary: ClusterNode): Step[] {
  return [
    clone(bench, node, primary),
    startServer(bench, node, CATCH_UP_TIMEOUT_MS),
    moveStream(bench, node, primary),
    follow(bench, node, primary),
    ...(hasTls(bench.cluster) ? [streamStep(bench, node, primary)] : []),
    registerStandbyNode(bench, node, primary),
  ]
}

/** Without a primary that runs, it starts all the same, and streams once there is one. */
export function startStandby(bench: Bench, node: ClusterNode, primary: ClusterNode | undefined): Step[] {
  return [startServer(bench, node, CATCH_UP_TIMEOUT_MS), ...(primary ? [follow(bench, node, primary)] : [])]
}

/** A week: as good as none, and still a limit. */
const CLONE_TIMEOUT_MS = 7 * 24 * 3_600_000
/** A standby answers once it has replayed what was written while it was cloned: as long as it lives, it is waited for. */
const CATCH_UP_TIMEOUT_MS = 24 * 3_600_000
const FOLLOW_TIMEOUT_MS = 300_000

/** Thrown when the clone does not fit, before or after it was begun. */
export class DiskFull extends OperationError {
  constructor(
    node: string,
    directory: string,
    detail: string,
    outcome: 'not_started' | 'failed_partial',
    output?: string,
  ) {
    super(`The disk under ${directory} on ${node} is too small: ${detail}`, {
      code: 'disk-full',
      outcome,
      remedy: `Free space on ${node}, or give it a larger disk, then repeat the call. The unfinished copy is removed by the next try; the primary is as it was.`,
      ...(output === undefined ? {} : { output }),
    })
  }
}

/** What the clone's command is called on its host. */
const cloneJob = (node: ClusterNode) => `${node.name}-clone`

/** Where a clone of long ago was not forgotten, it is forgotten before what it made goes. */
export const forgetClone = ({ cluster, host }: Bench, node: ClusterNode): Action =>
  act('forget the clone that made it', ({ signal }) =>
    forgetDetached(host(node), detachedId(cluster.name, cloneJob(node)), { signal }),
  )

export function clone(bench: Bench, node: ClusterNode, primary: ClusterNode): ChangeStep {
  const { layout, cluster } = bench
  const upstream = upstreamOf(node, cluster.nodes, primary)
  const host = bench.host(node)
  const copyName = `understudy_clone_${node.nodeId}`
  const command = cloneStandby(
    layout,
    { ...addressOf(cluster, layout, upstream), nodeId: upstream.nodeId },
    copyName,
    CLONE_TIMEOUT_MS,
  )
  const empty = emptyUnused(bench, node)
  const mark = (state: Marker['state'], { epoch, signal }: StepContext) =>
    writeFile(changing(host, cluster.name, epoch), markerFile(bench, node, state), { signal })
  return {
    id: `${node.name}/clone`,
    kind: 'change',
    title: `clone ${upstream.name}`,
    node: node.name,
    destroys:
      'what this service itself put into the data directory: a fresh, never started server, or a copy that was cut short',
    actions: [
      runDetached(host, cluster.name, command, {
        name: cloneJob(node),
        // The mark changes with the clone's end, and with whatever is done to the directory after it.
        async stillStands({ signal }) {
          const { marker, directory } = await bench.inspect(node, signal)
          return marker?.state === 'cloning' && directory === 'database'
        },
        async before(context) {
          await refuseUsedTablespaces(bench, node, upstream, context.signal)
          // Before the mark: it is what says whether the directory may be emptied, and by itself says no.
          context.log(empty.description.kind === 'command' ? `$ ${empty.description.text}` : 'empty the data directory')
          await empty.perform(context)
          await refuseTooSmall(bench, node, upstream, context.signal)
          await freeSlot(bench, node, upstream, context)
          await mark('cloning', context)
        },
        after: context => mark('in-use', context),
        alongside: (context, signal) => reportProgress(bench, upstream, copyName, context, signal),
        explain: failed => explainClone(bench, node, failed),
      }),
    ],
    async check({ signal }): Promise<Check> {
      const state = await bench.inspect(node, signal)
      refuseForeign(bench, node, state)
      if (!isInUse(state)) {
        const begun = state.marker?.state === 'cloning'
        return { done: false, reason: begun ? 'a copy was begun and is not whole' : 'it holds no copy yet' }
      }
      const { systemIdentifier, standbySignal, inRecovery } = state
      if (inRecovery !== true && !standbySignal) {
        throw new NotAStandby(node.name, 'it became a primary, or was one, since this operation began.')
      }
      return { done: true, note: `system identifier ${systemIdentifier}` }
    },
  }
}

/**
 * A host that lost its power leaves a stream that its upstream takes for alive for a minute, and repmgr refuses a slot that
 * is in use. It is this node's own, and nothing runs there now: so the stream is ended.
 */
async function freeSlot(bench: Bench, node: ClusterNode, upstream: ClusterNode, context: StepContext): Promise<void> {
  const slot = slotName(node.nodeId)
  await until(`slot ${slot} on ${upstream.name} is free`, 30_000, context, async () => {
    const rows = await bench.ask(upstream, { signal: context.signal }, query =>
      query('SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1 AND active', [
        slot,
      ]),
    )
    return rows.length === 0
  })
}

/** Before hours are spent on it, or a copy is given up for it that takes `clearedBytes`. */
export async function refuseTooSmall(
  bench: Bench,
  node: ClusterNode,
  upstream: ClusterNode,
  signal: AbortSignal,
  clearedBytes = 0,
): Promise<void> {
  const [size] = await bench.ask(upstream, { signal, timeoutMs: 60_000 }, query =>
    query('SELECT sum(pg_database_size(oid))::bigint::text AS bytes FROM pg_database'),
  )
  const neededBytes = cloneBytes(Number(size?.bytes))
  const { availableBytes, mount } = await diskFree(bench.host(node), bench.layout.dataDirectory, { signal })
  if (availableBytes + clearedBytes >= neededBytes) return
  throw new DiskFull(
    node.name,
    bench.layout.dataDirectory,
    `the copy needs about ${mebibytes(neededBytes)}, ${mount} has ${mebibytes(availableBytes)} free${clearedBytes === 0 ? '' : `, and ${mebibytes(clearedBytes)} more without the old copy`}.`,
    'not_started',
  )
}

const mebibytes = (bytes: number) => `${Math.ceil(bytes / 1_048_576)} MiB`

function explainClone(bench: Bench, node: ClusterNode, failed: CommandFailed): OperationError {
  if (!/No space left on device|disk full/i.test(failed.output ?? '')) return failed
  return new DiskFull(
    node.name,
    bench.layout.dataDirectory,
    'it filled up during the clone.',
    'failed_partial',
    failed.output,
  )
}

/** The node that is copied knows how far the copy is. */
async function reportProgress(
  bench: Bench,
  upstream: ClusterNode,
  copyName: string,
  context: StepContext,
  signal: AbortSignal,
): Promise<void> {
  let samples: Sample[] = []
  // Often at first, for a small database is soon copied; then no more often than somebody looks.
  for (let pauseMs = 100; !signal.aborted; pauseMs = Math.min(pauseMs * 1.5, 2000)) {
    await sleep(pauseMs, undefined, { signal })
    const [row] = await bench
      .ask(upstream, { timeoutMs: 2000, signal }, query =>
        query(
          `SELECT p.backup_streamed::text AS streamed, p.backup_total::text AS total
             FROM pg_stat_progress_basebackup p JOIN pg_stat_activity a USING (pid) WHERE a.application_name = $1`,
          [copyName],
        ),
      )
      .catch(() => [])
    if (!row) {
      // Not begun yet: the copy waits for a checkpoint, or a worker before this one has started it long ago.
      pauseMs = 100
      continue
    }
    const doneBytes = Number(row.streamed)
    const totalBytes = Number(row.total ?? 0)
    const percent = Math.min(100, Math.round((doneBytes / totalBytes) * 1000) / 10)
    samples = recentSamples(samples, { atMs: performance.now(), doneBytes })
    const pace = paceOf(samples, totalBytes > 0 ? totalBytes : undefined)
    context.progress({ doneBytes, ...(totalBytes > 0 ? { totalBytes, percent } : {}), ...pace })
  }
}

export function follow(bench: Bench, node: ClusterNode, primary: ClusterNode): ChangeStep {
  const upstream = upstreamOf(node, bench.cluster.nodes, primary)
  const streaming = async (signal: AbortSignal) => {
    const [row] = await bench.ask(upstream, { signal }, query =>
      query(
        'SELECT state, (SELECT active FROM pg_replication_slots WHERE slot_name = $2) AS slot FROM pg_stat_replication WHERE application_name = $1',
        [node.name, slotName(node.nodeId)],
      ),
    )
    return row
  }
  return {
    id: `${node.name}/follow`,
    kind: 'change',
    title: `wait until it streams from ${upstream.name}`,
    node: node.name,
    actions: [
      act('wait until it streams', context =>
        until(
          `${node.name} streams from ${upstream.name}`,
          FOLLOW_TIMEOUT_MS,
          context,
          async () => (await streaming(context.signal))?.state === 'streaming',
        ),
      ),
    ],
    async check({ signal }): Promise<Check> {
      const row = await streaming(signal)
      if (row?.state !== 'streaming')
        return { done: false, reason: row ? `its stream is in state ${row.state}` : 'it has no stream yet' }
      return {
        done: true,
        note: row.slot === true ? `streaming, slot ${slotName(node.nodeId)}` : 'streaming, without a slot',
      }
    },
  }
}

export function registerStandbyNode(bench: Bench, node: ClusterNode, primary: ClusterNode): ChangeStep {
  const upstream = upstreamOf(node, bench.cluster.nodes, primary)
  const delayed = node.applyDelayMs !== undefined
  return {
    id: `${node.name}/register`,
    kind: 'change',
    title: 'register the standby with repmgr',
    node: node.name,
    actions: [
      runCommand(bench.host(node), bench.cluster.name, registerStandby(bench.layout, upstream.nodeId, delayed)),
    ],
    check: ({ signal }) =>
      registrationOf(bench, node, primary, signal, row =>
        row.type === 'standby' && row.upstreamNodeId === upstream.nodeId
          ? undefined
          : `as a ${row.type} under node ${row.upstreamNodeId}`,
      ),
  }
}
