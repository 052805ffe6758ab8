/** The status for people at a terminal: what `repmgr cluster show` gives, and more, in at most 100 columns. */
import type { ArchiveStatus } from '../cluster/archive-status.js'
import type { NodeDetail } from '../cluster/node-detail.js'
import type { ServerSlot } from '../cluster/server-slots.js'
import type { ClusterStatus, NodeStatus } from '../cluster/status.js'
import { fold, narrowTable } from './narrow-table.js'
import { bytes, pauseLine } from './text.js'

const COLUMNS = 100

const line = (text: string) => fold(text, COLUMNS, '  ')

export function statusText(status: ClusterStatus): string {
  const { cluster, diagnosis, nodes, operation, archive, pause } = status
  return `${[
    [line(`${cluster}: ${diagnosis.code}. ${diagnosis.detail}`)],
    operation === null ? [] : [line(`Running: /v1/operations/${operation}`)],
    pause === null ? [] : [line(pauseLine(pause))],
    [whoText(nodes)],
    [whereText(nodes)],
    slotsText(nodes),
    nodes.flatMap(({ name, problem }) => (problem === null ? [] : [line(`${name}: ${problem}`)])),
    nodes.flatMap(({ name, metadata }) =>
      (metadata?.disagreements ?? []).map(words => line(`repmgr.nodes on ${name} ${words}.`)),
    ),
    archive === null ? [] : [line(archiveLine(archive))],
    diagnosis.code === 'healthy' ? [] : evidenceText(status),
  ]
    .filter(part => part.length > 0)
    .map(part => part.join('\n'))
    .join('\n\n')}\n`
}

const whoText = (nodes: readonly NodeStatus[]) =>
  narrowTable(
    ['ID', 'NODE', 'ROLE', 'STATE', 'UPSTREAM', 'TLI', 'LOCATION', 'PRIORITY', 'HOST'],
    nodes.map(node => [
      ...[node.nodeId, node.name, node.role, node.state, node.upstream, node.timeline],
      ...[node.location, node.priority, node.host],
    ]),
    COLUMNS,
  )

const whereText = (nodes: readonly NodeStatus[]) =>
  narrowTable(
    ['NODE', 'LSN', 'REPLAYED', 'LAG', 'DELAY', 'SYNC', 'RECEIVER', 'HEARD', 'CONFLICTS'],
    nodes.map(node => [
      ...[node.name, node.lsn, node.replayedLsn],
      ...[node.lagBytes === null ? null : bytes(node.lagBytes), node.lagMs === null ? null : `${node.lagMs} ms`],
      ...[node.syncState, node.receiver?.status, heard(node), node.conflicts?.total],
    ]),
    COLUMNS,
  )

const heard = ({ receiver }: NodeStatus) =>
  typeof receiver?.lastMessageAgeMs === 'number' ? `${(receiver.lastMessageAgeMs / 1000).toFixed(1)} s ago` : null

function slotsText(nodes: readonly NodeStatus[]): string[] {
  const rows = nodes.flatMap(({ name, slots }) =>
    (slots ?? []).map(slot => [
      ...[name, slot.name, slot.node ?? slot.usedBy ?? slot.database, slot.kind, slotUse(slot)],
      ...[slot.retainedBytes === null ? null : bytes(slot.retainedBytes), slot.walStatus],
    ]),
  )
  return rows.length === 0
    ? []
    : [narrowTable(['SLOT ON', 'SLOT', 'FOR', 'KIND', 'USE', 'KEEPS', 'WAL'], rows, COLUMNS)]
}

const slotUse = ({ active, orphan, temporary }: ServerSlot) =>
  `${orphan ? 'orphan' : active ? 'active' : 'idle'}${temporary ? ', temporary' : ''}`

function archiveLine({ mode, problem, lastArchivedWal, waitingSegments, missing, aloneSegments }: ArchiveStatus) {
  const parts = [
    `WAL archive (${mode}): last ${lastArchivedWal ?? 'none yet'}, ${waitingSegments} waiting`,
    ...missing.map(({ node, segments }) => `${node} lacks ${segments}`),
    ...(aloneSegments > 0 ? [`${aloneSegments} on the primary alone`] : []),
    ...(problem === null ? [] : [problem]),
  ]
  return parts.join('; ')
}

const evidenceText = ({ diagnosis }: ClusterStatus) => [
  'Evidence:',
  ...diagnosis.evidence.map(({ node, observed, at }) => fold(`  ${at} ${node}: ${observed}`, COLUMNS, '    ')),
]

export function nodeText({ cluster, record, status, observedAt }: NodeDetail): string {
  const { receiver, conflicts, slots, metadata } = status
  const rows: [string, string | number | null][] = [
    ['node', `${record.name} of ${cluster}`],
    ['id', record.nodeId],
    ['host', record.host],
    ['ssh', `${record.ssh.user}, port ${record.ssh.port}, ${record.ssh.hostKey}`],
    ['joined', record.joinedAt ?? 'not yet'],
    ['role', status.role],
    ['state', status.state],
    ['upstream', status.upstream],
    ['receiver', receiver === null ? null : `${receiver.status}, heard ${heard(status) ?? 'nothing yet'}`],
    ['timeline', status.timeline],
    ['lsn', status.lsn],
    ['replayed', status.replayedLsn],
    ['lag', status.lagBytes === null ? null : bytes(status.lagBytes)],
    ['delay', status.lagMs === null ? null : `${status.lagMs} ms`],
    ['conflicts', conflicts === null ? null : conflicts.total],
    ['slot', status.slot === null ? null : `${status.slot.name}, ${status.slot.active ? 'active' : 'not active'}`],
    ['keeps', slots?.map(({ name, retainedBytes }) => `${name} ${bytes(retainedBytes ?? 0)}`).join(', ') || null],
    ['repmgr', metadata?.disagreements.join('; ') || null],
    ['version', status.serverVersion],
    ['started', status.startedAt],
    ['problem', status.problem],
    ['observed', observedAt],
  ]
  return `${rows.map(([name, value]) => `${name.padEnd(9)} ${value ?? '-'}`).join('\n')}\n`
}
