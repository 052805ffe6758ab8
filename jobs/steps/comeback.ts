/** What a node that is to come back holds, beside what the primary has: read on both, changing nothing. */
import { escapeLiteral } from 'pg'
import { commonHistory, readTimelineHistory, type TimelineSpan } from '../../src/cluster/common-history.js'
import { type Lsn, lsnBytes, parseLsn, shortLsn } from '../../src/cluster/lsn.js'
import type { ClusterNode } from '../../src/cluster/model.js'
import type { Comeback, Loss } from '../../src/cluster/rejoin.js'
import { OperationError } from '../../src/operations/errors.js'
import type { Bench } from '../bench.js'
import { isBare, isInUse } from '../find-primary.js'

/** Thrown when the node's data and the primary's do not have a single timeline in common, or it cannot be read. */
export class HistoryUnreadable extends OperationError {
  constructor(node: string, why: string) {
    super(`What ${node} holds cannot be compared with the primary: ${why}`, {
      code: 'history-unreadable',
      outcome: 'not_started',
      remedy: `Look at what is in its pg_wal. To replace it by a new copy of the primary: POST …/nodes/${node}/rebuild with "method": "clone".`,
    })
  }
}

/** How long pg_waldump may read; what it has not read by then is not counted. */
const READ_S = 120
const RELATIONS = 20

/**
 * The newest timeline is that of WAL which is there: a history file alone may have come from a server that was promoted,
 * and nothing of that timeline with it.
 */
const FACTS = `data=$1 bin=$2
"$bin/pg_controldata" "$data" | sed -n -e 's/^Database cluster state: */state=/p' \\
  -e 's/^Latest checkpoint location: */checkpoint=/p' -e 's/^Minimum recovery ending location: */minimum=/p' \\
  -e "s/^Latest checkpoint's TimeLineID: */timeline=/p" -e "s/^Min recovery ending loc's timeline: */timeline=/p" \\
  -e 's/^Bytes per WAL segment: */segment=/p'
newest=$(ls "$data/pg_wal/" | sed -n -E 's/^([0-9A-F]{8})[0-9A-F]{16}(\\.partial)?$/\\1/p' | sort | tail -n 1)
[ -z "$newest" ] || echo "timeline=$((0x$newest))"
for file in "$data"/pg_wal/????????.history; do
  [ ! -f "$file" ] || sed "s/^/history=$(basename "$file" .history) /" "$file"
done`

/**
 * Counts what is in the WAL of some spans: TIMELINE (8 digits), BEGIN, END or "-". Where the segment of BEGIN is gone, it
 * reads on from the first that is there, and says that this is not all.
 */
const COUNT = `data=$1 bin=$2 limit=$3 segment=$4
shift 4
end=$(($(date +%s) + limit))
while [ $# -ge 3 ]; do
  timeline=$1 begin=$2 until=$3
  shift 3
  low=\${begin#*/} high=\${begin%/*}
  first=$(printf '%s%08X%08X' "$timeline" "$((0x$high))" "$((0x$low / segment))")
  if [ ! -f "$data/pg_wal/$first" ]; then
    next=$(ls "$data/pg_wal/" | sed -n -E '/^[0-9A-F]{24}$/p' | awk -v t="$timeline" -v f="$first" 'substr($0, 1, 8) == t && ($0 "") > (f "")' | sort | head -n 1)
    [ -n "$next" ] || { echo cut=yes; continue; }
    tail=\${next#????????}
    begin=$(printf '%X/%X' "$((0x\${tail%????????}))" "$((0x\${tail#????????} * segment))")
    echo "gap=$begin"
  fi
  # The last segment of a timeline that ended is kept under another name by a promotion, and cannot be read there.
  if [ "$until" != - ]; then
    low=\${until#*/} high=\${until%/*}
    [ -f "$data/pg_wal/$(printf '%s%08X%08X' "$timeline" "$((0x$high))" "$((0x$low / segment))")" ] || echo cut=yes
  fi
  left=$((end - $(date +%s)))
  [ "$left" -gt 0 ] || { echo cut=yes; break; }
  if [ "$until" = - ]; then set -- "$@"; stop=; else stop="-e $until"; fi
  { timeout "$left" "$bin/pg_waldump" -p "$data/pg_wal" -t "$((0x$timeline))" -s "$begin" $stop 2>/dev/null; [ $? -ne 124 ] || echo CUT; } | awk '
    /^CUT$/ { print "cut=yes"; next }
    /^rmgr: / {
      records++
      if (match($0, /lsn: [0-9A-F]+\\/[0-9A-F]+/)) last = substr($0, RSTART + 5, RLENGTH - 5)
      if ($2 == "Transaction" && $0 ~ /desc: COMMIT/) {
        commits++
        if (match($0, /[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9] [0-9:.]+/)) {
          at = substr($0, RSTART, RLENGTH)
          if (early == "") early = at
          late = at
        }
      }
      if ($2 ~ /^Heap/ && match($0, /rel [0-9]+\\/[0-9]+\\/[0-9]+/)) relations[substr($0, RSTART + 4, RLENGTH - 4)]++
    }
    END {
      print "records=" records + 0
      print "commits=" commits + 0
      if (last != "") print "last=" last
      if (early != "") { print "early=" early; print "late=" late }
      for (name in relations) print "relation=" relations[name] " " name
    }'
done`

