import type { ClusterNode } from '../src/cluster/model.js'
import { dataNodes, isWitness } from '../src/cluster/topology.js'
import type { Store } from '../src/store/store.js'
import type { Bench } from './bench.js'

/** What the proof has shown goes into the cluster's record: that it was built, which database it is, who replicates. */
export async function recordMembers(store: Store, bench: Bench, proven: readonly ClusterNode[]): Promise<void> {
  // Every member with data has the same identifier: any of them answers for all. A witness has its own.
  const [member] = dataNodes(proven)
  const [row] = member
    ? await bench.ask(member, {}, query => query('SELECT system_identifier::text AS id FROM pg_control_system()'))
    : []
  // Looked up again: the survey is from before anything was installed.
  const installed = new Map(
    await Promise.all(
      proven.map(async node => [node.name, (await bench.inspect(node, AbortSignal.timeout(30_000))).packages] as const),
    ),
  )
  const now = new Date().toISOString()
  await store.clusters.update(bench.cluster.name, cluster => ({
    ...cluster,
    ...(cluster.systemIdentifier === undefined && row ? { systemIdentifier: String(row.id) } : {}),
    builtAt: cluster.builtAt ?? now,
    controllers: [...new Set([...(cluster.controllers ?? []), ...bench.seenControllers])].sort(),
    nodes: cluster.nodes.map(node => {
      const packages = installed.get(node.name)
      return packages ? { ...node, joinedAt: node.joinedAt ?? now, installed: packages } : node
    }),
  }))
}

/** A server was started as the primary: from now on its data are known, and never made up for by new ones. */
export async function recordIdentifier(store: Store, bench: Bench, node: ClusterNode): Promise<void> {
  if (bench.cluster.systemIdentifier !== undefined || isWitness(node)) return
  const { systemIdentifier } = await bench.inspect(node, AbortSignal.timeout(30_000))
  if (systemIdentifier === undefined) throw new TypeError(`${node.name} has no system identifier`)
  await store.clusters.update(bench.cluster.name, cluster => ({
    ...cluster,
    systemIdentifier: cluster.systemIdentifier ?? systemIdentifier,
    controllers: [...new Set([...(cluster.controllers ?? []), ...bench.controllers])].sort(),
  }))
}
