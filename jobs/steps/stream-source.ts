/** Whom a server streams from while it is a standby: `primary_conninfo` and `primary_slot_name`. */
import { escapeLiteral } from 'pg'
import type { ClusterNode } from '../../src/cluster/model.js'
import { slotName } from '../../src/cluster/slot.js'
import { runSql } from '../../src/host/actions.js'
import type { ChangeStep, Check } from '../../src/operations/step.js'
import { nodeConninfo } from '../../src/repmgr/conf.js'
import { addressOf, type Bench } from '../bench.js'
import { askServer, superuser } from './local-sql.js'

/** As repmgr writes it when it clones: the name tells the upstream who streams; the password is in the pass file. */
export const streamConninfo = ({ cluster, layout }: Bench, node: ClusterNode, upstream: ClusterNode) =>
  `${nodeConninfo(addressOf(cluster, layout, upstream))} application_name=${node.name} passfile=${layout.passFile}`

/**
 * A running standby goes over to the new source with a reload, since PostgreSQL 13. On a primary it is without effect
 * until the server is a standby. A server that is stopped is only looked at.
 */
export function streamFrom(bench: Bench, node: ClusterNode, upstream: ClusterNode): ChangeStep {
  const conninfo = streamConninfo(bench, node, upstream)
  const slot = slotName(node.nodeId)
  const set = `ALTER SYSTEM SET primary_conninfo = ${escapeLiteral(conninfo)};
ALTER SYSTEM SET primary_slot_name = ${escapeLiteral(slot)};
SELECT pg_reload_conf();
`
  return {
    id: `${node.name}/stream-from`,
    kind: 'change',
    title: `let it stream from ${upstream.name} as a standby`,
    node: node.name,
    actions: [runSql(bench.host(node), bench.cluster.name, { ...superuser(bench), shown: set, statement: () => set })],
    async check({ signal }): Promise<Check> {
      const { running, upstreamSlot } = await bench.inspect(node, signal)
      if (!running) {
        return upstreamSlot === slot
          ? { done: true, note: 'it is stopped, and was told before' }
          : { done: false, reason: 'it is stopped, and was not told yet' }
      }
      const now = await askServer(
        bench,
        node,
        signal,
        "SELECT setting FROM pg_settings WHERE name IN ('primary_conninfo', 'primary_slot_name') ORDER BY name",
      )
      const [source, through] = now.split('\n')
      return source === conninfo && through === slot
        ? { done: true }
        : { done: false, reason: 'it is told something else, or nothing' }
    },
  }
}
