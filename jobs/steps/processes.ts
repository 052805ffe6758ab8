import type { ClusterNode } from '../../src/cluster/model.js'
import type { Bench } from '../bench.js'

/**
 * Shell function `working_in DIRECTORY`: prints who works there, `<pid> (<program>)` a line. A postmaster stays in its
 * data directory and so do its children, also after a crash that took only the postmaster. One program looks at all
 * processes: one for each would take long where a server has hundreds, and clients wait for this.
 */
export const WORKING_IN = `working_in() {
  directory=$(readlink -f "$1") || return 0
  find /proc/[0-9]*/cwd -maxdepth 0 -printf '%p %l\\n' 2>/dev/null | while read -r link cwd; do
    [ "$cwd" = "$directory" ] || continue
    pid=\${link#/proc/}
    pid=\${pid%/cwd}
    program=
    { read -r program <"/proc/$pid/comm"; } 2>/dev/null
    echo "$pid ($program)"
  done
}`

const SCRIPT = `${WORKING_IN}
working_in "$1"`

/** The numbers of the processes that work in the node's data directory. */
export async function processesIn(bench: Bench, node: ClusterNode, signal: AbortSignal): Promise<string[]> {
  const { stdout } = await bench.host(node).run(
    {
      argv: ['sh', '-c', SCRIPT, 'understudy-processes', bench.layout.dataDirectory],
      as: 'root',
      timeoutMs: 30_000,
      shownAs: `look for processes in ${bench.layout.dataDirectory}`,
    },
    { signal },
  )
  return stdout.split('\n').flatMap(line => line.split(' ')[0] || [])
}