const isClean = (state: string | undefined) => state === 'shut down' || state === 'shut down in recovery'

/** What was measured, and where its WAL would have to be kept from. */
export interface Holding extends Comeback {
  /** The spans of its own that the primary does not have. */
  own: { timeline: number; begin: Lsn; end: Lsn | undefined }[]
  segmentBytes: number
}

const NOTHING = {
  shutDown: true,
  ambiguous: false,
  loss: undefined,
  walThere: true,
  archive: false,
  rewindRefused: undefined,
  own: [],
  segmentBytes: 16 * 1024 * 1024,
} as const

/** Of a server that runs, what it has written so far. */
export async function holdingOf(
  bench: Bench,
  node: ClusterNode,
  primary: ClusterNode,
  signal: AbortSignal,
): Promise<Holding> {
  const state = await bench.inspect(node, signal)
  if (isBare(state) || state.directory !== 'database') return { copy: 'none', ...NOTHING, own: [] }
  // A mark alone is not believed: somebody may have made another copy, and used it.
  if (state.marker?.state === 'cloning' && !state.everStarted) return { copy: 'cut-short', ...NOTHING, own: [] }
  if (!isInUse(state)) return { copy: 'none', ...NOTHING, own: [] }
  if (!state.everStarted && state.standbySignal) return { copy: 'fresh', ...NOTHING, own: [] }
  const facts = await readFacts(bench, node, signal)
  const theirs = await historyOfPrimary(bench, primary, signal)
  const timeline = Math.max(...facts.timelines)
  let ours: TimelineSpan[]
  try {
    ours = readTimelineHistory(timeline, facts.histories.get(timeline))
  } catch (error) {
    throw new HistoryUnreadable(node.name, error instanceof Error ? error.message : String(error))
  }
  const common = commonHistory(ours, theirs.spans)
  if (!common) throw new HistoryUnreadable(node.name, 'they have no timeline in common.')
  // Of a server that was a primary under the number that the primary has, the one cannot be told from the other.
  const wasPrimary = facts.state === 'in production' || facts.state === 'shut down'
  // pg_rewind goes by the number alone, and takes two timelines of one number for the same.
  const sameNumber = common.timeline !== timeline && timeline === theirs.spans.at(-1)?.timeline
  const ambiguous = (common.end === undefined && wasPrimary) || sameNumber
  const from = common.end ?? (ambiguous ? ours.at(-1)?.begin : undefined)
  const reached = [facts.checkpoint, facts.minimum].reduce((a, b) => (lsnBytes(a) >= lsnBytes(b) ? a : b))
  const base = {
    copy: 'used' as const,
    shutDown: isClean(facts.state),
    ambiguous,
    segmentBytes: facts.segmentBytes,
    rewindRefused: undefined,
    archive: theirs.archive,
    walThere: await hasSegment(bench, primary, reached, facts.segmentBytes, signal),
  }
  if (from === undefined) return { ...base, loss: undefined, own: [] }
  const own = ours
    .filter(span => span.timeline >= common.timeline)
    .map(({ timeline, begin, end }) => ({ timeline, begin: timeline === common.timeline ? from : begin, end }))
  const counted = await count(bench, node, own, facts.segmentBytes, signal)
  const past = lsnBytes(facts.checkpoint) >= lsnBytes(from) || lsnBytes(facts.minimum) > lsnBytes(from)
  const diverged = ambiguous || timeline > common.timeline || past || counted.records > 0
  if (!diverged) return { ...base, loss: undefined, own: [] }
  const relations = await nameRelations(bench, primary, counted.relations, signal)
  const { relations: _raw, ...numbers } = counted
  return { ...base, own, loss: { timeline: common.timeline, switchLsn: from, ...numbers, relations } }
}

