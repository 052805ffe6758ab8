/** SSH between the postgres users of the nodes: whether there is any, and what for. */
import { type Static, Type } from 'typebox'
import { type ArchivePolicy, archiveOf } from './archive.js'
import { dataNodes, type Placed } from './topology.js'

export const SshBetweenNodes = Type.Boolean({
  description:
    'Let the postgres user of each node log in to every other one, for repmgr’s own switchover and crosscheck by hand. ' +
    'The operations of this service do not need it. An archive that ships has keys too, which may do nothing but that.',
})
export type SshBetweenNodes = Static<typeof SshBetweenNodes>

/** none: no keys. archive: keys that may speak to the WAL archive and do nothing else. full: a login. */
export type NodeSsh = 'none' | 'archive' | 'full'

export function nodeSshOf(cluster: { archive?: ArchivePolicy; sshBetweenNodes?: SshBetweenNodes }): NodeSsh {
  if (cluster.sshBetweenNodes === true) return 'full'
  return archiveOf(cluster).mode === 'ship' ? 'archive' : 'none'
}

/** The nodes that are let in to each other. A witness has nothing to archive; for logins it is a node like any other. */
export function sshMembers<N extends Pick<Placed, 'name' | 'kind'>>(
  cluster: Parameters<typeof nodeSshOf>[0] & { nodes: readonly N[] },
): readonly N[] {
  const ssh = nodeSshOf(cluster)
  if (ssh === 'none') return []
  return ssh === 'full' ? cluster.nodes : dataNodes(cluster.nodes)
}
