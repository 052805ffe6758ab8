/** Whether a standby has replayed what its primary never had: then it can never follow it again by itself. Pure. */
import { commonHistory, readTimelineHistory, type TimelineSpan } from './common-history.js'
import { lagBytes, parseLsn } from './lsn.js'
import type { Observation } from './observation.js'

type Told = Pick<Observation, 'timeline' | 'history' | 'replayedLsn'>

/**
 * Where the two histories part, and why that is no way back: a sentence. Undefined where the standby can go on, and where a
 * history is not known. What was received only is no obstacle: PostgreSQL compares with what was replayed.
 */
export function divergedFrom(standby: Told, primary: Pick<Told, 'timeline' | 'history'>): string | undefined {
  const [own, other] = [spans(standby), spans(primary)]
  if (!own || !other || standby.replayedLsn === undefined) return undefined
  const replayed = parseLsn(standby.replayedLsn)
  const common = commonHistory(own, other)
  if (!common) return 'the two have no timeline in common'
  if (common.end === undefined || lagBytes(replayed, common.end) <= 0) return undefined
  return (
    `it has replayed timeline ${standby.timeline} up to ${standby.replayedLsn}, and its history parts from the primary's, ` +
    `which is on timeline ${primary.timeline}, at ${common.end}`
  )
}

function spans({ timeline, history }: Pick<Told, 'timeline' | 'history'>): TimelineSpan[] | undefined {
  if (timeline > 1 && !history) return undefined
  try {
    return readTimelineHistory(timeline, history)
  } catch (error) {
    // Half a file, as it is while a server writes it.
    if (error instanceof RangeError) return undefined
    throw error
  }
}
