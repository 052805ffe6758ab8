/** A standby: a clone of the primary, started, following, registered. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { ClusterNode } from '../../src/cluster/model.js'
import { slotName } from '../../src/cluster/status.js'
import { act, changing, runCommand } from '../../src/host/actions.js'
import { render } from '../../src/host/command.js'
import { runDetached } from '../../src/host/detached-action.js'
import type { CommandFailed } from '../../src/host/errors.js'
import { writeFile } from '../../src/host/files.js'
import { diskFree } from '../../src/host/system.js'
import { OperationError } from '../../src/operations/errors.js'
import type { Check, Step, StepContext } from '../../src/operations/step.js'
import { cloneStandby, registerStandby } from '../../src/repmgr/commands.js'
import { readMetadata } from '../../src/repmgr/metadata.js'
import type { Bench } from '../bench.js'
import { until } from '../until.js'
import { markerFile } from './prepare-host.js'
import { startServer } from './primary.js'

export function makeStandby(bench: Bench, node: ClusterNode, primary: ClusterNode): Step[] {
  return [
    clone(bench, node, primary),
    startServer(bench, node),
    follow(bench, node, primary),
    register(bench, node, primary),
  ]
}

/** A week: as good as none, and still a limit. */
const CLONE_TIMEOUT_MS = 7 * 24 * 3_600_000
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
  const command = cloneStandby(layout, { host: primary.host, port: cluster.port }, CLONE_TIMEOUT_MS)
  // Only ever what was made here and never in use: the marker says so, and a running server stops it.
  const empty = ['find', layout.dataDirectory, '-mindepth', '1', '-delete'] as const
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
          await refuseTooSmall(bench, node, primary, context.signal)
          const guardedHost = changing(host, cluster.name, context.epoch)
          await writeFile(guardedHost, markerFile(bench, node, 'cloning'), { signal: context.signal })
          await refuseInUse(bench, node, context.signal)
          context.log(`$ ${render({ argv: empty, as: 'postgres', timeoutMs: 0 })}`)
          await guardedHost.run({ argv: empty, as: 'postgres', timeoutMs: 600_000 }, { signal: context.signal })
        },
        after: ({ epoch, signal }) =>
          writeFile(changing(host, cluster.name, epoch), markerFile(bench, node, 'in-use'), { signal }),
        alongside: (context, signal) => reportProgress(bench, node, primary, context, signal),
        explain: failed => explainClone(bench, node, failed),
      }),
    ],
    async check({ signal }): Promise<Check> {
      const { marker, systemIdentifier, standbySignal, inRecovery } = await bench.inspect(node, signal)
      if (marker?.state !== 'in-use')
        return {
          done: false,
          reason: marker?.state === 'cloning' ? 'a copy was begun and is not whole' : 'it holds no copy yet',
        }
      if (inRecovery !== true && !standbySignal) return { done: false, reason: 'it is no standby' }
      return { done: true, note: `system identifier ${systemIdentifier}` }
    },
  }
}

async function refuseInUse(bench: Bench, node: ClusterNode, signal: AbortSignal): Promise<void> {
  const state = await bench.inspect(node, signal)
  const ours =
    state.marker?.cluster === bench.cluster.name && state.marker.node === node.name && state.marker.state === 'cloning'
  if (state.running || !ours) {
    throw new OperationError(`The data directory of ${node.name} is in use, so it is not emptied for a clone.`, {
      code: 'data-directory-not-empty',
      outcome: 'not_started',
      remedy: `Look at who started PostgreSQL on ${node.name}. Nothing was removed.`,
    })
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

/** The primary knows how far the copy is. Tied to the copy by the standby's address, the only thing both sides know. */
async function reportProgress(
  bench: Bench,
  node: ClusterNode,
  primary: ClusterNode,
  context: StepContext,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    await sleep(1000, undefined, { signal })
    const [row] = await bench
      .ask(primary, { timeoutMs: 2000, signal }, query =>
        query(
          `SELECT p.backup_streamed::text AS streamed, p.backup_total::text AS total
             FROM pg_stat_progress_basebackup p JOIN pg_stat_activity a USING (pid) WHERE host(a.client_addr) = $1`,
          [node.host],
        ),
      )
      .catch(() => [])
    if (!row) continue
    const doneBytes = Number(row.streamed)
    const totalBytes = Number(row.total ?? 0)
    context.progress({
      doneBytes,
      ...(totalBytes > 0
        ? { totalBytes, percent: Math.min(100, Math.round((doneBytes / totalBytes) * 1000) / 10) }
        : {}),
    })
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
      act('wait until it streams', ({ signal }) =>
        until(
          `${node.name} streams from ${primary.name}`,
          FOLLOW_TIMEOUT_MS,
          signal,
          async () => (await streaming(signal))?.state === 'streaming',
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
    async check({ signal }): Promise<Check> {
      const row = (await bench.ask(primary, { signal }, readMetadata))?.find(({ nodeId }) => nodeId === node.nodeId)
      if (!row) return { done: false, reason: 'repmgr.nodes does not have it' }
      if (row.type !== 'standby' || !row.active || row.upstreamNodeId !== primary.nodeId) {
        return {
          done: false,
          reason: `repmgr.nodes has it as ${row.active ? 'an active' : 'an inactive'} ${row.type} under node ${row.upstreamNodeId}`,
        }
      }
      return { done: true }
    },
  }
}
