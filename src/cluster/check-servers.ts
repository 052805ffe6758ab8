/** What the checks say of the servers: whether they run, who is the primary, rewind, archive, certificates. Pure. */
import { archiveOf } from './archive.js'
import { type ArchiveStatus, describeArchive } from './archive-status.js'
import { RENEWAL_DAYS } from './certificate.js'
import type { Answered, CheckedCluster, HostAnswer } from './check-answers.js'
import type { CheckResult } from './checks.js'

export function judgeServer(cluster: CheckedCluster, answer: Answered): CheckResult[] {
  const { node, built, foreign, inUse, running, held, server } = answer
  const edge = { kind: 'server', to: node } as const
  const call = `POST /v1/clusters/${cluster.name}/nodes/${node}`
  if (foreign) return [{ ...edge, verdict: 'failed', ...foreign }]
  if (!built) return []
  if (!running && !inUse) {
    return [
      {
        ...edge,
        verdict: 'failed',
        detail: `${node} is a member of the cluster, and its host holds no data of it`,
        remedy: `Is a disk not mounted? If the host was made anew: ${call}/provision, then …/clone and …/start.`,
      },
    ]
  }
  if (!running) {
    return [
      {
        ...edge,
        verdict: 'failed',
        detail: `PostgreSQL on ${node} does not run${held ? ': this service was told to stop it' : ''}`,
        remedy: `${held ? '' : 'Its log says why it ended. '}${call}/start starts it; where another node has become the primary since, ${call}/rejoin brings it back as a standby.`,
      },
    ]
  }
  if (!server) {
    return [
      {
        ...edge,
        verdict: 'failed',
        detail: `PostgreSQL on ${node} runs, and does not answer its own superuser`,
        remedy: 'Wait until its recovery has come far enough, or look at its log.',
      },
    ]
  }
  const role = answer.witness ? 'the witness' : server.inRecovery ? 'a standby' : 'a primary'
  return [{ ...edge, verdict: 'ok', detail: `PostgreSQL on ${node} runs as ${role}` }, judgeRewind(node, server)]
}

function judgeRewind(node: string, { canRewind }: NonNullable<Answered['server']>): CheckResult {
  const edge = { kind: 'rewind', to: node } as const
  if (canRewind) return { ...edge, verdict: 'ok', detail: 'data checksums or wal_log_hints are on' }
  return {
    ...edge,
    verdict: 'warning',
    detail: 'neither data checksums nor wal_log_hints are on: pg_rewind cannot bring an old primary back',
    remedy: 'Set wal_log_hints to on and restart the server. Until then an old primary has to be cloned again.',
  }
}

const holders = (answers: readonly HostAnswer[]) => answers.filter(({ built, witness }) => built && !witness)

const primariesOf = (answers: readonly HostAnswer[]) =>
  holders(answers).filter((answer): answer is Answered => !('failure' in answer) && answer.server?.inRecovery === false)

/** One server accepts writes, no more and no less. With one it is the item of that server that says so. */
export function judgePrimary(cluster: CheckedCluster, answers: readonly HostAnswer[]): CheckResult[] {
  if (holders(answers).length === 0) return []
  const primaries = primariesOf(answers).map(({ node }) => node)
  if (primaries.length === 1) return []
  const detail =
    primaries.length === 0 ? 'no server that answers accepts writes' : `${primaries.join(' and ')} both accept writes`
  const remedy = `GET /v1/clusters/${cluster.name}/status says what each server is, and what to do; promote nothing by hand before.`
  return [{ kind: 'server', verdict: 'failed', detail, remedy }]
}

/** As the cluster is described: without an archive there is nothing to look at. */
export function judgeArchive(cluster: CheckedCluster, answers: readonly HostAnswer[]): CheckResult[] {
  const { mode } = archiveOf(cluster)
  if (mode === 'none')
    return [{ kind: 'archive', verdict: 'ok', detail: 'no archive is asked for: WAL is on the servers only' }]
  const scripts = holders(answers).flatMap((answer): CheckResult[] =>
    mode !== 'ship' || 'failure' in answer || answer.hasArchive
      ? []
      : [
          {
            kind: 'archive',
            to: answer.node,
            verdict: 'failed',
            detail: `the script of the archive is not on ${answer.node}`,
            remedy: `POST /v1/clusters/${cluster.name}/nodes/${answer.node}/provision puts it there.`,
          },
        ],
  )
  return [...scripts, ...primariesOf(answers).map(answer => judgeArchiver(cluster, answer))]
}

function judgeArchiver(cluster: CheckedCluster, { node, archive }: Answered): CheckResult {
  const edge = { kind: 'archive', to: node } as const
  const status = describeArchive(cluster, node, archive)
  if (!status) {
    return {
      ...edge,
      verdict: 'warning',
      detail: `${node} could not be asked how the archive is doing`,
      remedy: 'See why this service is not let in there.',
    }
  }
  if (status.problem !== null) {
    return {
      ...edge,
      verdict: 'failed',
      detail: status.problem,
      remedy:
        'Look at the server’s log for what the archive command said. WAL stays on the primary’s disk until it works.',
    }
  }
  const lacking = lackingIn(node, status)
  if (lacking !== undefined) {
    return {
      ...edge,
      verdict: 'warning',
      detail: lacking,
      remedy: 'They are brought what they lack once they answer. Look at the SSH edges from the primary to them.',
    }
  }
  const { lastArchivedWal, lastArchivedAt } = status
  const detail =
    lastArchivedWal === null
      ? 'no segment was archived since its statistics were reset, and none waits'
      : `the archive took ${lastArchivedWal} at ${lastArchivedAt}`
  return { ...edge, verdict: 'ok', detail }
}

function lackingIn(primary: string, { missing, aloneSegments }: ArchiveStatus): string | undefined {
  const lacks = missing.map(({ node, segments }) => `${node} lacks ${segments} segments`)
  if (aloneSegments > 0) lacks.push(`${aloneSegments} segments are archived on ${primary} alone`)
  return lacks.length === 0 ? undefined : lacks.join('; ')
}

export function judgeCertificate({ node, certificate }: Answered): CheckResult[] {
  if (!certificate) return []
  const { path, daysLeft, problem, ours } = certificate
  const edge = { kind: 'certificate', to: node } as const
  const remedy = ours
    ? `POST …/nodes/${node}/provision makes a new one, and the running server reads it.`
    : `Put a new one into ${path}; then POST …/nodes/${node}/provision lets the running server read it.`
  if (problem !== undefined) return [{ ...edge, verdict: 'failed', detail: `${path}: ${problem}`, remedy }]
  const detail = `the certificate of the server ends in ${daysLeft} days`
  return (daysLeft ?? 0) < RENEWAL_DAYS
    ? [{ ...edge, verdict: 'warning', detail, remedy }]
    : [{ ...edge, verdict: 'ok', detail }]
}
