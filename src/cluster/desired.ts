/** A description as the desired state of a cluster that is there already. Pure. */
import { archiveObjection } from './archive.js'
import { type Cluster, type ClusterSpec, clusterPolicies, differences, newNode, policiesOf } from './model.js'

export interface Difference {
  pointer: string
  detail: string
}

/** Database and hosts stay where they are: these cannot be changed by describing them differently. */
const FIXED = /^\/(name|postgresVersion|port|nodes|nodes\/\d+\/(host|kind))$/

/** What a description asks for that differs from the record, and what of it cannot be had by asking. */
export function compareDesired(
  spec: ClusterSpec,
  cluster: Cluster,
): { differences: Difference[]; refused: Difference[] } {
  const all = differences(withAdopted(spec, cluster), cluster)
  return {
    differences: all,
    refused: [
      ...all.filter(({ pointer }) => FIXED.test(pointer)),
      ...forgottenArchive(spec, cluster),
      ...changedTls(all, spec, cluster),
    ],
  }
}

/**
 * Of a cluster that runs it is changed in an order of its own, over all nodes: certificates before those who verify them,
 * these before the rules that insist on it.
 */
function changedTls(
  all: readonly Difference[],
  { tls }: ClusterSpec,
  { name, tls: known, builtAt, nodes }: Cluster,
): Difference[] {
  const runs = builtAt !== undefined || nodes.some(({ adopted }) => adopted === true)
  if (!runs || !all.some(({ pointer }) => pointer === '/tls')) return []
  const there =
    known === undefined || known.mode === 'off'
      ? 'is off there'
      : `is ${known.mode} there, with ${JSON.stringify({ ...known, ca: undefined, mode: undefined })}`
  const call = `PUT /v1/clusters/${name}/tls with ${tls === undefined ? '{"mode":"off"}' : 'what is described here'} changes it, in an order that keeps the cluster running; then put the description again`
  return [
    { pointer: '/tls', detail: `${there}. To keep that, describe it as GET /v1/clusters/${name} shows it; ${call}` },
  ]
}

/** An archive that was there before this service is not ended by a description that has forgotten it. */
function forgottenArchive({ archive }: ClusterSpec, cluster: Cluster): Difference[] {
  const kept = cluster.archive
  const adopted = cluster.nodes.some(node => node.adopted === true)
  if (!adopted || archive !== undefined || kept === undefined || kept.mode === 'none') return []
  return [
    {
      pointer: '/archive',
      detail:
        archiveObjection(kept) === undefined
          ? `is not said, and the cluster archives its WAL: say ${JSON.stringify(kept)} to keep that, {"mode":"none"} to end it`
          : 'is not said, and the cluster has an archive that loses WAL: say {"mode":"ship"} for one that keeps it, {"mode":"none"} for none',
    },
  ]
}

/** Settings that were found when the cluster was adopted count until a description says others, or PATCH takes them away. */
function withAdopted(spec: ClusterSpec, { adoptedSettings = [], settings = {} }: Cluster): ClusterSpec {
  const kept = Object.entries(settings).filter(([name]) => adoptedSettings.includes(name))
  return kept.length === 0 ? spec : { ...spec, settings: { ...Object.fromEntries(kept), ...spec.settings } }
}

/**
 * The record as the description wants it. Nodes that are known keep their number and their history; new ones take the
 * next number. What the description does not say any more is taken out, but for settings that were found at adoption. Throws TypeError for a new node without a host
 * key; the caller has refused what cannot be changed.
 */
export function withDescription(cluster: Cluster, spec: ClusterSpec): Cluster {
  let { nextNodeId } = cluster
  const nodes = spec.nodes.map(wanted => {
    const known = cluster.nodes.find(({ name }) => name === wanted.name)
    if (!known) {
      const node = newNode(wanted, nextNodeId)
      nextNodeId += 1
      return node
    }
    const ssh = { ...wanted.ssh, hostKey: wanted.ssh.hostKey ?? known.ssh.hostKey }
    const { nodeId, joinedAt, adopted, systemIdentifier, installed } = known
    return {
      ...newNode({ ...wanted, ssh }, nodeId),
      ...(joinedAt === undefined ? {} : { joinedAt }),
      ...(adopted === undefined ? {} : { adopted }),
      ...(systemIdentifier === undefined ? {} : { systemIdentifier }),
      ...(installed === undefined ? {} : { installed }),
    }
  })
  const kept = Object.fromEntries(Object.entries(cluster).filter(([name]) => !Object.hasOwn(clusterPolicies, name)))
  return { ...(kept as Cluster), ...policiesOf(clusterPolicies, withAdopted(spec, cluster)), nodes, nextNodeId }
}
