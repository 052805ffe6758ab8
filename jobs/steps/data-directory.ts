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

/** Empties the data directory of a server that was never in use, and removes `also`. Throws `DataDirectoryInUse`. */
export function emptyUnused(bench: Bench, node: ClusterNode, also: readonly string[] = []): Action {
  const { layout, cluster } = bench
  const shown: Command = {
    argv: ['find', `${layout.dataDirectory}/`, '-mindepth', '1', '-xdev', '-delete'],
    as: 'root',
    timeoutMs: 600_000,
  }
  const unused = (['creating', 'created', 'cloning'] as const).map(state =>
    markerFile(bench, node, state).content.trim(),
  )
  const command: Command = {
    ...shown,
    argv: ['sh', '-c', SCRIPT, 'understudy-empty', layout.marker, layout.dataDirectory, ...unused, ...also],
    shownAs: `${render(shown)}   # only where the mark of this service allows it, and no server was ever started`,
  }
  return {
    description: { kind: 'command', text: render(command) },
    async perform({ epoch, signal, log }) {
      try {
        await changing(bench.host(node), cluster.name, epoch).run(command, { signal, onLine: log })
      } catch (error) {
        if (!(error instanceof CommandFailed && error.exitCode === REFUSED)) throw error
        throw new DataDirectoryInUse(node.name, layout.dataDirectory, error.result.stderr.trim())
      }
    },
  }
}
