/** A standby: a clone of the primary, started, following, registered. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { ClusterNode } from '../../src/cluster/model.js'
import { slotName } from '../../src/cluster/status.js'
import { act, changing, runCommand } from '../../src/host/actions.js'
import { runDetached } from '../../src/host/detached-action.js'
import type { CommandFailed } from '../../src/host/errors.js'
import { writeFile } from '../../src/host/files.js'
import { diskFree } from '../../src/host/system.js'
import { OperationError } from '../../src/operations/errors.js'
import type { Check, Step, StepContext } from '../../src/operations/step.js'
import type { Marker } from '../../src/postgres/inspect.js'
import { cloneStandby, registerStandby } from '../../src/repmgr/commands.js'
import type { Bench } from '../bench.js'
import { isInUse, NotAStandby, refuseForeign } from '../find-primary.js'
import { until } from '../until.js'
import { emptyUnused, markerFile } from './data-directory.js'
import { startServer } from './primary.js'
import { registrationOf } from './registration.js'

export function makeStandby(bench: Bench, node: ClusterNode, primary: ClusterNode): Step[] {
  return [
    clone(bench, node, primary),
    startServer(bench, node, CATCH_UP_TIMEOUT_MS),
    follow(bench, node, primary),
    register(bench, node, primary),
  ]
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

function clone(bench: Bench, node: ClusterNode, primary: ClusterNode): Step {
  const { layout, cluster } = bench
  const host = bench.host(node)
  const copyName = `understudy_clone_${node.nodeId}`
  const command = cloneStandby(layout, { host: primary.host, port: cluster.port }, copyName, CLONE_TIMEOUT_MS)
  const empty = emptyUnused(bench, node)
  const mark = (state: Marker['state'], { epoch, signal }: StepContext) =>
    writeFile(changing(host, cluster.name, epoch), markerFile(bench, node, state), { signal })
  return {
    id: `${node.name}/clone`,
    kind: 'change',
    title: `clone ${primary.name}`,
    node: node.name,
    destroys:
      'what this service itself put into the data directory: a fresh, never started server, or a copy that was cut short',
    actions: [
      runDetached(host, cluster.name, command, {
        name: `${node.name}-clone`,
        async before(context) {
          // Before the mark: it is what says whether the directory may be emptied, and by itself says no.
          context.log(empty.description.kind === 'command' ? `$ ${empty.description.text}` : 'empty the data directory')
          await empty.perform(context)
          await refuseTooSmall(bench, node, primary, context.signal)
          await mark('cloning', context)
        },
        after: context => mark('in-use', context),
        alongside: (context, signal) => reportProgress(bench, primary, copyName, context, signal),
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

/** Before hours are spent on it. WAL that is written meanwhile comes on top, hence a margin. */
async function refuseTooSmall(
  bench: Bench,
  node: ClusterNode,
  primary: ClusterNode,
  signal: AbortSignal,
): Promise<void> {
  const [size] = await bench.ask(primary, { signal, timeoutMs: 60_000 }, query =>
    query('SELECT sum(pg_database_size(oid))::bigint::text AS bytes FROM pg_database'),
  )
  const neededBytes = Math.ceil(Number(size?.bytes) * 1.05) + 64 * 1024 * 1024
  const { availableBytes, mount } = await diskFree(bench.host(node), bench.layout.dataDirectory, { signal })
  if (availableBytes >= neededBytes) return
  throw new DiskFull(
    node.name,
    bench.layout.dataDirectory,
    `the copy needs about ${mebibytes(neededBytes)}, ${mount} has ${mebibytes(availableBytes)} free.`,
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

/** The primary knows how far the copy is. */
async function reportProgress(
  bench: Bench,
  primary: ClusterNode,
  copyName: string,
  context: StepContext,
  signal: AbortSignal,
): Promise<void> {
  // Often at first, for a small database is soon copied; then no more often than somebody looks.
  for (let pauseMs = 100; !signal.aborted; pauseMs = Math.min(pauseMs * 1.5, 2000)) {
    await sleep(pauseMs, undefined, { signal })
    const [row] = await bench
      .ask(primary, { timeoutMs: 2000, signal }, query =>
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
    context.progress({ doneBytes, ...(totalBytes > 0 ? { totalBytes, percent } : {}) })
  }
}

function follow(bench: Bench, node: ClusterNode, primary: ClusterNode): Step {
  const streaming = async (signal: AbortSignal) => {
    const [row] = await bench.ask(primary, { signal }, query =>
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
    title: `wait until it streams from ${primary.name}`,
    node: node.name,
    actions: [
      act('wait until it streams', context =>
        until(
          `${node.name} streams from ${primary.name}`,
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

function register(bench: Bench, node: ClusterNode, primary: ClusterNode): Step {
  return {
    id: `${node.name}/register`,
    kind: 'change',
    title: 'register the standby with repmgr',
    node: node.name,
    actions: [runCommand(bench.host(node), bench.cluster.name, registerStandby(bench.layout, primary.nodeId))],
    check: ({ signal }) =>
      registrationOf(bench, node, primary, signal, row =>
        row.type === 'standby' && row.upstreamNodeId === primary.nodeId
          ? undefined
          : `as a ${row.type} under node ${row.upstreamNodeId}`,
      ),
  }
}