async function readFacts(bench: Bench, node: ClusterNode, signal: AbortSignal) {
  const { layout } = bench
  const { stdout } = await bench.host(node).run(
    {
      argv: ['sh', '-c', FACTS, 'understudy-history', layout.dataDirectory, layout.binDirectory],
      as: 'postgres',
      timeoutMs: 60_000,
      shownAs: `pg_controldata ${layout.dataDirectory}, and the histories in its pg_wal`,
    },
    { signal },
  )
  const facts = {
    state: undefined as string | undefined,
    checkpoint: parseLsn('0/0'),
    minimum: parseLsn('0/0'),
    segmentBytes: 16 * 1024 * 1024,
    timelines: [1],
    histories: new Map<number, string>(),
  }
  for (const line of stdout.split('\n')) {
    const [key, value] = [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]
    if (key === 'state') facts.state = value
    else if (key === 'checkpoint') facts.checkpoint = parseLsn(value)
    else if (key === 'minimum') facts.minimum = parseLsn(value)
    else if (key === 'segment') facts.segmentBytes = Number(value)
    else if (key === 'timeline') facts.timelines.push(Number(value))
    else if (key === 'history') {
      const number = Number.parseInt(value.slice(0, 8), 16)
      facts.histories.set(number, `${facts.histories.get(number) ?? ''}${value.slice(9)}\n`)
    }
  }
  if (facts.state === undefined) throw new HistoryUnreadable(node.name, 'its control file cannot be read.')
  return facts
}

async function historyOfPrimary(bench: Bench, primary: ClusterNode, signal: AbortSignal) {
  const [row] = await bench.ask(primary, { signal }, query =>
    query(`WITH now AS (SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8) AS name)
      SELECT name, pg_read_file('pg_wal/' || name || '.history', 0, 1000000, true) AS history,
             current_setting('restore_command') <> '' AS archive FROM now`),
  )
  const timeline = Number.parseInt(String(row?.name), 16)
  const text = typeof row?.history === 'string' ? row.history : undefined
  return { spans: readTimelineHistory(timeline, text), archive: row?.archive === true }
}

/** Under whatever timeline: the primary keeps a segment under the number that it had when it was written. */
async function hasSegment(
  bench: Bench,
  primary: ClusterNode,
  lsn: Lsn,
  segmentBytes: number,
  signal: AbortSignal,
): Promise<boolean> {
  const [high = '', low = ''] = lsn.split('/')
  const name = [Number.parseInt(high, 16), Math.floor(Number.parseInt(low, 16) / segmentBytes)]
    .map(part => part.toString(16).toUpperCase().padStart(8, '0'))
    .join('')
  const rows = await bench.ask(primary, { signal }, query =>
    query('SELECT 1 FROM pg_ls_waldir() WHERE length(name) = 24 AND right(name, 16) = $1', [name]),
  )
  return rows.length > 0
}

