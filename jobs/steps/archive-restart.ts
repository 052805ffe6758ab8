/** Restarts for the sake of the archive: seldom needed, and never done without having been asked for. */
import { archiveOf } from '../../src/cluster/archive.js'
import type { ClusterNode } from '../../src/cluster/model.js'
import { OperationError } from '../../src/operations/errors.js'
import type { Step } from '../../src/operations/step.js'
import { ARCHIVE_PROGRAM, archiveSettings } from '../../src/postgres/archive.js'
import type { Bench } from '../bench.js'
import { askLocal } from './local-sql.js'
import { restartServer } from './restart.js'

/** Thrown when an archive takes effect only after a restart, and none was asked for. */
class RestartNeeded extends OperationError {
  constructor(node: string, setting: string) {
    super(
      `PostgreSQL on ${node} has to be restarted for this change of the archive: ${setting} cannot be changed while it runs.`,
      {
        code: 'restart-needed',
        outcome: 'not_started',
        remedy:
          'Repeat the call with "restart": true when that suits. The standbys are restarted first, the primary last.',
      },
    )
  }
}

/**
 * What a running standby calls, and reads at its start only: restore_command until PostgreSQL 13. A primary reads it once
 * it is started as a standby. Undefined where a change takes effect at once.
 */
async function fixedRestoreCommand(bench: Bench, node: ClusterNode, signal: AbortSignal): Promise<string | undefined> {
  if (bench.layout.version > 13 || bench.found(node).server.inRecovery !== true) return undefined
  return askLocal(bench, node, signal, 'SHOW restore_command')
}

/** Whether a standby still calls our script. Gone, it would end the standby: 127 of a shell is no answer to a recovery. */
export const stillRestores = async (bench: Bench, node: ClusterNode, signal: AbortSignal): Promise<boolean> =>
  (await fixedRestoreCommand(bench, node, signal))?.startsWith(ARCHIVE_PROGRAM) === true

async function pendingSetting(bench: Bench, node: ClusterNode, signal: AbortSignal): Promise<string | undefined> {
  const archive = archiveOf(bench.cluster)
  if (archive.mode === 'none') return (await stillRestores(bench, node, signal)) ? 'restore_command' : undefined
  if ((await askLocal(bench, node, signal, 'SHOW archive_mode')) === 'off') return 'archive_mode'
  const running = await fixedRestoreCommand(bench, node, signal)
  const wanted = archiveSettings(archive).find(({ name }) => name === 'restore_command')?.value
  return running === undefined || running === wanted ? undefined : 'restore_command'
}

/** First of all, so that a refusal comes before anything was changed. */
export function restartAllowed(bench: Bench, node: ClusterNode, allowed: boolean): Step {
  return {
    id: `${node.name}/restart-allowed`,
    kind: 'change',
    title: 'see whether the archive needs a restart',
    node: node.name,
    actions: [],
    async check({ signal }) {
      const setting = await pendingSetting(bench, node, signal)
      if (setting === undefined) return { done: true, note: 'no restart is needed' }
      if (!allowed) throw new RestartNeeded(node.name, setting)
      return { done: true, note: `a restart is needed, because of ${setting}, and was asked for` }
    },
  }
}

export function restartForArchive(bench: Bench, node: ClusterNode, standby: boolean): Step {
  const restart = restartServer(bench, node, standby)
  if (restart.kind !== 'change') throw new TypeError('a restart is a change')
  return {
    ...restart,
    id: `${node.name}/archive-restart`,
    title: 'restart the server, where the archive needs it',
    async check(context) {
      const setting = await pendingSetting(bench, node, context.signal)
      return setting === undefined ? { done: true } : { done: false, reason: `${setting} takes effect at a start only` }
    },
  }
}
