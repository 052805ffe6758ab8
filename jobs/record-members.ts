import type { ClusterNode } from '../src/cluster/model.js'
import type { Store } from '../src/store/store.js'
import type { Bench } from './bench.js'

/** What the proof has shown goes into the cluster's record: that it was built, which database it is, who replicates. */
export async function recordMembers(store: Store, bench: Bench, proven: readonly ClusterNode[]): Promise<void> {
  // Every member has the same identifier: any of them answers for all.
  const [member] = proven
  if (!member) throw new TypeError('a proof is about nodes')
  const [row] = await bench.ask(member, {}, query =>
    query('SELECT system_identifier::text AS id FROM pg_control_system()'),
  )
  const now = new Date().toISOString()
  const names = new Set(proven.map(({ name }) => name))
  await store.clusters.update(bench.cluster.name, cluster => ({
    ...cluster,
    systemIdentifier: cluster.systemIdentifier ?? String(row?.id),
    builtAt: cluster.builtAt ?? now,
    controllers: [...new Set([...(cluster.controllers ?? []), ...bench.controllers])].sort(),
    nodes: cluster.nodes.map(node => (names.has(node.name) ? { ...node, joinedAt: node.joinedAt ?? now } : node)),
  }))
}
