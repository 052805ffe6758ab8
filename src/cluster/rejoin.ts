/**
 * How a node comes back as a standby of the primary that there is now: which rung of the ladder, and why. Pure.
 *
 * follow: its history is a part of the primary's; it only has to be told whom to stream from.
 * rewind: it wrote what the primary does not have; pg_rewind takes that back and fetches the rest.
 * clone:  neither is possible; its copy is given up for a new one.
 */
import { Type } from 'typebox'
import type { Lsn } from './lsn.js'

export const RebuildMethod = Type.Enum(['auto', 'rewind', 'clone'], {
  title: 'RebuildMethod',
  default: 'auto',
  description:
    'auto: the first that is possible of following as it is, pg_rewind, and a new clone. rewind: never a new clone. clone: always a new one.',
})
export type RebuildMethod = 'auto' | 'rewind' | 'clone'

/** What a node wrote, and the primary that there is now does not have. */
export interface Loss {
  /** Where the two histories part, and the timeline that they part from. */
  timeline: number
  switchLsn: Lsn
  /** Of the last record that was read; undefined where there is none. */
  lastLsn?: Lsn
  records: number
  commits: number
  /** Of the first and the last commit, as PostgreSQL wrote them, in UTC. */
  firstCommitAt?: string
  lastCommitAt?: string
  /** The relations that were written to most, and by how many records. */
  relations: { name: string; records: number }[]
  /** False where some of the WAL was gone or the time was up: then it is at least so much. */
  complete: boolean
}

export interface Comeback {
  /** none: it holds no copy. cut-short: one that is not whole. fresh: one that was just made for this. used: one that ran. */
  copy: 'none' | 'cut-short' | 'fresh' | 'used'
  /** Whether its control file says that it was shut down in order; anything else needs crash recovery first. */
  shutDown: boolean
  /** It was a primary on a timeline of the number that the primary has: two histories under one number. */
  ambiguous: boolean
  /** Undefined where its history is a part of the primary's. */
  loss: Loss | undefined
  /** Whether the primary still has the WAL from which the node would go on. */
  walThere: boolean
  /** Whether finished WAL can be fetched from an archive. */
  archive: boolean
  /** What pg_rewind says; undefined where it was not asked. */
  rewindRefused: string | undefined
}

export type Rung = 'recover' | 'follow' | 'rewind' | 'clone'

/** recover: the crash recovery that has to come before anything else can be said. */
export function chooseRung(found: Comeback, method: RebuildMethod): { rung: Rung; why: string } {
  if (found.copy === 'none') return { rung: 'clone', why: 'it holds no copy of the data' }
  if (found.copy === 'fresh') return { rung: 'follow', why: 'its copy was just made' }
  if (found.copy === 'cut-short') return { rung: 'clone', why: 'its copy is not whole: something was cut short' }
  if (method === 'clone') return { rung: 'clone', why: 'a new clone was asked for' }
  // Before anything is replayed: afterwards its control file does not tell any more that it was a primary.
  if (found.ambiguous) {
    return {
      rung: 'clone',
      why: 'it was a primary on a timeline of the number that the primary has: two histories have one number, and pg_rewind cannot tell them apart',
    }
  }
  if (!found.shutDown) return { rung: 'recover', why: 'it crashed, and its WAL has to be replayed first' }
  if (found.loss === undefined) {
    if (found.walThere) return { rung: 'follow', why: 'its history is a part of the primary’s' }
    if (found.archive)
      return {
        rung: 'follow',
        why: 'its history is a part of the primary’s; the WAL that it lacks comes from the archive',
      }
    return {
      rung: 'clone',
      why: 'it fell behind: the primary does not have the WAL any more from which it would go on',
    }
  }
  const parts = `its history parts from the primary’s at ${found.loss.switchLsn}`
  if (found.rewindRefused === undefined) return { rung: 'rewind', why: parts }
  return { rung: 'clone', why: `${parts}, and it cannot be rewound: ${found.rewindRefused}` }
}

/** Whether throwing it away has to be meant: commits are lost, or nobody can say whether. */
export const costsCommits = ({ commits, complete }: Loss) => commits > 0 || !complete

export function tellLoss(loss: Loss): string {
  const count = `${loss.complete ? '' : 'at least '}${loss.commits} committed ${loss.commits === 1 ? 'transaction' : 'transactions'}`
  const when =
    loss.firstCommitAt === undefined || loss.lastCommitAt === undefined
      ? ''
      : loss.commits === 1
        ? ` of ${loss.firstCommitAt}`
        : ` from ${loss.firstCommitAt} to ${loss.lastCommitAt}`
  const where = loss.relations.length === 0 ? '' : ` in ${loss.relations.map(({ name }) => name).join(', ')}`
  const range = `${loss.records} WAL records after ${loss.switchLsn} of timeline ${loss.timeline}${loss.lastLsn === undefined ? '' : `, up to ${loss.lastLsn}`}`
  return `${count}${when}${where} (${range})`
}
