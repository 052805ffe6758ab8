/** The same things as aligned text, for people at a terminal who ask for `text/plain`. */
import Table from 'cli-table3'
import type { Adoption } from '../cluster/adoption.js'
import type { Checks } from '../cluster/checks.js'
import type { Drift } from '../cluster/drift.js'
import type { Forgotten } from '../cluster/forgotten.js'
import type { Cluster } from '../cluster/model.js'
import { ownersOf, type Pause, type PauseState } from '../cluster/pause.js'
import type { Readiness } from '../cluster/readiness.js'
import type { Operation, PlanPreview, RequestRecord } from '../operations/operation.js'
import type { AuditEvent } from '../store/event.js'
import type { OperationEvent } from '../store/operations.js'

const BARE = {
  top: '',
  'top-mid': '',
  'top-left': '',
  'top-right': '',
  bottom: '',
  'bottom-mid': '',
  'bottom-left': '',
  'bottom-right': '',
  left: '',
  'left-mid': '',
  mid: '',
  'mid-mid': '',
  right: '',
  'right-mid': '',
  middle: '  ',
}

export function table(head: string[], rows: (string | number | null | undefined)[][]): string {
  const made = new Table({ head, chars: BARE, style: { head: [], border: [], 'padding-left': 0, 'padding-right': 0 } })
  made.push(
    ...rows.map(row => row.map(cell => (cell === null || cell === undefined || cell === '' ? '-' : String(cell)))),
  )
  return made
    .toString()
    .split('\n')
    .map(line => line.trimEnd())
    .join('\n')
}

export function clustersText(clusters: readonly Cluster[]): string {
  if (clusters.length === 0) return 'No clusters yet.\n'
  const rows = clusters.map(({ name, postgresVersion, nodes, builtAt }) => [
    name,
    postgresVersion,
    nodes.map(node => node.name).join(' '),
    builtAt ?? 'not yet',
  ])
  return `${table(['CLUSTER', 'POSTGRESQL', 'NODES', 'BUILT'], rows)}\n`
}

export function clusterText(cluster: Cluster): string {
  const { name, postgresVersion, port, nodes, builtAt, pause } = cluster
  const rows = nodes.map(node => [
    node.name,
    node.nodeId,
    node.host,
    `${node.ssh.user}, port ${node.ssh.port}`,
    node.ssh.hostKey,
    node.joinedAt ?? 'not yet',
  ])
  return [
    `${name}: PostgreSQL ${postgresVersion}, port ${port}, ${builtAt === undefined ? 'not built yet' : `built ${builtAt}`}${tlsText(cluster)}`,
    ...(pause === undefined ? [] : [pauseLine(pause)]),
    '',
    table(['NODE', 'ID', 'HOST', 'SSH', 'HOST KEY', 'JOINED'], rows),
    '',
  ].join('\n')
}

function tlsText({ name, tls }: Cluster): string {
  if (tls === undefined || tls.mode === 'off') return ''
  const { mode, clients = 'required' } = tls
  return `, TLS (${mode}, ${clients} of clients; GET /v1/clusters/${name}/ca.pem)`
}

export const pauseLine = (pause: Pause) =>
  `Paused until ${pause.until} by ${ownersOf(pause)}: ${pause.reason}${pause.reference === undefined ? '' : ` (${pause.reference})`}`

export const pauseStateText = ({ cluster, pause }: PauseState) =>
  pause === null ? `${cluster} is not paused.\n` : `${cluster}: ${pauseLine(pause)}\n`

export function forgottenText({ cluster, forgotten, remains }: Forgotten): string {
  const title = forgotten
    ? `${cluster} is forgotten; its servers go on as they were.`
    : `${cluster} would be forgotten; its servers would go on as they are.`
  return [title, '', ...remains.map(({ node, host, what }) => `${node} (${host}): ${what}`), ''].join('\n')
}

export function operationsText(operations: readonly Operation[]): string {
  if (operations.length === 0) return 'No operations yet.\n'
  const rows = operations.map(({ id, type, cluster, node, state, createdAt, requestedBy }) => [
    id,
    type,
    cluster,
    node,
    state,
    createdAt,
    requestedBy,
  ])
  return `${table(['OPERATION', 'TYPE', 'CLUSTER', 'NODE', 'STATE', 'CREATED', 'BY'], rows)}\n`
}

