import type { ClusterNode } from '../../src/cluster/model.js'
import type { Bench } from '../bench.js'

/**
 * Shell function `working_in DIRECTORY`: prints who works there, `<pid> (<program>)` a line. A postmaster stays in its
 * data directory and so do its children, also after a crash that took only the postmaster.
 */
export const WORKING_IN = `working_in() {
  directory=$(readlink -f "$1") || return 0
  for cwd in /proc/[0-9]*/cwd; do
    [ "$(readlink "$cwd" 2>/dev/null)" = "$directory" ] || continue
    pid=\${cwd#/proc/}
    pid=\${pid%/cwd}
    echo "$pid ($(cat "/proc/$pid/comm" 2>/dev/null))"
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
