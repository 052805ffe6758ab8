/**
 * Whether a standby can go on from another server: each promotion begins a timeline, and a copy that has WAL from after
 * the point where its new source branched off holds what that one never had. Pure.
 */
import { type Lsn, lagBytes, parseLsn } from './lsn.js'

/** How far a server is, and on which timeline. Of a standby the later of received and replayed. */
export interface Position {
  timeline: number
  lsn: Lsn
}

/**
 * Where each timeline ended, by its number, as the history file of a later one has it.
 * @see https://www.postgresql.org/docs/current/continuous-archiving.html#BACKUP-TIMELINES
 */
export function branches(historyFile: string): Map<number, Lsn> {
  const lines = historyFile.split('\n').map(line => /^\s*(\d+)\s+([0-9A-Fa-f]+\/[0-9A-Fa-f]+)/.exec(line))
  return new Map(lines.flatMap(found => (found?.[1] && found[2] ? [[Number(found[1]), parseLsn(found[2])]] : [])))
}

/** Why `standby` cannot stream from `upstream`, whose history file is `history` (empty on timeline 1). Undefined: it can. */
export function divergence(standby: Position, upstream: Position, history: string): string | undefined {
  if (standby.timeline === upstream.timeline) return undefined
  if (standby.timeline > upstream.timeline)
    return `it is on timeline ${standby.timeline} already, and the other one is still on timeline ${upstream.timeline}`
  const end = branches(history).get(standby.timeline)
  if (end === undefined)
    return `its timeline ${standby.timeline} is not in the history of timeline ${upstream.timeline}, which the other one is on`
  return lagBytes(end, standby.lsn) < 0
    ? `it has WAL of timeline ${standby.timeline} up to ${standby.lsn}, and timeline ${upstream.timeline} branched off at ${end}`
    : undefined
}
