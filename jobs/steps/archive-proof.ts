/** The proof that WAL is archived: a segment is finished on the primary, archived, and read back on every standby. */
import { archiveObjection, archiveOf } from '../../src/cluster/archive.js'
import type { ClusterNode } from '../../src/cluster/model.js'
import { act } from '../../src/host/actions.js'
import { CommandFailed } from '../../src/host/errors.js'
import { readFile } from '../../src/host/files.js'
import { OperationError } from '../../src/operations/errors.js'
import type { Step, StepContext } from '../../src/operations/step.js'
import { archiveStateDirectory } from '../../src/postgres/archive.js'
import { expandRestoreCommand } from '../../src/postgres/restore-command.js'
import type { Bench } from '../bench.js'
import { NotInTime, until } from '../until.js'
import { askLocal } from './local-sql.js'

/** Thrown when a segment was not archived, or could not be read back as it was. */
class ArchiveNotProven extends OperationError {
  constructor(detail: string, remedy: string, output?: string) {
    super(detail, {
      code: 'archive-not-proven',
      outcome: 'failed_partial',
      remedy,
      ...(output === undefined || output === '' ? {} : { output }),
    })
  }
}

/** PostgreSQL tries three times, then waits a minute: the second minute must be in it. */
const ARCHIVE_TIMEOUT_MS = 180_000

/** Empty where nothing is archived. */
export function proveArchive(bench: Bench, primary: ClusterNode, standbys: readonly ClusterNode[]): Step[] {
  const archive = archiveOf(bench.cluster)
  if (archive.mode === 'none') return []
  const objection = archiveObjection(bench.cluster.archive)
  if (objection !== undefined) return [tellUnproven(objection)]
  const readable = archive.mode === 'ship' || archive.restoreCommand !== ''
  const readers = !readable ? [] : standbys.length > 0 ? standbys : [primary]
  const where = readable
    ? `read it back on ${readers.map(({ name }) => name).join(', ')}`
    : 'read nothing back, for there is no restore_command'
  return [
    {
      id: 'cluster/archive-proof',
      kind: 'verify',
      title: `archive a segment on ${primary.name}, ${where}`,
      actions: [
        act(
          readable
            ? 'finish a WAL segment (pg_switch_wal), wait until it is archived, restore it on each standby and compare'
            : 'finish a WAL segment (pg_switch_wal), wait until it is archived',
          async context => {
            const { signal, log, note } = context
            const begun = performance.now()
            const segment = await finishSegment(bench, primary, signal)
            log(`${segment.name} is finished on ${primary.name}, SHA-256 ${segment.sum}`)
            await waitUntilArchived(bench, primary, segment.name, context)
            const milliseconds = Math.round(performance.now() - begun)
            log(`${segment.name} is archived after ${milliseconds} ms`)
            for (const reader of readers) await readBack(bench, reader, segment, signal)
            note(
              readable
                ? `${segment.name} archived in ${milliseconds} ms, read back on ${readers.map(({ name }) => name).join(', ')}`
                : `${segment.name} archived in ${milliseconds} ms, not read back: there is no restore_command`,
            )
          },
        ),
      ],
    },
  ]
}

/** Of an archive that was found and keeps nothing there is nothing to prove. It is said, and stops nobody’s work. */
const tellUnproven = (objection: string): Step => ({
  id: 'cluster/archive-proof',
  kind: 'verify',
  title: 'leave the archive unproven: it was adopted, and loses WAL',
  actions: [
    act('PUT …/archive replaces it', async ({ note }) => {
      note(objection)
    }),
  ],
})

/** A restore point first: a segment with nothing in it is not finished by the switch. */
async function finishSegment(bench: Bench, primary: ClusterNode, signal: AbortSignal) {
  const [row] = await bench.ask(primary, { signal, timeoutMs: 30_000 }, async query => {
    const [made] = await query("SELECT pg_walfile_name(pg_create_restore_point('understudy archive proof')) AS name")
    await query('SELECT pg_switch_wal()')
    return query(`SELECT $1::text AS name, encode(sha256(pg_read_binary_file('pg_wal/' || $1::text)), 'hex') AS sum`, [
      made?.name,
    ])
  })
  return { name: String(row?.name), sum: String(row?.sum) }
}

async function waitUntilArchived(
  bench: Bench,
  primary: ClusterNode,
  segment: string,
  context: Pick<StepContext, 'signal' | 'draining'>,
): Promise<void> {
  const { signal } = context
  try {
    await until(`${segment} is archived`, ARCHIVE_TIMEOUT_MS, context, async () => {
      const [row] = await bench.ask(primary, { signal }, query =>
        query(
          `SELECT EXISTS (SELECT FROM pg_ls_archive_statusdir() WHERE name = $1::text || '.done')
               OR (SELECT last_archived_wal = $1::text FROM pg_stat_archiver) AS archived`,
          [segment],
        ),
      )
      return row?.archived === true
    })
  } catch (error) {
    if (!(error instanceof NotInTime)) throw error
    throw new ArchiveNotProven(
      `${primary.name} did not archive ${segment} within ${ARCHIVE_TIMEOUT_MS / 1000} s. ${await lastFailure(bench, primary, signal)}`.trim(),
      'PostgreSQL keeps the segment and tries again. Its log on the primary has what archive_command said; mend that, then repeat the call.',
    )
  }
}

async function lastFailure(bench: Bench, primary: ClusterNode, signal: AbortSignal): Promise<string> {
  const archive = archiveOf(bench.cluster)
  if (archive.mode !== 'ship') return ''
  return (await readFile(bench.host(primary), `${archiveStateDirectory(archive)}/last-failure`, { signal })) ?? ''
}

/** By the very command that the server has, in its own directory, into a file that is removed again. */
const READ_BACK = `cd -- "$1" || exit 1
file=$2
rm -f -- "$file"
trap 'rm -f -- "$file"' EXIT
sh -c "$3" || exit 1
sha256sum <"$file"`

async function readBack(
  bench: Bench,
  node: ClusterNode,
  segment: { name: string; sum: string },
  signal: AbortSignal,
): Promise<void> {
  const { dataDirectory } = bench.layout
  const file = `/tmp/understudy-archive-proof-${bench.cluster.name}-${segment.name}`
  const command = expandRestoreCommand(await askLocal(bench, node, signal, 'SHOW restore_command'), segment.name, file)
  const restored = await bench
    .host(node)
    .run(
      {
        argv: ['sh', '-c', READ_BACK, 'understudy-archive', dataDirectory, file, command],
        as: 'postgres',
        timeoutMs: 120_000,
        shownAs: `sudo -n -u postgres -- sh -c 'cd ${dataDirectory} && ${command} && sha256sum ${file}'`,
      },
      { signal },
    )
    .catch(error => {
      if (!(error instanceof CommandFailed)) throw error
      throw new ArchiveNotProven(
        `${node.name} cannot read ${segment.name} back from the archive.`,
        `As postgres on ${node.name}, in ${dataDirectory}, run: ${command}`,
        error.output,
      )
    })
  const sum = restored.stdout.split(/\s/)[0]
  if (sum !== segment.sum) {
    throw new ArchiveNotProven(
      `${node.name} read ${segment.name} back from the archive with another content (SHA-256 ${sum}, on the primary ${segment.sum}).`,
      'Do not rely on this archive: look at what else writes to it.',
    )
  }
}
