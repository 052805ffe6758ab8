/**
 * What jobs (detached.ts) leave on their host when the operation that began them is never repeated: their log and how they
 * ended. Whoever looks after a week is told by the operation's own log.
 */
import { STATE } from './detached-scripts.js'
import type { Host } from './host.js'

export const JOB_KEPT_MS = 7 * 24 * 3_600_000

/** `find` gives nothing where every file of a job is older: one that begins meanwhile has a new one. */
const SWEEP = `minutes=$1
young() { [ -n "$(find "$1" -mmin "-$minutes" -print 2>/dev/null | head -n 1)" ]; }
for path in /var/lib/understudy/jobs/*/; do
  [ -d "$path" ] || continue
  path=\${path%/}
  ! young "$path" || continue
  (
    set -- "\${path##*/}"
    ${STATE.replaceAll('\n', '\n    ')}
    take_lock
    now=$(state) || exit 0
    if [ "$now" = running ] || [ "$now" = absent ] || young "$job"; then exit 0; fi
    rm -rf -- "$job"
    rm -f -- "$jobs/$id.lock"
    echo "$id"
  )
done
exit 0`

/** Removes the files of jobs that ended, or were lost, longer ago than `olderThanMs`. Returns their ids. Never a running one. */
export async function sweepDetached(
  host: Host,
  { signal, olderThanMs = JOB_KEPT_MS }: { signal?: AbortSignal; olderThanMs?: number } = {},
): Promise<string[]> {
  const { stdout } = await host.run(
    {
      argv: ['sh', '-c', SWEEP, 'understudy-sweep', String(Math.ceil(olderThanMs / 60_000))],
      as: 'root',
      timeoutMs: 60_000,
      shownAs: 'remove the files of detached commands that ended long ago',
    },
    signal ? { signal } : {},
  )
  return stdout.split('\n').filter(id => id !== '')
}
