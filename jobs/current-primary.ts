/**
 * Which node is the primary now, seen from one that is to come back: that one may itself accept writes, or have been the
 * primary before. Stricter than `findPrimary`, which refuses such a node: the answer has to be beyond doubt.
 */
import type { ClusterNode } from '../src/cluster/model.js'
import { dataNodes } from '../src/cluster/topology.js'
import type { Bench } from './bench.js'
import { isInUse, PrimaryUnclear, refuseForeign } from './find-primary.js'
import { NodeIsPrimary } from './refusals.js'

/** The one that accepts writes on the newest timeline. Throws `PrimaryUnclear`, `NodeIsPrimary`. */
export function currentPrimary(
  bench: Pick<Bench, 'cluster' | 'layout' | 'found' | 'absent'>,
  returning: ClusterNode,
): ClusterNode {
  const { cluster } = bench
  const state = (node: ClusterNode) => bench.found(node).server
  const timeline = (node: ClusterNode) => state(node).timeline ?? 0
  const here = dataNodes(cluster.nodes).filter(({ name }) => !bench.absent.has(name))
  for (const node of here) refuseForeign(bench, node, state(node))
  const identifier = cluster.systemIdentifier
  const inUse = here.filter(
    node => isInUse(state(node)) && (identifier === undefined || state(node).systemIdentifier === identifier),
  )
  const writable = inUse.filter(node => state(node).inRecovery === false)
  const newest = Math.max(0, ...writable.map(timeline))
  const [primary, second] = writable.filter(node => timeline(node) === newest)
  if (!primary) {
    const away = [...bench.absent.keys()].join(' and ')
    throw new PrimaryUnclear(
      `No node that answers accepts writes${away === '' ? '' : `, and ${away} does not answer`}: there is nobody to come back to.`,
      'Bring back the primary, or promote a standby; then repeat the call.',
    )
  }
  if (second) {
    throw new PrimaryUnclear(
      `${primary.name} and ${second.name} both accept writes, on the same timeline ${newest}: nothing tells which one is the primary.`,
      'Decide which one is right, and stop the other by hand; then repeat the call.',
    )
  }
  if (primary === returning) throw new NodeIsPrimary(returning.name, 'brought back as a standby')
  const older = writable.filter(node => node !== primary && node !== returning)
  if (older.length > 0) {
    throw new PrimaryUnclear(
      `${older.map(({ name }) => name).join(' and ')} accepts writes too, on an older timeline than ${primary.name}.`,
      `Bring it back first: POST /v1/clusters/${cluster.name}/nodes/${older[0]?.name}/rejoin.`,
    )
  }
  const newer = inUse.filter(node => timeline(node) > newest)
  if (newer.length > 0) {
    const names = newer.map(({ name }) => name).join(' and ')
    const seen = Math.max(...newer.map(timeline))
    throw new PrimaryUnclear(
      `${primary.name} is the primary, on timeline ${newest}, and ${names} has seen timeline ${seen}: another server was promoted since.`,
      `Find the server that was promoted. If ${primary.name} is right all the same, take ${names} out of the cluster without wiping.`,
    )
  }
  return primary
}
