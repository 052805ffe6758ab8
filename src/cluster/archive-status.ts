/** How a cluster's WAL archive is doing, from what its primary says. Pure. */
import { type Static, Type } from 'typebox'
import { ArchivePolicy, archiveObjection, archiveOf } from './archive.js'

/** What a primary says of its archiver; times as the server writes them. */
export interface ArchiveObservation {
  /** archive_mode, as the running server has it. */
  mode: string
  lastArchivedWal: string | null
  lastArchivedAt: string | null
  lastFailedWal: string | null
  lastFailedAt: string | null
  failedCount: number
  waitingSegments: number
  /** Of our script: why it failed last, what each other node lacks, and what is in its own archive only. */
  reason?: string | null
  missing?: Record<string, number> | null
  aloneSegments?: number | null
}

const text = (description: string, more: object = {}) =>
  Type.Unsafe<string | null>({ type: ['string', 'null'], description, ...more })

export const ArchiveStatus = Type.Object(
  {
    mode: ArchivePolicy.properties.mode,
    failing: Type.Boolean({ description: 'PostgreSQL cannot archive: WAL waits on the primary’s disk until it can.' }),
    problem: text('What is wrong, and what to do.'),
    waitingSegments: Type.Integer({ description: 'Finished, and not archived yet.' }),
    lastArchivedWal: text('Name of the last file that was archived.'),
    lastArchivedAt: text('When.', { format: 'date-time' }),
    lastFailedWal: text('Name of the last file that could not be archived at once.'),
    lastFailedAt: text('When.', { format: 'date-time' }),
    failedCount: Type.Integer({ description: 'Failures since the server’s statistics were reset.' }),
    aloneSegments: Type.Integer({
      description:
        'ship: archived on the primary alone, because too much was waiting. Lost with it until another node has them.',
    }),
    missing: Type.Array(
      Type.Object(
        { node: Type.String(), segments: Type.Integer() },
        { additionalProperties: false, title: 'MissingSegments', description: 'What a node has missed so far.' },
      ),
      { description: 'ship: nodes that lack archived segments. They are brought them once they answer.' },
    ),
  },
  { additionalProperties: false, title: 'ArchiveStatus', description: 'The WAL archive, as the primary says.' },
)
export type ArchiveStatus = Static<typeof ArchiveStatus>

export function describeArchive(
  cluster: { archive?: ArchivePolicy },
  primary: string,
  said: ArchiveObservation | undefined,
): ArchiveStatus | null {
  const { mode } = archiveOf(cluster)
  if (mode === 'none' || said === undefined) return null
  const problem = uselessness(cluster.archive) ?? problemOf(primary, said)
  return {
    mode,
    failing: problem !== null,
    problem,
    waitingSegments: said.waitingSegments,
    lastArchivedWal: said.lastArchivedWal,
    lastArchivedAt: utc(said.lastArchivedAt),
    lastFailedWal: said.lastFailedWal,
    lastFailedAt: utc(said.lastFailedAt),
    failedCount: said.failedCount,
    aloneSegments: said.aloneSegments ?? 0,
    missing: Object.entries(said.missing ?? {})
      .filter(([, segments]) => segments > 0)
      .map(([node, segments]) => ({ node, segments }))
      .sort((a, b) => (a.node < b.node ? -1 : 1)),
  }
}

const utc = (time: string | null) => (time === null ? null : new Date(time).toISOString())
const at = (time: string | null) => (time === null ? Number.NEGATIVE_INFINITY : Date.parse(time))

/** Whatever the server says of it: to a command that always succeeds nothing ever seems to fail. */
function uselessness(archive: ArchivePolicy | undefined): string | undefined {
  const objection = archiveObjection(archive)
  return objection === undefined ? undefined : `${objection} PUT …/archive replaces it.`
}

/** A failure that was made up for since is history. */
function problemOf(primary: string, said: ArchiveObservation): string | null {
  if (said.mode === 'off') {
    return `archive_mode is off on ${primary} until it is restarted: PUT …/archive with "restart": true does it.`
  }
  if (said.waitingSegments === 0 || at(said.lastFailedAt) <= at(said.lastArchivedAt)) return null
  const reason = said.reason?.trim() ? ` ${said.reason.trim()}.` : ''
  return (
    `${primary} cannot archive ${said.lastFailedWal}; ${said.waitingSegments} segments wait on its disk.${reason} ` +
    'Mend that before the disk is full: PostgreSQL tries again by itself.'
  )
}
