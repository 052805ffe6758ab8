/**
 * A standby that is behind on purpose does not start with less of a shared setting than it knows its primary to have, and
 * what it knows is what it has applied. So its restart for a lower value has to wait for its delay, not for us.
 */
import type { ClusterNode } from '../../src/cluster/model.js'
import { OperationError } from '../../src/operations/errors.js'
import {
  knownOfPrimary,
  nextStartQuery,
  parseNextStart,
  type SharedSetting,
  tooLowToStart,
} from '../../src/postgres/shared-settings.js'
import type { Bench } from '../bench.js'
import { isDelayedLong } from './delayed-proof.js'
import { askLocal } from './local-sql.js'

/** Thrown before the primary gets more of a setting than a standby, which cannot be started again yet, could replay. */
export class RestartHeldBack extends OperationError {
  constructor(node: string, held: readonly string[], raised: readonly string[]) {
    super(
      `${node} needs a restart to have more of ${raised.join(', ')}, and does not start yet: it has not applied that its primary has less of ${held.join(', ')}.`,
      {
        code: 'restart-held-back',
        outcome: 'failed_clean',
        remedy: `Repeat the call once the delay of ${node} has passed. The primary is as it was.`,
      },
    )
  }
}

/**
 * `held`: the settings that keep a delayed standby from being started again now; empty where it can be, and of every other
 * node. `raised`: those of which it would have more then.
 */
export async function heldBack(
  bench: Bench,
  node: ClusterNode,
  signal: AbortSignal,
): Promise<{ held: SharedSetting[]; raised: SharedSetting[] }> {
  if (!isDelayedLong(node)) return { held: [], raised: [] }
  const { layout } = bench
  const { stdout } = await bench.host(node).run(
    {
      argv: [`${layout.binDirectory}/pg_controldata`, layout.dataDirectory],
      as: 'postgres',
      timeoutMs: 15_000,
    },
    { signal },
  )
  const { next, running } = parseNextStart(await askLocal(bench, node, signal, nextStartQuery))
  return { held: tooLowToStart(next, knownOfPrimary(stdout)), raised: tooLowToStart(running, next) }
}

export const heldBackNote = (node: ClusterNode, pending: readonly string[], held: readonly string[]) =>
  `${pending.join(', ')} of ${node.name} ${pending.length === 1 ? 'waits' : 'wait'} for a restart. It does not start with less of ${held.join(', ')} before it has applied that its primary has less, ${node.applyDelayMs} ms after that was written: repeat the call then`
