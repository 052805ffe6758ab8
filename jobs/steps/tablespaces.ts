/** Folders outside of the data directory that a copy fills too. */
import type { ClusterNode } from '../../src/cluster/model.js'
import { foldersInUse } from '../../src/host/folders.js'
import { OperationError } from '../../src/operations/errors.js'
import type { Bench } from '../bench.js'

/**
 * Thrown when the folder of a tablespace holds something on the host that is to get a copy. Nothing tells for certain
 * whether a copy that was cut short left it there, or somebody keeps it: so it is never emptied from here.
 */
class TablespaceInUse extends OperationError {
  constructor(node: string, folders: readonly string[]) {
    super(
      `A copy fills the folders of the tablespaces too, and on ${node} these hold something: ${folders.join(', ')}.`,
      {
        code: 'tablespace-in-use',
        outcome: 'not_started',
        remedy: `Look into them on ${node}. A copy that was cut short leaves a folder PG_<version>_<number>: remove it there if it is that. Then repeat the call.`,
      },
    )
  }
}

/** pg_basebackup would refuse them too, but only in the middle of it all. */
export async function refuseUsedTablespaces(
  bench: Bench,
  node: ClusterNode,
  upstream: ClusterNode,
  signal: AbortSignal,
): Promise<void> {
  // Those that lie in the data directory itself (PostgreSQL 15 and later, for tests) have a relative path.
  const rows = await bench.ask(upstream, { signal }, query =>
    query(
      "SELECT pg_tablespace_location(oid) AS location FROM pg_tablespace WHERE pg_tablespace_location(oid) LIKE '/%' ORDER BY 1",
    ),
  )
  const used = await foldersInUse(
    bench.host(node),
    rows.map(({ location }) => String(location)),
    { signal },
  )
  if (used.length > 0) throw new TablespaceInUse(node.name, used)
}
