/** What a fenced primary has on its disk that the candidate does not have: bytes and commits, by pg_waldump. */
import { type Lsn, lagBytes, parseLsn, shortLsn } from '../../../src/cluster/lsn.js'
import type { ClusterNode } from '../../../src/cluster/model.js'
import { OperationError } from '../../../src/operations/errors.js'
import type { Bench } from '../../bench.js'

const LIMIT_S = 3

/** From a position at which a record ends: there the next one begins, or nothing. */
const MEASURE = `timeout "$4" "$1/pg_waldump" -p "$2/pg_wal" -t "$3" -s "$5" 2>/dev/null | awk '
  /^rmgr: / {
    if (match($0, /lsn: [0-9A-F]+\\/[0-9A-F]+/)) last = substr($0, RSTART + 5, RLENGTH - 5)
    if (match($0, /len \\(rec\\/tot\\): *[0-9]+\\/ *[0-9]+/)) { split(substr($0, RSTART, RLENGTH), part, "/"); size = part[3] + 0 }
    if ($2 == "Transaction" && $0 ~ /desc: COMMIT/) commits++
  }
  END { print "last=" last; print "size=" size + 0; print "commits=" commits + 0 }'`

export async function measureLoss(
  bench: Bench,
  old: ClusterNode,
  timeline: number,
  position: Lsn,
  signal: AbortSignal,
): Promise<{ knownBytes?: number; commits?: number; detail: string }> {
  const { layout } = bench
  try {
    const { stdout } = await bench.host(old).run(
      {
        argv: [
          ...['sh', '-c', MEASURE, 'understudy-loss', layout.binDirectory, layout.dataDirectory],
          ...[String(timeline), String(LIMIT_S), position],
        ],
        as: 'postgres',
        timeoutMs: (LIMIT_S + 2) * 1000,
        shownAs: `pg_waldump -p ${layout.dataDirectory}/pg_wal -t ${timeline} -s ${position}`,
      },
      { signal },
    )
    const field = (name: string) => new RegExp(`^${name}=(.*)$`, 'm').exec(stdout)?.[1] ?? ''
    const last = field('last')
    if (last === '')
      return { knownBytes: 0, commits: 0, detail: `${old.name} has nothing after ${position} on its disk.` }
    const knownBytes = lagBytes(shortLsn(parseLsn(last)), position) + Number(field('size'))
    const commits = Number(field('commits'))
    const detail = `${old.name} has ${knownBytes} bytes of WAL after ${position} on its disk, with ${commits} ${commits === 1 ? 'commit' : 'commits'}.`
    return { knownBytes, commits, detail }
  } catch (error) {
    signal.throwIfAborted()
    if (!(error instanceof OperationError)) throw error
    return { detail: `What ${old.name} has on its disk could not be read: ${error.message}` }
  }
}