export function operationText(operation: Operation): string {
  const { id, type, cluster, state, result, error } = operation
  const rows = operation.steps.map(step => [
    step.state,
    step.node,
    step.title,
    seconds(step.startedAt, step.endedAt),
    progressText(step.progress),
  ])
  return [
    `${type} of ${cluster}: ${state}. ${result?.summary ?? ''}`.trimEnd(),
    `/v1/operations/${id}`,
    ...requestsText(operation),
    '',
    table(['STATE', 'NODE', 'STEP', 'TOOK', 'PROGRESS'], rows),
    ...(error === undefined
      ? []
      : [
          '',
          `${state === 'cancelled' ? 'Cancelled' : 'Failed'} (${error.code}, ${error.outcome}): ${error.detail}`,
          `What to do: ${error.remedy}`,
          ...(error.output === undefined ? [] : ['', error.output]),
        ]),
    '',
  ].join('\n')
}

/** Who wanted what of it, where there is more to say than who asked for it. */
function requestsText({ requestedBy, createdAt, reference, cancelRequest, retries, lastRetry }: Operation): string[] {
  const by = (request: RequestRecord) =>
    `${request.by} at ${request.at}${request.reference === undefined ? '' : ` (${request.reference})`}`
  return [
    ...(reference === undefined ? [] : [`Asked for by ${by({ by: requestedBy, at: createdAt, reference })}`]),
    ...(lastRetry === undefined
      ? []
      : [`Retried ${retries === 1 ? 'once, ' : `${retries} times, last `}by ${by(lastRetry)}`]),
    ...(cancelRequest === undefined ? [] : [`To be cancelled, says ${by(cancelRequest)}`]),
  ]
}

export function planText(plan: PlanPreview): string {
  const mark = { would_run: '+', already_done: '=', would_verify: '?' }
  const lines = plan.steps.flatMap(step => [
    `${mark[step.verdict]} ${step.node === undefined ? '' : `${step.node}: `}${step.title}${step.destroys === undefined ? '' : `   DESTROYS ${step.destroys}`}`,
    ...(step.verdict === 'already_done'
      ? []
      : step.actions.flatMap(action =>
          action.kind === 'file'
            ? [
                `    write ${action.path} (${action.owner}, ${action.mode})`,
                ...action.content
                  .trimEnd()
                  .split('\n')
                  .map(line => `      | ${line}`),
              ]
            : [`    ${action.kind === 'command' ? '$ ' : action.kind === 'sql' ? 'sql: ' : ''}${action.text}`],
        )),
  ])
  return [
    `${plan.operation} of ${plan.cluster}: ${plan.stepsThatWouldRun} of ${plan.steps.length} steps would change something (+ would run, = done already, ? proof)`,
    '',
    ...(plan.differences ?? []).map(({ pointer, detail }) => `${pointer === '' ? plan.cluster : pointer} ${detail}`),
    ...(plan.differences?.length ? [''] : []),
    ...lines,
    '',
    `Exactly this, or nothing: repeat the call with planId=${plan.planId}`,
    '',
  ].join('\n')
}

export function adoptionText({ cluster, missing, next }: Adoption): string {
  const lacking = missing.length === 0 ? [] : ['', 'What is missing:', ...missing.map(line => `  ${line}`)]
  return [clusterText(cluster).trimEnd(), ...lacking, '', next, ''].join('\n')
}

export function checksText({ cluster, verdict, items }: Checks): string {
  const count = (of: Checks['verdict']) => items.filter(item => item.verdict === of).length
  const rows = items.map(({ verdict: own, kind, from, to, detail }) => [own, kind, from, to, detail])
  const remedies = new Set(items.flatMap(({ remedy }) => (remedy === undefined ? [] : [remedy])))
  return [
    `${cluster}: ${verdict} (${count('ok')} ok, ${count('warning')} warnings, ${count('failed')} failed)`,
    '',
    table(['VERDICT', 'CHECK', 'FROM', 'TO', 'FOUND'], rows),
    ...(remedies.size === 0 ? [] : ['', 'What to do:', ...[...remedies].map(line => `  ${line}`)]),
    '',
  ].join('\n')
}

export function readinessText(readiness: Readiness): string {
  const { cluster, ready, primary, successor, expectedLossBytes, fence, votes, candidates, obstacles } = readiness
  const loss =
    expectedLossBytes === null ? 'how much would be lost is not known' : `${bytes(expectedLossBytes)} would be lost`
  const rows = candidates.map(({ node, rank, lsn, behindBytes, why }) => [
    rank,
    node,
    lsn,
    behindBytes === null ? null : bytes(behindBytes),
    why,
  ])
  return [
    `${cluster}: ${ready ? 'ready' : 'not ready'}. If ${primary ?? 'the primary'} died now, ${successor === null ? 'nobody could take over' : `${successor} would have to take over; ${loss}`}.`,
    `Fence: ${fence.method}. ${fence.detail}`,
    `Votes: ${votes.available.length} of ${votes.of} could be had, ${votes.needed} are needed${votes.missing.map(({ voter, reason }) => `; ${voter} ${reason}`).join('')}.`,
    '',
    table(['RANK', 'NODE', 'LSN', 'BEHIND', 'WHY'], rows),
    ...(obstacles.length === 0
      ? []
      : ['', 'In the way:', ...obstacles.flatMap(({ detail, remedy }) => [`  ${detail}`, `    ${remedy}`])]),
    '',
  ].join('\n')
}

