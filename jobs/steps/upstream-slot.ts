/** The slot that will keep WAL for a standby, on the node that it is about to stream from. */
import type { ClusterNode } from '../../src/cluster/model.js'
import { slotName } from '../../src/cluster/slot.js'
import { runSql } from '../../src/host/actions.js'
import type { Check, Step } from '../../src/operations/step.js'
import type { Bench } from '../bench.js'
import { askServer, superuser } from './local-sql.js'

/** Reserves WAL at once, so that nothing is removed between now and the first connection. A standby can have slots too. */
export function makeSlot(bench: Bench, upstream: ClusterNode, standby: ClusterNode): Step {
  const slot = slotName(standby.nodeId)
  return {
    id: `${upstream.name}/slot-for-${standby.name}`,
    kind: 'change',
    title: `make a slot for ${standby.name}`,
    node: upstream.name,
    actions: [
      runSql(bench.host(upstream), bench.cluster.name, {
        ...superuser(bench),
        shown: `SELECT pg_create_physical_replication_slot('${slot}', true)`,
        // One that has lost its WAL is of no use to anybody.
        statement: () =>
          `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '${slot}' AND wal_status = 'lost' AND NOT active;
SELECT pg_create_physical_replication_slot('${slot}', true) WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '${slot}');
`,
      }),
    ],
    async check({ signal }): Promise<Check> {
      const status = await askServer(
        bench,
        upstream,
        signal,
        `SELECT COALESCE(wal_status, 'reserved') FROM pg_replication_slots WHERE slot_name = '${slot}'`,
      )
      if (status === '') return { done: false, reason: 'there is none' }
      return status === 'lost' ? { done: false, reason: 'there is one that has lost its WAL' } : { done: true }
    },
  }
}
