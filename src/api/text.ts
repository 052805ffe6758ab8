/** The same things as aligned text, for people at a terminal who ask for `text/plain`. */
import Table from 'cli-table3'
import type { Cluster } from '../cluster/model.js'
import type { ClusterStatus } from '../cluster/status.js'
import type { Operation, PlanPreview } from '../operations/operation.js'
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

function table(head: string[], rows: (string | number | null | undefined)[][]): string {
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
  const { name, postgresVersion, port, nodes, builtAt } = cluster
  const rows = nodes.map(node => [
    node.name,
    node.nodeId,
    node.host,
    `${node.ssh.user}, port ${node.ssh.port}`,
    node.ssh.hostKey,
    node.joinedAt ?? 'not yet',
  ])
  return [
    `${name}: PostgreSQL ${postgresVersion}, port ${port}, ${builtAt === undefined ? 'not built yet' : `built ${builtAt}`}`,
    '',
    table(['NODE', 'ID', 'HOST', 'SSH', 'HOST KEY', 'JOINED'], rows),
    '',
  ].join('\n')
}

export function statusText(status: ClusterStatus): string {
  const rows = status.nodes.map(node => [
    node.name,
    node.role,
    node.state,
    node.upstream,
    node.timeline,
    node.lsn,
    node.lagBytes === null ? null : bytes(node.lagBytes),
    node.lagMs === null ? null : `${node.lagMs} ms`,
    node.syncState,
    node.host,
  ])
  const problems = status.nodes
    .filter(({ problem }) => problem !== null)
    .map(({ name, problem }) => `${name}: ${problem}`)
  return [
    `${status.cluster}: ${status.diagnosis.code}. ${status.diagnosis.detail}`,
    ...(status.operation === null ? [] : [`Running: /v1/operations/${status.operation}`]),
    '',
    table(['NODE', 'ROLE', 'STATE', 'UPSTREAM', 'TLI', 'LSN', 'LAG', 'DELAY', 'SYNC', 'HOST'], rows),
    ...(problems.length > 0 ? ['', ...problems] : []),
    '',
  ].join('\n')
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
    '',
    table(['STATE', 'NODE', 'STEP', 'TOOK', 'PROGRESS'], rows),
    ...(error === undefined
      ? []
      : [
          '',
          `Failed (${error.code}, ${error.outcome}): ${error.detail}`,
          `What to do: ${error.remedy}`,
          ...(error.output === undefined ? [] : ['', error.output]),
        ]),
    '',
  ].join('\n')
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
    ...lines,
    '',
  ].join('\n')
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
    const { state, result, error } = data as {
      state: string
      result?: { summary: string }
      error?: { detail: string; remedy: string }
    }
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
  const { doneBytes, totalBytes, percent } = progress
  return `${bytes(doneBytes)}${totalBytes === undefined ? '' : ` of ${bytes(totalBytes)}`}${percent === undefined ? '' : ` (${percent.toFixed(0)}%)`}`
}
