/** What belongs to us of a data directory, and the only place where one is emptied. */
import type { ClusterNode } from '../../src/cluster/model.js'
import { changing } from '../../src/host/actions.js'
import { type Command, render } from '../../src/host/command.js'
import { CommandFailed } from '../../src/host/errors.js'
import type { RemoteFile } from '../../src/host/files.js'
import { OperationError } from '../../src/operations/errors.js'
import type { Action } from '../../src/operations/step.js'
import type { Marker } from '../../src/postgres/inspect.js'
import type { Bench } from '../bench.js'
import { WORKING_IN } from './processes.js'

export function markerFile(bench: Bench, node: ClusterNode, state: Marker['state']): RemoteFile {
  const marker: Marker = { cluster: bench.cluster.name, node: node.name, state }
  return { path: bench.layout.marker, content: `${JSON.stringify(marker)}\n`, owner: 'root:root', mode: '0644' }
}

/** Thrown when a data directory that was to be emptied turns out to be somebody's after all. Nothing was removed. */
export class DataDirectoryInUse extends OperationError {
  constructor(node: string, directory: string, why: string) {
    super(`${directory} on ${node} is not emptied: ${why}`, {
      code: 'data-directory-in-use',
      outcome: 'failed_clean',
      remedy: `Find out who used it on ${node} since this service last looked. Nothing was removed.`,
    })
  }
}

const REFUSED = 77
/**
 * One script looks and empties, so that nothing fits in between: the marker must say that it is ours and not in use, and
 * no server may ever have been started on it. The slash after the directory follows a symbolic link to where data live.
 */
const SCRIPT = `
marker=$1 data=$2 creating=$3 created=$4 cloning=$5
shift 5
refuse() { echo "$1" >&2; exit ${REFUSED}; }
[ -f "$marker" ] || refuse "there is no mark of this service"
found=$(cat "$marker")
case $found in
"$creating" | "$created" | "$cloning") ;;
*) refuse "it is marked as $found" ;;
esac
[ ! -e "$data/postmaster.opts" ] && [ ! -e "$data/postmaster.pid" ] || refuse "a server was started on it"
[ ! -d "$data" ] || find "$data/" -mindepth 1 -xdev -delete || exit 1
[ $# -eq 0 ] || rm -rf --one-file-system -- "$@"
`

/**
 * Shell function `empty_data DIRECTORY VERSION`. What tablespaces and a moved pg_wal hold goes too: links to them are in
 * the directory, and of a tablespace only PostgreSQL's own folder of this version is removed.
 */
export const EMPTY_DATA = `empty_data() {
  [ -d "$1" ] || return 0
  for link in "$1"/pg_tblspc/*; do
    [ -L "$link" ] || continue
    for own in "$(readlink -f "$link")"/PG_"$2"_*; do
      [ ! -d "$own" ] || find "$own" -xdev -delete || return 1
    done
  done
  [ ! -L "$1/pg_wal" ] || find "$1/pg_wal/" -mindepth 1 -xdev -delete || return 1
  find "$1/" -mindepth 1 -xdev -delete
}`

/**
 * The same for a standby that was used: asked for by name, and only where it is a standby of this very database, has seen
 * no promotion that the primary does not know of, and nothing works in it. The mark is changed first: what is cut short
 * from then on is a copy that is not whole.
 */
const GIVE_UP = `${WORKING_IN}
${EMPTY_DATA}
marker=$1 data=$2 used=$3 cloning=$4 identifier=$5 control=$6 version=$7 timeline=$8
refuse() { echo "$1" >&2; exit ${REFUSED}; }
[ -f "$marker" ] || refuse "there is no mark of this service"
found=$(cat "$marker")
[ "$found" = "$used" ] || [ "$found" = "$cloning" ] || refuse "it is marked as $found"
[ -f "$data/standby.signal" ] || refuse "it is no standby"
own=$("$control" "$data" | sed -n 's/^Database system identifier: *//p')
[ "$own" = "$identifier" ] || refuse "it is another database cluster ($own)"
newest=$(ls "$data/pg_wal/" | sed -n 's/^\\([0-9A-F]\\{8\\}\\)\\.history$/\\1/p' | sort | tail -n 1)
newest=$((0x\${newest:-0}))
[ "$newest" -le "$timeline" ] || refuse "it has seen timeline $newest, and the primary is on timeline $timeline"
busy=$(working_in "$data")
[ -z "$busy" ] || refuse "a process works in it: $busy"
umask 022
echo "$cloning" >"$marker.new" && sync "$marker.new" && mv -fT "$marker.new" "$marker" && sync "\${marker%/*}" || exit 1
# First what says that it was used, so that what is left after a cut is never taken for a database.
rm -f "$data/postmaster.opts" "$data/postmaster.pid" && sync "$data" || exit 1
empty_data "$data" "$version"`

/** Empties the data directory of a standby that is stopped. `timeline`: the primary's. Throws `DataDirectoryInUse`. */
export function emptyStandby(bench: Bench, node: ClusterNode, systemIdentifier: string, timeline: number): Action {
  const { layout } = bench
  const shown: Command = {
    argv: ['find', `${layout.dataDirectory}/`, '-mindepth', '1', '-xdev', '-delete'],
    as: 'root',
    timeoutMs: 3_600_000,
  }
  return refusing(bench, node, {
    ...shown,
    argv: [
      'sh',
      '-c',
      GIVE_UP,
      'understudy-give-up',
      layout.marker,
      layout.dataDirectory,
      markerFile(bench, node, 'in-use').content.trim(),
      markerFile(bench, node, 'cloning').content.trim(),
      systemIdentifier,
      `${layout.binDirectory}/pg_controldata`,
      String(layout.version),
      String(timeline),
    ],
    shownAs: `${render(shown)}   # only where it is a stopped standby of this database`,
  })
}

/** Empties the data directory of a server that was never in use, and removes `also`. Throws `DataDirectoryInUse`. */
export function emptyUnused(bench: Bench, node: ClusterNode, also: readonly string[] = []): Action {
  const { layout } = bench
  const shown: Command = {
    argv: ['find', `${layout.dataDirectory}/`, '-mindepth', '1', '-xdev', '-delete'],
    as: 'root',
    timeoutMs: 600_000,
  }
  const unused = (['creating', 'created', 'cloning'] as const).map(state =>
    markerFile(bench, node, state).content.trim(),
  )
  return refusing(bench, node, {
    ...shown,
    argv: ['sh', '-c', SCRIPT, 'understudy-empty', layout.marker, layout.dataDirectory, ...unused, ...also],
    shownAs: `${render(shown)}   # only where the mark of this service allows it, and no server was ever started`,
  })
}

/** A command that looks before it removes, and whose refusal is told apart from a failure. */
function refusing({ host, cluster, layout }: Bench, node: ClusterNode, command: Command): Action {
  return {
    description: { kind: 'command', text: render(command) },
    async perform({ epoch, signal, log }) {
      try {
        await changing(host(node), cluster.name, epoch).run(command, { signal, onLine: log })
      } catch (error) {
        if (!(error instanceof CommandFailed && error.exitCode === REFUSED)) throw error
        throw new DataDirectoryInUse(node.name, layout.dataDirectory, error.result.stderr.trim())
      }
    },
  }
}
