/** The cluster, and the node, that a path names. */
import { Type } from 'typebox'
import { type Cluster, ClusterName, type ClusterNode, NodeName } from '../../cluster/model.js'
import { ProblemError } from '../problems.js'
import type { Services } from '../services.js'

export const ClusterParams = Type.Object({ cluster: ClusterName }, { additionalProperties: false })
export const NodeParams = Type.Object({ cluster: ClusterName, node: NodeName }, { additionalProperties: false })

export async function findCluster({ store }: Services, name: string): Promise<Cluster> {
  const cluster = await store.clusters.get(name)
  if (!cluster) throw new ProblemError('not-found', `There is no cluster ${name}. GET /v1/clusters lists them.`)
  return cluster
}

export async function findNode(
  services: Services,
  path: { cluster: string; node: string },
): Promise<{ cluster: Cluster; node: ClusterNode }> {
  const cluster = await findCluster(services, path.cluster)
  const node = cluster.nodes.find(({ name }) => name === path.node)
  if (!node) {
    const known = cluster.nodes.map(({ name }) => name).join(', ')
    throw new ProblemError('not-found', `${cluster.name} has no node ${path.node}. It has ${known}.`)
  }
  return { cluster, node }
}

/** Throws unless a bootstrap of the cluster has succeeded, or it was adopted and lets the service in. */
export function refuseUnbuilt(cluster: Cluster): void {
  if (cluster.builtAt !== undefined) return
  if (cluster.nodes.some(({ adopted }) => adopted === true))
    throw new ProblemError(
      'cluster-not-built',
      `${cluster.name} was adopted, and its servers do not let this service in yet: PUT /v1/clusters/${cluster.name} with its description first.`,
    )
  throw new ProblemError(
    'cluster-not-built',
    `${cluster.name} has not been built: POST /v1/clusters with its description and "bootstrap": true first.`,
  )
}

/** A cluster that was built and, where one is named, has that node. */
export async function findBuilt(services: Services, name: string, node: string | undefined): Promise<Cluster> {
  const cluster = await findCluster(services, name)
  if (node !== undefined) await findNode(services, { cluster: name, node })
  refuseUnbuilt(cluster)
  return cluster
}
