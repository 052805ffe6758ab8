/** What is said when a cluster is forgotten: what this service will not look after any more. */
import { type Static, Type } from 'typebox'
import type { Cluster } from './model.js'

export const Forgotten = Type.Object(
  {
    cluster: Type.String(),
    forgotten: Type.Boolean({ description: 'False on a dry run.' }),
    remains: Type.Array(
      Type.Object(
        { node: Type.String(), host: Type.String(), what: Type.String({ description: 'In words.' }) },
        { additionalProperties: false, title: 'Remainder', description: 'What stays on one host.' },
      ),
      { description: 'What is on the hosts, and was not touched.' },
    ),
  },
  {
    additionalProperties: false,
    title: 'Forgotten',
    description: 'A cluster that this service knows no more. Its servers go on as they were.',
  },
)
export type Forgotten = Static<typeof Forgotten>

export function farewell(cluster: Cluster, forgotten: boolean): Forgotten {
  const { name, postgresVersion, port, nodes } = cluster
  return {
    cluster: name,
    forgotten,
    remains: nodes.map(node => ({
      node: node.name,
      host: node.host,
      what:
        cluster.systemIdentifier === undefined
          ? 'Whatever was prepared there. No server was ever started by this service.'
          : `PostgreSQL ${postgresVersion}/main on port ${port}, running or not, with its data, /etc/repmgr.conf, the managed block of pg_hba.conf and .pgpass, and /var/lib/understudy.${cluster.repmgrd?.nodes.includes(node.name) ? ' repmgrd is paused there: repmgr service unpause.' : ''}`,
    })),
  }
}