export function driftText(drift: Drift): string {
  const checked = `${drift.checkedSteps} checks`
  if (drift.inSync) return `${drift.cluster} is as its record says (${checked}).\n`
  const lines = drift.items.flatMap(({ node, kind, detail, remedy }) => [
    `${node ?? drift.cluster}  ${kind}  ${detail}`,
    `    ${remedy}`,
  ])
  return [`${drift.cluster} is not as its record says (${checked}):`, '', ...lines, ''].join('\n')
}

/** A page as a table, and how to get the next one. */
export function operationsPageText({
  items,
  nextCursor,
}: {
  items: readonly Operation[]
  nextCursor?: string
}): string {
  const more = nextCursor === undefined ? '' : `\nMore: /v1/operations?cursor=${nextCursor}\n`
  return `${operationsText(items)}${more}`
}

export function auditEventsText(events: readonly AuditEvent[]): string {
  if (events.length === 0) return 'No events here.\n'
  const rows = events.map(({ time, cluster, type, who, operation, summary }) => [
    time,
    cluster,
    type,
    who.address === undefined ? who.name : `${who.name} (${who.address})`,
    operation,
    summary,
  ])
  return `${table(['TIME', 'CLUSTER', 'EVENT', 'WHO', 'OPERATION', 'WHAT'], rows)}\n`
}

export function auditEventsPageText({
  items,
  nextCursor,
}: {
  items: readonly AuditEvent[]
  nextCursor?: string
}): string {
  const more = nextCursor === undefined ? '' : `\nMore: the same with cursor=${nextCursor}\n`
  return `${auditEventsText(items)}${more}`
}

/** Events as they go over the wire. */
export function eventsText(events: readonly OperationEvent[]): string {
  return events.map(({ id, type, data }) => `id: ${id}\nevent: ${type}\ndata: ${JSON.stringify(data)}\n\n`).join('')
}

/** One line an event, the way a log reads. */
export function logLine({ id, type, data }: OperationEvent): string | undefined {
  const at = new Date(Number(id.split('-')[0])).toISOString()
  if (type === 'log') return `${at} ${data.step} | ${data.line}`
  if (type === 'step') return `${at} ${data.id} ${data.state}${typeof data.note === 'string' ? `: ${data.note}` : ''}`
  if (type === 'state') {
    const { state, result, error, cancelRequest, retry } = data as {
      state: string
      cancelRequest?: RequestRecord
      retry?: RequestRecord
      result?: { summary: string }
      error?: { detail: string; remedy: string }
    }
    if (cancelRequest) return `${at} ${state}, to be cancelled: ${cancelRequest.by} wants it`
    if (retry) return `${at} ${state} again by ${retry.by}`
    return `${at} ${state}${result ? `: ${result.summary}` : error ? `: ${error.detail} ${error.remedy}` : ''}`
  }
  return undefined
}

export function bytes(count: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB']
  let value = count
  let unit = 0
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024
    unit += 1
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`
}

function seconds(from: string | undefined, to: string | undefined): string | undefined {
  if (from === undefined || to === undefined) return undefined
  return `${((Date.parse(to) - Date.parse(from)) / 1000).toFixed(1)} s`
}

function progressText(progress: Operation['steps'][number]['progress']): string | undefined {
  if (!progress) return undefined
  const { doneBytes, totalBytes, percent, rateBytesPerSecond, remainingSeconds } = progress
  return [
    `${bytes(doneBytes)}${totalBytes === undefined ? '' : ` of ${bytes(totalBytes)}`}${percent === undefined ? '' : ` (${percent.toFixed(0)}%)`}`,
    ...(rateBytesPerSecond === undefined ? [] : [`${bytes(rateBytesPerSecond)}/s`]),
    ...(remainingSeconds === undefined || remainingSeconds === 0 ? [] : [`${duration(remainingSeconds)} left`]),
  ].join(', ')
}

/** `45 s`, `12 min`, `3 h 20 min`. */
export function duration(seconds: number): string {
  if (seconds < 100) return `${seconds} s`
  const minutes = Math.round(seconds / 60)
  if (minutes < 100) return `${minutes} min`
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`
}
