import type { ClusterNode } from '../../src/cluster/model.js'
import { slotName } from '../../src/cluster/slot.js'
import { runSql } from '../../src/host/actions.js'
import type { Check, Step } from '../../src/operations/step.js'
import type { Bench } from '../bench.js'
import { askServer, superuser } from './local-sql.js'

/** Whoever still streams through it is cut off first. */
export const dropSlotSql = (slot: string) => ({
  shown: `SELECT pg_drop_replication_slot('${slot}')   -- after its stream was ended`,
  statement: () => `DO $$
DECLARE busy int;
BEGIN
  FOR attempt IN 1..200 LOOP
    SELECT active_pid INTO busy FROM pg_replication_slots WHERE slot_name = '${slot}';
    EXIT WHEN busy IS NULL;
    PERFORM pg_terminate_backend(busy);
    PERFORM pg_sleep(0.1);
  END LOOP;
END $$;
SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '${slot}';
`,
})

/**
 * Drops the slot that kept WAL for a node that is gone, wherever it is. Whoever still streams from it is cut off: a host
 * that vanished without a word holds it until the server notices.
 */
export function dropSlot(bench: Bench, upstream: ClusterNode, gone: ClusterNode): Step {
  const slot = slotName(gone.nodeId)
  return {
    id: `${upstream.name}/drop-slot-of-${gone.name}`,
    kind: 'change',
    title: `drop the slot of ${gone.name}`,
    node: upstream.name,
    actions: [
      runSql(bench.host(upstream), bench.cluster.name, {
        ...superuser(bench),
        ...dropSlotSql(slot),
      }),
    ],
    async check({ signal }): Promise<Check> {
      const there = await askServer(
        bench,
        upstream,
        signal,
        `SELECT COALESCE('it keeps ' || pg_size_pretty(pg_wal_lsn_diff(
           CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, restart_lsn)) || ' of WAL', 'it is there')
         FROM pg_replication_slots WHERE slot_name = '${slot}'`,
      )
      return there === '' ? { done: true } : { done: false, reason: there }
    },
  }
}
