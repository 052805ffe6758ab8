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

/**
 * The same of a server that is likely to let repmgr in, which costs a fraction over the network; by psql where it does not.
 * For values that are the same in each session and are text, numbers or booleans.
 */
export async function askServer(
  bench: Bench,
  node: ClusterNode,
  signal: AbortSignal,
  statement: string,
): Promise<string> {
  try {
    return await bench.ask(node, { signal, timeoutMs: 3000 }, async query => {
      // From whoever is none, PostgreSQL hides some settings and sessions without a word.
      const [self] = await query("SELECT current_setting('is_superuser') AS super")
      if (self?.super !== 'on') throw new Error('repmgr is no superuser there')
      const rows = await query(statement)
      return rows.map(row => Object.values(row).map(asPsql).join('|')).join('\n')
    })
  } catch {
    signal.throwIfAborted()
    return askLocal(bench, node, signal, statement)
  }
}

const asPsql = (value: unknown): string => {
  if (typeof value === 'boolean') return value ? 't' : 'f'
  return value === null ? '' : String(value)
}
