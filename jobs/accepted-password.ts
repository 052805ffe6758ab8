/** While a rotation is under way, or has stopped half-way: which of the two passwords the servers have. */
import type { ClusterNode } from '../src/cluster/model.js'
import { dataNodes } from '../src/cluster/topology.js'
import { ServerUnreachable } from '../src/postgres/connect.js'
import { askAs, type Bench } from './bench.js'
import { isInUse } from './find-primary.js'

type Surveyed = Pick<Bench, 'cluster' | 'absent' | 'found'>

/** Whether the server lets repmgr in; undefined where it does not say, because it cannot be connected to. */
export async function letsIn(bench: Pick<Bench, 'ask'>, node: ClusterNode, signal: AbortSignal) {
  try {
    await bench.ask(node, { signal }, query => query('SELECT 1'))
    return true
  } catch (error) {
    if (!(error instanceof ServerUnreachable)) throw error
    return error.reason === 'authentication' ? false : undefined
  }
}

/**
 * The first that answers decides: the primary, for the password is changed there; without one a standby, which has what it
 * has replayed. Where nobody answers it is the one that the cluster had.
 */
export async function accepts(
  { cluster, absent, found }: Surveyed,
  ask: (node: ClusterNode) => Promise<boolean | undefined>,
): Promise<boolean> {
  const running = dataNodes(cluster.nodes)
    .filter(({ name }) => !absent.has(name))
    .map(node => ({ node, server: found(node).server }))
    .filter(({ server }) => isInUse(server) && server.running)
  const isPrimary = ({ server }: (typeof running)[number]) => server.inRecovery === false
  for (const { node } of [...running.filter(isPrimary), ...running.filter(one => !isPrimary(one))]) {
    const answer = await ask(node)
    if (answer !== undefined) return answer
  }
  return false
}

/** The bench as it is, or one that works with `next` where the servers have that already. */
export async function withAcceptedPassword(
  bench: Bench,
  next: string | undefined,
  signal: AbortSignal,
): Promise<Bench> {
  if (next === undefined || next === bench.password) return bench
  const changed: Bench = { ...bench, password: next, ask: askAs(bench.cluster, next, bench.tls.trust) }
  return (await accepts(bench, node => letsIn(changed, node, signal))) ? changed : bench
}
