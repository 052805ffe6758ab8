/** A primary that was just promoted has its old timeline in its control file until its first checkpoint, and pg_rewind goes by that. */
import type { ClusterNode } from '../../src/cluster/model.js'
import { runSql } from '../../src/host/actions.js'
import type { ChangeStep, Check } from '../../src/operations/step.js'
import type { Bench } from '../bench.js'
import { superuser } from './local-sql.js'

export function checkpointPrimary(bench: Bench, primary: ClusterNode): ChangeStep {
  return {
    id: `${primary.name}/checkpoint`,
    kind: 'change',
    title: 'write its timeline into its control file',
    node: primary.name,
    actions: [
      runSql(bench.host(primary), bench.cluster.name, {
        ...superuser(bench),
        shown: 'CHECKPOINT',
        statement: () => 'CHECKPOINT;\n',
      }),
    ],
    async check({ signal }): Promise<Check> {
      const [row] = await bench.ask(primary, { signal }, query =>
        query(
          "SELECT timeline_id = ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int AS same FROM pg_control_checkpoint()",
        ),
      )
      return row?.same === true ? { done: true } : { done: false, reason: 'its control file has the timeline before' }
    },
  }
}
