/** The proof for a standby that is behind on purpose: what was written has arrived, waits its time, and can wait longer than we do. */
import { type Lsn, lagBytes, parseLsn } from '../../src/cluster/lsn.js'
import type { ClusterNode } from '../../src/cluster/model.js'
import { OperationError } from '../../src/operations/errors.js'
import type { StepContext } from '../../src/operations/step.js'
import type { Query } from '../../src/postgres/connect.js'
import { until } from '../until.js'

/** Thrown when a standby that is to be delayed applied what had just been written. */
export class StandbyNotDelayed extends OperationError {
  constructor(node: string, wantedMs: number, found: string) {
    super(`${node} is to apply each commit ${wantedMs} ms later, and applied one at once; its server says ${found}.`, {
      code: 'standby-not-delayed',
      outcome: 'failed_partial',
      remedy: `Look at recovery_min_apply_delay on ${node} and where it comes from (pg_settings.sourcefile), and compare the clocks of ${node} and of the primary: the delay counts from the primary’s time of the commit.`,
    })
  }
}

const RECEIVE_TIMEOUT_MS = 60_000
/** A delay that is waited for: the row is then read like anywhere else. */
const SHORT_DELAY_MS = 10_000

/** Whether the row of a proof comes too late to be waited for. */
export const isDelayedLong = ({ applyDelayMs = 0 }: Pick<ClusterNode, 'applyDelayMs'>) => applyDelayMs > SHORT_DELAY_MS

/** Waits until `lsn` is on the standby’s disk, and sees that it is not applied yet. */
export async function proveReceipt(standby: ClusterNode, lsn: Lsn, context: StepContext, query: Query): Promise<void> {
  await until(`${standby.name} has received ${lsn}`, RECEIVE_TIMEOUT_MS, context, async () => {
    const [row] = await query('SELECT pg_last_wal_receive_lsn()::text AS lsn')
    return typeof row?.lsn === 'string' && lagBytes(lsn, parseLsn(row.lsn)) <= 0
  })
  const [row] = await query(
    "SELECT pg_last_wal_replay_lsn()::text AS lsn, current_setting('recovery_min_apply_delay') AS delay",
  )
  const applied = typeof row?.lsn === 'string' && lagBytes(lsn, parseLsn(row.lsn)) <= 0
  if (applied) throw new StandbyNotDelayed(standby.name, standby.applyDelayMs ?? 0, String(row?.delay))
}
