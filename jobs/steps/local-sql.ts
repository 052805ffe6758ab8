/** Questions to the local superuser: by psql over SSH, for where the repmgr role is not there yet or cannot tell. */
import type { ClusterNode } from '../../src/cluster/model.js'
import type { Bench } from '../bench.js'

export const superuser = (bench: Pick<Bench, 'layout' | 'cluster'>, database = 'postgres') => ({
  psql: `${bench.layout.binDirectory}/psql`,
  port: bench.cluster.port,
  database,
})

/** What psql prints, unaligned and without headers. */
export async function askLocal(
  bench: Bench,
  node: ClusterNode,
  signal: AbortSignal,
  statement: string,
): Promise<string> {
  const { psql, port, database } = superuser(bench)
  const { stdout } = await bench.host(node).run(
    {
      argv: [psql, '-XAtqw', '-p', String(port), '-d', database, '-c', statement],
      as: 'postgres',
      timeoutMs: 15_000,
    },
    { signal },
  )
  return stdout.trim()
}
