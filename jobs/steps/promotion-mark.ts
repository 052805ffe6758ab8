/**
 * That a standby is told to become the primary is written to its disk first: a promotion may take effect minutes after it
 * was asked for, and leaves no other trace meanwhile. With that mark nobody goes back, in this turn or in any later one.
 */
import type { ClusterNode } from '../../src/cluster/model.js'
import { runCommand } from '../../src/host/actions.js'
import type { Command } from '../../src/host/command.js'
import type { ChangeStep, Check } from '../../src/operations/step.js'
import type { Bench } from '../bench.js'

/** Beside the lock of the cluster, on the host of the standby: which operation has told it. */
export const promotionMark = (cluster: string) => `/var/lib/understudy/${cluster}.promotion`

/** Prints `told` where this operation has told it, `other` where another one has and nobody says that this is long past. */
const READ = `mark=$1 operation=$2 others=$3
[ -f "$mark" ] || exit 0
if [ "$(cat "$mark")" = "$operation" ]; then echo told
elif [ "$others" = forget ]; then rm -f "$mark"
else echo other; fi`

/** `forget`: a mark of another operation is known to be of long ago. */
export const readMark = (cluster: string, operationId: string, others: 'forget' | 'keep'): Command => ({
  argv: ['sh', '-c', READ, 'understudy-mark', promotionMark(cluster), operationId, others],
  as: 'root',
  timeoutMs: 30_000,
  shownAs: 'see whether it was told already',
})

/** What a worker that died right after the promotion has left behind. */
export function clearPromotionMark(bench: Bench, to: ClusterNode): ChangeStep {
  const path = promotionMark(bench.cluster.name)
  const command: Command = { argv: ['rm', '-f', path], as: 'root', timeoutMs: 30_000 }
  return {
    id: `${to.name}/promotion-mark`,
    kind: 'change',
    title: 'forget that it was told to become the primary',
    node: to.name,
    actions: [runCommand(bench.host(to), bench.cluster.name, command)],
    async check({ signal }): Promise<Check> {
      const found = await bench
        .host(to)
        .run(
          { argv: ['test', '-e', path], as: 'root', timeoutMs: 30_000, shownAs: `see whether there is ${path}` },
          { signal, acceptExit: [0, 1] },
        )
      return found.exitCode === 1 ? { done: true } : { done: false, reason: `${path} is there` }
    },
  }
}