async function count(
  bench: Bench,
  node: ClusterNode,
  spans: Holding['own'],
  segmentBytes: number,
  signal: AbortSignal,
) {
  const { layout } = bench
  const { stdout } = await bench.host(node).run(
    {
      argv: [
        ...['sh', '-c', COUNT, 'understudy-loss', layout.dataDirectory, layout.binDirectory],
        ...[String(READ_S), String(segmentBytes)],
        ...spans.flatMap(({ timeline, begin, end }) => [hexadecimal(timeline), begin, end ?? '-']),
      ],
      as: 'postgres',
      env: { TZ: 'UTC' },
      timeoutMs: (READ_S + 30) * 1000,
      shownAs: `pg_waldump -p ${layout.dataDirectory}/pg_wal ${spans.map(({ timeline, begin }) => `-t ${timeline} -s ${begin}`).join(' and ')}`,
    },
    { signal },
  )
  const found: Omit<Loss, 'timeline' | 'switchLsn' | 'relations'> & { relations: [string, number][] } = {
    records: 0,
    commits: 0,
    complete: true,
    relations: [],
  }
  let gap = false
  for (const line of stdout.split('\n')) {
    const [key, value] = [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]
    if (key === 'records') found.records += Number(value)
    else if (key === 'commits') found.commits += Number(value)
    else if (key === 'last') found.lastLsn = shortLsn(parseLsn(value))
    else if (key === 'early') found.firstCommitAt ??= value
    else if (key === 'late') found.lastCommitAt = value
    else if (key === 'cut') found.complete = false
    else if (key === 'gap') gap = true
    else if (key === 'relation') {
      const [times, name = ''] = value.split(' ')
      found.relations.push([name, Number(times)])
    }
  }
  // Segments that were made ready for later use look like a gap too, and there is nothing in them.
  if (gap && found.records > 0) found.complete = false
  return found
}

export const hexadecimal = (timeline: number) => timeline.toString(16).toUpperCase().padStart(8, '0')

/** `tablespace/database/file` by name, as the primary knows them: what was made after the histories parted it does not. */
async function nameRelations(
  bench: Bench,
  primary: ClusterNode,
  files: readonly [string, number][],
  signal: AbortSignal,
): Promise<Loss['relations']> {
  const records = new Map<string, number>()
  const most = [...files].sort(([, a], [, b]) => b - a).slice(0, 10 * RELATIONS)
  const databases = await bench.ask(primary, { signal }, query =>
    query('SELECT oid::text AS oid, datname FROM pg_database'),
  )
  for (const oid of new Set(most.map(([file]) => file.split('/')[1]))) {
    const own = most.filter(([file]) => file.split('/')[1] === oid)
    const database = databases.find(row => row.oid === oid)?.datname
    const names = typeof database === 'string' ? await namesIn(bench, primary, database, own, signal) : new Map()
    for (const [file, times] of own) {
      const name = names.get(file) ?? `file ${file}, which ${primary.name} does not have`
      // The catalogue is written to by whatever is done.
      if (/\.pg_(catalog|toast)\./.test(name)) continue
      records.set(name, (records.get(name) ?? 0) + times)
    }
  }
  return [...records]
    .map(([name, times]) => ({ name, records: times }))
    .sort((a, b) => b.records - a.records)
    .slice(0, RELATIONS)
}

async function namesIn(
  bench: Bench,
  primary: ClusterNode,
  database: string,
  files: readonly [string, number][],
  signal: AbortSignal,
): Promise<Map<string, string>> {
  const values = files.map(([file]) => `(${escapeLiteral(file)})`).join(', ')
  const conninfo = `dbname='${database.replaceAll(/['\\]/g, mark => `\\${mark}`)}' port=${bench.cluster.port}`
  const statement = `SELECT f.file || ' ' || current_database() || '.' || n.nspname || '.' || c.relname
    FROM (VALUES ${values}) f (file)
    JOIN pg_class c ON c.oid = pg_filenode_relation(split_part(f.file, '/', 1)::oid, split_part(f.file, '/', 3)::oid)
    JOIN pg_namespace n ON n.oid = c.relnamespace`
  const { stdout } = await bench.host(primary).run(
    {
      argv: [`${bench.layout.binDirectory}/psql`, '-XAtqw', '-d', conninfo, '-c', statement],
      as: 'postgres',
      timeoutMs: 30_000,
      shownAs: `ask ${primary.name} for the names of relations in ${database}`,
    },
    // A database that nobody can connect to: its relations stay numbers.
    { signal, acceptExit: [0, 1, 2] },
  )
  return new Map(
    stdout
      .split('\n')
      .filter(line => line !== '')
      .map(line => [line.slice(0, line.indexOf(' ')), line.slice(line.indexOf(' ') + 1)]),
  )
}
