/** The archive's directory on a node. One that is there already and is somebody else's is never touched. */
import { type Archive, archiveOf } from '../../src/cluster/archive.js'
import type { ClusterNode } from '../../src/cluster/model.js'
import { isWitness } from '../../src/cluster/topology.js'
import { runCommand } from '../../src/host/actions.js'
import { OperationError } from '../../src/operations/errors.js'
import type { Check, Step } from '../../src/operations/step.js'
import { archiveStateDirectory } from '../../src/postgres/archive.js'
import type { Bench } from '../bench.js'

type Shipping = Extract<Archive, { mode: 'ship' }>

/** Thrown when the directory of the archive has something in it that is not the archive's. */
export class ArchiveDirectoryTaken extends OperationError {
  constructor(node: string, directory: string, first: string) {
    super(`${directory} on ${node} cannot be the directory of the WAL archive: ${first} is there already.`, {
      code: 'archive-directory-taken',
      outcome: 'not_started',
      remedy: `Name a directory that is empty or not there, as ${directory}/wal-archive, then repeat the call. Nothing of it was changed.`,
    })
  }
}

/**
 * What is in a directory that has no `.state` of ours: nothing, or the first thing that is not the archive's. A new file
 * system has lost+found; a database that was wiped may have left the segments of another one, by system identifier.
 */
const STRANGER = `stranger() {
  [ -e "$1" ] || [ -L "$1" ] || return 0
  [ -d "$1" ] || { echo "a file"; return; }
  [ ! -d "$1/.state" ] || return 0
  ls -A -- "$1/" | grep -vxE 'lost\\+found|[0-9]{16,20}' | head -n 1
}`

const LOOK = `${STRANGER}
found=$(stranger "$1")
[ -z "$found" ] || { echo "taken $found"; exit; }
for d in "$@"; do [ "$(stat -L -c "%U %a" -- "$d" 2>/dev/null)" = "postgres 700" ] || { echo "not $d"; exit; }; done`

/** Looks again: between a check and this somebody may have put something there. */
const MAKE = `${STRANGER}
found=$(stranger "$1")
[ -z "$found" ] || { echo "$1 has $found in it, which is not the archive's" >&2; exit 1; }
exec install -d -o postgres -g postgres -m 0700 -- "$@"`

const directoriesOf = (archive: Shipping) => [archive.directory, archiveStateDirectory(archive)]

/** Throws `ArchiveDirectoryTaken`. What is missing, or is not the postgres user's alone; undefined where all is well. */
async function lookAt(
  bench: Bench,
  node: ClusterNode,
  archive: Shipping,
  signal: AbortSignal,
): Promise<string | undefined> {
  const { stdout } = await bench.host(node).run(
    {
      argv: ['sh', '-c', LOOK, 'understudy-archive', ...directoriesOf(archive)],
      as: 'root',
      timeoutMs: 15_000,
      shownAs: `look at ${archive.directory}`,
    },
    { signal },
  )
  const [, kind, what = ''] = /^(taken|not) (.*)$/m.exec(stdout) ?? []
  if (kind === 'taken') throw new ArchiveDirectoryTaken(node.name, archive.directory, what)
  return kind === 'not' ? what : undefined
}

/** Before anything is written: throws `ArchiveDirectoryTaken`. Nodes that do not answer are left out. */
export async function refuseTakenDirectory(bench: Bench, signal: AbortSignal): Promise<void> {
  const archive = archiveOf(bench.cluster)
  if (archive.mode !== 'ship') return
  const members = bench.cluster.nodes.filter(node => !bench.absent.has(node.name) && !isWitness(node))
  await Promise.all(members.map(node => lookAt(bench, node, archive, signal)))
}

export function makeArchiveDirectory(bench: Bench, node: ClusterNode, archive: Shipping): Step {
  const directories = directoriesOf(archive)
  return {
    id: `${node.name}/archive-directory`,
    kind: 'change',
    title: 'make the directory of the WAL archive',
    node: node.name,
    actions: [
      runCommand(bench.host(node), bench.cluster.name, {
        argv: ['sh', '-c', MAKE, 'understudy-archive', ...directories],
        as: 'root',
        timeoutMs: 30_000,
        shownAs: `sudo -n -- install -d -o postgres -g postgres -m 0700 ${directories.join(' ')}`,
      }),
    ],
    async check({ signal }): Promise<Check> {
      const missing = await lookAt(bench, node, archive, signal)
      return missing === undefined
        ? { done: true }
        : { done: false, reason: `${missing} is not there, or not postgres’ alone` }
    },
  }
}
