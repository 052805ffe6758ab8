/** What a promotion that ended half-way has left on a standby that it could not put back: it streams from nobody. */
import type { ClusterNode } from '../../../src/cluster/model.js'
import { readTrace } from '../../../src/cluster/voters.js'
import { act } from '../../../src/host/actions.js'
import type { ChangeStep, Check } from '../../../src/operations/step.js'
import { ServerUnreachable } from '../../../src/postgres/connect.js'
import { readStanding, thaw } from '../../../src/postgres/freeze.js'
import { readTraceText, writeTrace } from '../../../src/postgres/vote.js'
import type { Bench } from '../../bench.js'
import { sessionOn } from './ballot.js'

/** Under its vote, as everything that changes where a standby streams from. */
export function thawStandby(bench: Bench, node: ClusterNode): ChangeStep {
  const trace = async (signal: AbortSignal) => readTrace(await bench.ask(node, { signal }, readTraceText), node.name)
  return {
    id: `${node.name}/thaw`,
    kind: 'change',
    title: 'put back what a promotion that ended half-way has left',
    node: node.name,
    actions: [
      act('restore_command, wal_receiver_timeout and primary_conninfo as they were', async ({ signal }) => {
        const vote = await sessionOn(bench, node, signal)
        try {
          const found = readTrace(await readTraceText(vote.query), node.name)
          const { version, conninfo } = await readStanding(vote.query)
          const { primary_conninfo, primary_slot_name, ...rest } = found?.before ?? {}
          // Told whom to stream from since then, it stays with that.
          const source = { primary_conninfo: primary_conninfo ?? null, primary_slot_name: primary_slot_name ?? null }
          await thaw(vote, conninfo === '' ? { ...rest, ...source } : rest, version)
          await writeTrace(vote, undefined)
          await vote.query('SELECT pg_reload_conf()')
        } finally {
          await vote.release()
        }
      }),
    ],
    async check({ signal }): Promise<Check> {
      try {
        const found = await trace(signal)
        return found === undefined
          ? { done: true }
          : { done: false, reason: `it was frozen by operation ${found.operation}, which has not put it back` }
      } catch (error) {
        if (error instanceof ServerUnreachable) return { done: true, note: 'its server does not answer' }
        throw error
      }
    },
  }
}
