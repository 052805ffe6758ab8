/** The mark that makes a start of this server the start of a standby, on its disk before it is told to stop. */
import type { ClusterNode } from '../../src/cluster/model.js'
import { runCommand } from '../../src/host/actions.js'
import type { ChangeStep, Check } from '../../src/operations/step.js'
import type { Bench } from '../bench.js'

const MARK = `data=$1
signal="$data/standby.signal"
[ -f "$data/PG_VERSION" ] || exit 0
[ -f "$signal" ] || install -o postgres -g postgres -m 0600 /dev/null "$signal" || exit 1
sync "$signal" "$data"`

export function markAsStandby(bench: Bench, node: ClusterNode): ChangeStep {
  const { dataDirectory } = bench.layout
  return {
    id: `${node.name}/standby-signal`,
    kind: 'change',
    title: 'see to it that whatever starts it starts a standby',
    node: node.name,
    actions: [
      runCommand(bench.host(node), bench.cluster.name, {
        argv: ['sh', '-c', MARK, 'understudy-mark', dataDirectory],
        as: 'root',
        timeoutMs: 60_000,
        shownAs: `write ${dataDirectory}/standby.signal, and sync it`,
      }),
    ],
    async check({ signal }): Promise<Check> {
      const { standbySignal, directory } = await bench.inspect(node, signal)
      if (directory !== 'database') return { done: true, note: 'it holds no data' }
      return standbySignal ? { done: true } : { done: false, reason: 'a start would make it a primary' }
    },
  }
}
