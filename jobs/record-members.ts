import type { Store } from '../src/store/store.js'
import type { Bench } from './bench.js'

/** What the proof has shown goes into the cluster's record: that it was built, which database it is, who replicates. */
export async function recordMembers(store: Store, bench: Bench): Promise<void> {
  // Every member has the same identifier: the first answers for all.
  const member = bench.cluster.nodes.find(({ name }) => !bench.absent.has(name))
  if (!member) throw new TypeError('a cluster has nodes')
  const [row] = await bench.ask(member, {}, query =>
    query('SELECT system_identifier::text AS id FROM pg_control_system()'),
  )
  const now = new Date().toISOString()
  await store.clusters.update(bench.cluster.name, cluster => ({
    ...cluster,
    systemIdentifier: cluster.systemIdentifier ?? String(row?.id),
    builtAt: cluster.builtAt ?? now,
    nodes: cluster.nodes.map(node =>
      bench.absent.has(node.name) ? node : { ...node, joinedAt: node.joinedAt ?? now },
    ),
  }))
}
