/** The proof that a cluster replicates: written on the primary, read on every standby, refused by every standby. */
import { lagBytes, parseLsn } from '../../src/cluster/lsn.js'
import type { ClusterNode } from '../../src/cluster/model.js'
import { act } from '../../src/host/actions.js'
import { OperationError } from '../../src/operations/errors.js'
import type { Step } from '../../src/operations/step.js'
import type { Bench } from '../bench.js'
import { until } from '../until.js'
import { isDelayedLong, proveReceipt } from './delayed-proof.js'

/** Thrown when a standby accepted a write: it is no standby. */
export class StandbyWritable extends OperationError {
  constructor(node: string) {
    super(`${node} accepted a write, so it is not a standby.`, {
      code: 'standby-writable',
      outcome: 'failed_partial',
      remedy: `Stop PostgreSQL on ${node} before clients write to it, and look at how it came to be a primary.`,
    })
  }
}

const REPLAY_TIMEOUT_MS = 60_000
/** read_only_sql_transaction */
const READ_ONLY = '25006'

/** In the servers' own words: once, where all of them say the same. */
function refusals(took: readonly { refusal: string }[]): string {
  return `each refuses writes: ${[...new Set(took.map(({ refusal }) => refusal))].join(', ')}`
}

export function proveReplication(bench: Bench, primary: ClusterNode, standbys: readonly ClusterNode[]): Step {
  return {
    id: 'cluster/proof',
    kind: 'verify',
    title:
      standbys.length === 0
        ? 'write and read on the primary'
        : `write on ${primary.name}, read on ${standbys.map(({ name }) => name).join(', ')}`,
    actions: [
      act(
        'write a role, a table and a row on the primary, read them on each standby, see that each refuses a write, remove them again',
        async context => {
          const { operationId, signal, log, note } = context
          // Named after the operation: what one that was cut short left behind goes with the next one's.
          const table = `understudy_proof_${operationId.toLowerCase()}`
          try {
            const lsn = await bench.ask(primary, { signal }, async query => {
              const old = await query(
                "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname LIKE 'understudy\\_proof\\_op\\_%'",
              )
              for (const { relname } of old) await query(`DROP TABLE public."${relname}"`)
              const roles = await query("SELECT rolname FROM pg_roles WHERE rolname LIKE 'understudy\\_proof\\_op\\_%'")
              for (const { rolname } of roles) await query(`DROP ROLE "${rolname}"`)
              await query(`CREATE TABLE public."${table}" (word text)`)
              await query(`CREATE ROLE "${table}" NOLOGIN`)
              await query(`INSERT INTO public."${table}" VALUES ($1)`, [operationId])
              const [row] = await query('SELECT pg_current_wal_lsn()::text AS lsn')
              return parseLsn(String(row?.lsn))
            })
            log(`written on ${primary.name} at ${lsn}`)
            const took = await Promise.all(
              standbys.map(async standby => {
                const begun = performance.now()
                const refusal = await bench.ask(standby, { signal, timeoutMs: REPLAY_TIMEOUT_MS }, async query => {
                  if (isDelayedLong(standby)) await proveReceipt(standby, lsn, context, query)
                  else {
                    await until(`${standby.name} has replayed ${lsn}`, REPLAY_TIMEOUT_MS, context, async () => {
                      const [row] = await query('SELECT pg_last_wal_replay_lsn()::text AS lsn')
                      return typeof row?.lsn === 'string' && lagBytes(lsn, parseLsn(row.lsn)) <= 0
                    })
                    const [row] = await query(`SELECT word FROM public."${table}"`)
                    if (row?.word !== operationId) throw new Error(`${standby.name} read ${JSON.stringify(row)}`)
                    const [role] = await query('SELECT 1 FROM pg_roles WHERE rolname = $1', [table])
                    if (!role) throw new Error(`${standby.name} does not have the role ${table}`)
                  }
                  // A table of its own: where the other one is not applied yet, a write to it would fail for want of it.
                  const refused = await query(`CREATE TABLE public."${table}_refused" ()`).then(
                    () => undefined,
                    (error: Error & { code?: string }) => error,
                  )
                  if (refused === undefined) {
                    await query(`DROP TABLE public."${table}_refused"`)
                    throw new StandbyWritable(standby.name)
                  }
                  if (refused.code !== READ_ONLY) throw refused
                  return `${refused.message} (${READ_ONLY})`
                })
                const milliseconds = Math.round(performance.now() - begun)
                const seen = isDelayedLong(standby)
                  ? `received on ${standby.name}, held back there,`
                  : `read on ${standby.name}`
                const told = `${seen} after ${milliseconds} ms`
                log(`${told}; it refuses writes: ${refusal}`)
                return { told, refusal }
              }),
            )
            note(
              took.length === 0 ? 'written and read' : `${took.map(({ told }) => told).join(', ')}; ${refusals(took)}`,
            )
          } finally {
            await bench
              .ask(primary, {}, async query => {
                await query(`DROP TABLE IF EXISTS public."${table}"`)
                await query(`DROP ROLE IF EXISTS "${table}"`)
              })
              .catch(() => undefined)
          }
        },
      ),
    ],
  }
}
