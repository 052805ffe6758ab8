/** Asks every server of a cluster, side by side: one that hangs costs the answer nothing but its own row. */
import type { Cluster } from '../cluster/model.js'
import { type ClusterStatus, describeStatus } from '../cluster/status.js'
import { trustOf } from '../store/authority.js'
import { nextRepmgrPassword, repmgrPassword } from '../store/secrets.js'
import type { Store } from '../store/store.js'
import { probeNode } from './probe-node.js'

export async function observeCluster(store: Store, cluster: Cluster, signal: AbortSignal): Promise<ClusterStatus> {
  const [password, next, trust, operation] = await Promise.all([
    store.secrets.get(repmgrPassword(cluster.name)),
    store.secrets.get(nextRepmgrPassword(cluster.name)),
    trustOf(store.secrets, cluster),
    store.operations.activeOn(cluster.name),
  ])
  const passwords = [password, next].filter(known => known !== undefined)
  const probes = await Promise.all(
    cluster.nodes.map(node => probeNode(cluster, node, { passwords, trust }, { signal })),
  )
  return describeStatus(cluster, probes, {
    now: new Date().toISOString(),
    operation: operation ?? null,
    ...(cluster.promotion === undefined ? {} : { promotion: cluster.promotion }),
  })
}
