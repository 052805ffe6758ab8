/**
 * Timelines: each promotion begins a new one, and its history file says where it left the one before. Two servers of one
 * database have the same history up to a point; what one of them has written past it, the other does not have.
 */
import { type Lsn, lsnBytes, parseLsn } from './lsn.js'
import { branches } from './timeline-history.js'

/** A timeline from where it began to where the next one left it; the last one has no end yet. */
export interface TimelineSpan {
  timeline: number
  begin: Lsn
  end: Lsn | undefined
}

const START = parseLsn('0/0')

/**
 * `text`: content of `pg_wal/<timeline>.history`; the first timeline has none.
 * Throws a `RangeError` where a later timeline has none, or where it is no history.
 */
export function readTimelineHistory(timeline: number, text = ''): TimelineSpan[] {
  const left = [...branches(text)]
  if (timeline > 1 && left.length === 0) throw new RangeError(`there is no history of timeline ${timeline}`)
  const begins = [START, ...left.map(([, end]) => end)]
  const ends = [...left.map(([number, end]) => ({ number, end })), { number: timeline, end: undefined }]
  return ends.map(({ number, end }, index) => ({ timeline: number, begin: begins[index] ?? START, end }))
}

/** Up to where both have the same; undefined where they never had. No `end`: both are on that timeline still. */
export function commonHistory(
  one: readonly TimelineSpan[],
  other: readonly TimelineSpan[],
): { timeline: number; end: Lsn | undefined } | undefined {
  let common: { timeline: number; end: Lsn | undefined } | undefined
  for (const [index, span] of one.entries()) {
    const twin = other[index]
    if (twin?.timeline !== span.timeline || lsnBytes(twin.begin) !== lsnBytes(span.begin)) break
    common = { timeline: span.timeline, end: earlier(span.end, twin.end) }
  }
  return common
}

function earlier(a: Lsn | undefined, b: Lsn | undefined): Lsn | undefined {
  if (a === undefined || b === undefined) return a ?? b
  return lsnBytes(a) <= lsnBytes(b) ? a : b
}
