/** What is about to be thrown away: measured, written down, and its WAL kept on the host, before it is. */
import { decodeTime } from 'ulid'
import { type Lsn, parseLsn } from '../../src/cluster/lsn.js'
import type { ClusterNode } from '../../src/cluster/model.js'
import { costsCommits, type Loss, tellLoss } from '../../src/cluster/rejoin.js'
import { act, changing } from '../../src/host/actions.js'
import { CommandFailed } from '../../src/host/errors.js'
import { readFile, writeFile } from '../../src/host/files.js'
import { OperationError } from '../../src/operations/errors.js'
import type { ChangeStep, Check } from '../../src/operations/step.js'
import type { Bench } from '../bench.js'
import { ConfirmationRequired } from '../refusals.js'
import { type Holding, hexadecimal, holdingOf } from './comeback.js'

/** Thrown when what is to be thrown away cannot be kept first. */
export class NoRoomToKeep extends OperationError {
  constructor(node: string, folder: string, detail: string) {
    super(`The WAL that ${node} alone has cannot be kept in ${folder}: ${detail}`, {
      code: 'no-room-to-keep',
      outcome: 'not_started',
      remedy: `Free space on ${node}, then repeat the call. Nothing was thrown away.`,
    })
  }
}

/** One folder an operation, so that a worker that takes it up finds what the one before it has kept. */
export const keptFolder = (bench: Bench, node: ClusterNode, operationId: string) =>
  `${bench.layout.home}/understudy-kept/${node.name}-${new Date(decodeTime(operationId.replace(/^op_/, ''))).toISOString().replaceAll(/[-:]|\.\d+/g, '')}`

const NO_ROOM = 78
const KEEP = `data=$1 kept=$2 segment=$3
shift 3
umask 077
mkdir -p "$kept/pg_wal" || exit 1
wanted=
while [ $# -ge 2 ]; do
  wanted="$wanted $(ls "$data/pg_wal/" | awk -v f="$1" -v l="$2" '{ name = $0; sub(/\\.partial$/, "", name) } name ~ /^[0-9A-F]+$/ && length(name) == 24 && substr(name, 1, 8) == substr(f, 1, 8) && (name "") >= (f "") && (name "") <= (l "")')"
  shift 2
done
set -- $wanted
free=$(df -B1 --output=avail "$kept" | tail -n 1)
needed=$(($# * segment))
[ "$free" -gt "$needed" ] || { echo "it takes $needed bytes, and $free are free." >&2; exit ${NO_ROOM}; }
for name in "$@"; do
  cp -p "$data/pg_wal/$name" "$kept/pg_wal/.$name" && mv -f "$kept/pg_wal/.$name" "$kept/pg_wal/$name" || exit 1
done
for file in "$data"/pg_wal/*.history; do [ ! -f "$file" ] || cp -p "$file" "$kept/pg_wal/" || exit 1; done
sync -f "$kept"
echo "$# segments"`

const segmentOf = (timeline: number, lsn: Lsn, segmentBytes: number) => {
  const [high = '', low = ''] = lsn.split('/')
  return `${hexadecimal(timeline)}${hexadecimal(Number.parseInt(high, 16))}${hexadecimal(Math.floor(Number.parseInt(low, 16) / segmentBytes))}`
}

export function reportLoss(
  bench: Bench,
  node: ClusterNode,
  primary: ClusterNode,
  confirm: string | undefined,
): ChangeStep {
  const host = bench.host(node)
  const reportPath = (operationId: string) => `${keptFolder(bench, node, operationId)}/report.json`
  return {
    id: `${node.name}/loss`,
    kind: 'change',
    title: 'measure what it wrote that the primary does not have, and keep its WAL',
    node: node.name,
    actions: [
      act('copy the WAL after the point where the histories part, and write a report beside it', async context => {
        const { epoch, signal, operationId, log } = context
        const holding = await holdingOf(bench, node, primary, signal)
        if (holding.loss === undefined) return
        refuseUnconfirmed(node, holding.loss, confirm)
        const guarded = changing(host, bench.cluster.name, epoch)
        const kept = keptFolder(bench, node, operationId)
        await keep(bench, node, holding, kept, (command, options) => guarded.run(command, options), signal, log)
        const report = { node: node.name, primary: primary.name, operation: operationId, ...holding.loss }
        await writeFile(
          guarded,
          {
            path: reportPath(operationId),
            content: `${JSON.stringify(report, null, 2)}\n`,
            owner: 'postgres:postgres',
            mode: '0600',
          },
          { signal },
        )
      }),
    ],
    async check({ signal, operationId }): Promise<Check> {
      if (operationId !== undefined) {
        const written = await readFile(host, reportPath(operationId), { signal })
        if (written !== undefined) {
          const note = `${tellLoss(JSON.parse(written) as Loss)}; the WAL is kept in ${keptFolder(bench, node, operationId)} on ${node.name}`
          return { done: true, note }
        }
      }
      const { copy, loss } = await holdingOf(bench, node, primary, signal)
      if (copy !== 'used') return { done: true, note: 'it holds nothing of its own' }
      if (loss === undefined) return { done: true, note: `it has nothing that ${primary.name} does not have` }
      return { done: false, reason: tellLoss(loss) }
    },
  }
}

async function keep(
  bench: Bench,
  node: ClusterNode,
  { own, loss, segmentBytes }: Holding,
  kept: string,
  run: ReturnType<Bench['host']>['run'],
  signal: AbortSignal,
  log: (line: string) => void,
): Promise<void> {
  const spans = own.flatMap(({ timeline, begin, end }) => [
    segmentOf(timeline, begin, segmentBytes),
    segmentOf(timeline, end ?? loss?.lastLsn ?? parseLsn('FFFFFFFF/FFFFFFFF'), segmentBytes),
  ])
  const { dataDirectory } = bench.layout
  try {
    await run(
      {
        argv: ['sh', '-c', KEEP, 'understudy-keep', dataDirectory, kept, String(segmentBytes), ...spans],
        as: 'postgres',
        timeoutMs: 3_600_000,
        shownAs: `copy ${spans.join(' … ')} of ${dataDirectory}/pg_wal to ${kept}/pg_wal`,
      },
      { signal, onLine: log },
    )
  } catch (error) {
    if (!(error instanceof CommandFailed && error.exitCode === NO_ROOM)) throw error
    throw new NoRoomToKeep(node.name, kept, error.result.stderr.trim())
  }
}

export function refuseUnconfirmed(node: ClusterNode, loss: Loss, confirm: string | undefined): void {
  if (!costsCommits(loss) || confirm === node.name) return
  throw new ConfirmationRequired(
    `${node.name} has what the primary does not have, and it would be thrown away: ${tellLoss(loss)}. Its WAL is kept on its host.`,
    node.name,
  )
}
