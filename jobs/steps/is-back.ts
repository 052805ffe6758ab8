/** Whether a node is what it is to become: then nothing of what leads there is done, or done again. */
import { decodeTime } from 'ulid'
import type { ClusterNode } from '../../src/cluster/model.js'
import type { RebuildMethod } from '../../src/cluster/rejoin.js'
import { upstreamOf } from '../../src/cluster/topology.js'
import type { ChangeStep, CheckContext } from '../../src/operations/step.js'
import type { Bench } from '../bench.js'

/** For how long there has been a copy: a base backup writes PG_VERSION, and nothing ever writes it again. */
const AGE = 'made=$(stat -c %Y "$1/PG_VERSION" 2>/dev/null) || exit 0; echo $(($(date +%s) - made))'

/**
 * What is left of the method: once the new clone that was asked for is made, whatever comes next follows as it is. The
 * copy's age and the operation's are measured on one clock each.
 */
export async function methodNow(
  bench: Bench,
  node: ClusterNode,
  method: RebuildMethod,
  { signal, operationId }: CheckContext,
): Promise<RebuildMethod> {
  if (method !== 'clone' || operationId === undefined) return method
  const { stdout } = await bench.host(node).run(
    {
      argv: ['sh', '-c', AGE, 'understudy-age', bench.layout.dataDirectory],
      as: 'postgres',
      timeoutMs: 30_000,
      shownAs: 'see how old the copy is',
    },
    { signal },
  )
  if (stdout.trim() === '') return method
  const ageMs = Number(stdout) * 1000
  return ageMs < Date.now() - decodeTime(operationId.replace(/^op_/, '')) ? 'auto' : method
}

/** A stream that catches up counts: to stop it would only make it begin again. */
export async function isBack(
  bench: Bench,
  node: ClusterNode,
  primary: ClusterNode,
  method: RebuildMethod,
  context: CheckContext,
): Promise<boolean> {
  const upstream = upstreamOf(node, bench.cluster.nodes, primary)
  const rows = await bench.ask(upstream, { signal: context.signal }, query =>
    query("SELECT 1 FROM pg_stat_replication WHERE application_name = $1 AND state IN ('streaming', 'catchup')", [
      node.name,
    ]),
  )
  return rows.length > 0 && (await methodNow(bench, node, method, context)) !== 'clone'
}

/** The step as it is, and done where the node streams. */
export const unlessBack = (
  bench: Bench,
  node: ClusterNode,
  primary: ClusterNode,
  method: RebuildMethod,
  step: ChangeStep,
): ChangeStep => ({
  ...step,
  async check(context) {
    if (await isBack(bench, node, primary, method, context)) return { done: true, note: 'it streams' }
    return step.check(context)
  },
})
