/** A restart for the sake of settings: only where one waits for it. */
import { lagBytes, parseLsn } from '../../src/cluster/lsn.js'
import type { ClusterNode } from '../../src/cluster/model.js'
import { act } from '../../src/host/actions.js'
import type { Check, Step, StepContext } from '../../src/operations/step.js'
import type { Bench } from '../bench.js'
import { NotInTime, until } from '../until.js'
import { isDelayedLong } from './delayed-proof.js'
import { heldBack, heldBackNote, RestartHeldBack } from './held-back.js'
import { beginRestart } from './restart.js'
import { settingState } from './settings.js'

/** A shutdown with its checkpoint, a start with its replay. */
const RESTART_TIMEOUT_MS = 3_600_000
/** Time for the new process to appear. */
const LAUNCH_TIMEOUT_MS = 60_000
const REPLAY_TIMEOUT_MS = 600_000

/**
 * `upstream`: the primary that a standby follows. It must have replayed what its primary has written about its own settings
 * first: with less than it knows its primary to have, a standby does not start. One that is long behind on purpose is not
 * waited for: it is started again at once where it can be, and left for a later call where it cannot (`held-back.ts`).
 */
export function restartIfNeeded(
  bench: Bench,
  node: ClusterNode,
  { upstream, id = 'restart' }: { upstream?: ClusterNode; id?: string } = {},
): Step {
  const waiting = async (signal: AbortSignal) => (await settingState(bench, node, signal)).pending
  return {
    id: `${node.name}/${id}`,
    kind: 'change',
    title: 'restart the server where a setting waits for it',
    node: node.name,
    actions: [
      ...(upstream && !isDelayedLong(node)
        ? [act(`wait until it has replayed what ${upstream.name} has written`, c => replayed(bench, node, upstream, c))]
        : []),
      beginRestart(bench, node),
      act('wait until it has started anew and accepts connections', async context => {
        let seenAtMs = performance.now()
        await until(`PostgreSQL on ${node.name} has started anew`, RESTART_TIMEOUT_MS, context, async () => {
          const { running, inRecovery } = await bench.inspect(node, context.signal)
          if (running) seenAtMs = performance.now()
          else if (performance.now() - seenAtMs > LAUNCH_TIMEOUT_MS)
            throw new NotInTime(`PostgreSQL on ${node.name} runs again`, LAUNCH_TIMEOUT_MS)
          // The old process may still answer: a new one has nothing that waits.
          return inRecovery !== undefined && (await waiting(context.signal).catch(() => ['?'])).length === 0
        })
      }),
    ],
    async check({ signal }): Promise<Check> {
      const { running, inRecovery } = await bench.inspect(node, signal)
      if (!running) return { done: false, reason: 'it does not run' }
      if (inRecovery === undefined) return { done: false, reason: 'it runs, and does not accept connections yet' }
      const names = await waiting(signal)
      const { held, raised } =
        names.length > 0 && upstream ? await heldBack(bench, node, signal) : { held: [], raised: [] }
      if (held.length > 0 && raised.length > 0) throw new RestartHeldBack(node.name, held, raised)
      if (held.length > 0) return { done: true, note: heldBackNote(node, names, held) }
      if (names.length > 0)
        return { done: false, reason: `${names.join(', ')} ${names.length === 1 ? 'waits' : 'wait'} for it` }
      return { done: true, note: 'no setting waits for a restart' }
    },
  }
}

async function replayed(bench: Bench, node: ClusterNode, upstream: ClusterNode, context: StepContext): Promise<void> {
  const { signal } = context
  const [row] = await bench.ask(upstream, { signal }, query => query('SELECT pg_current_wal_lsn()::text AS lsn'))
  const written = parseLsn(String(row?.lsn))
  await until(`${node.name} has replayed ${written}`, REPLAY_TIMEOUT_MS, context, async () => {
    const [seen] = await bench.ask(node, { signal }, query => query('SELECT pg_last_wal_replay_lsn()::text AS lsn'))
    return typeof seen?.lsn === 'string' && lagBytes(written, parseLsn(seen.lsn)) <= 0
  })
}
