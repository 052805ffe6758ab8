/** Looks after the pauses of all clusters, in every process: what ran out while none was there is told at the next start. */
import type { Logger } from '../logging.js'
import type { ClusterStore } from './clusters.js'
import { attendPauses } from './pauses.js'

const EVERY_MS = 5000

/** Returns how to end it. */
export function startPauseWatch(clusters: ClusterStore, logger: Logger, everyMs = EVERY_MS): () => Promise<void> {
  let running: Promise<void> | undefined
  const look = async () => {
    try {
      for (const { cluster, type, pause } of await attendPauses(clusters, Date.now))
        logger.warn(
          { cluster, pause },
          type === 'cluster-pause-expired'
            ? 'the pause of a cluster has run out'
            : 'the pause of a cluster is about to end',
        )
    } catch (error) {
      logger.warn({ err: error }, 'pauses could not be looked after; the next look tries again')
    }
  }
  const begin = () => {
    running ??= look().finally(() => {
      running = undefined
    })
  }
  begin()
  const timer = setInterval(begin, everyMs)
  return async () => {
    clearInterval(timer)
    await running
  }
}
