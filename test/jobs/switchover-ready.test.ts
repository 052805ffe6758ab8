import t from 'tap'
import {
  canConfirm,
  obstacles,
  type PrimaryFacts,
  type SuccessorFacts,
  warnings,
} from '../../jobs/steps/switchover-ready.js'

const rewind = { hints: true, fullPageWrites: true }
const primary: PrimaryFacts = {
  lsn: '0/5000000',
  oldest: undefined,
  backups: 0,
  waitingSegments: 0,
  archiveFailing: false,
  logicalSlots: [],
  settings: { max_connections: 100 },
  freeBytes: 10_000_000_000,
  rewind,
}
const successor: SuccessorFacts = {
  replayed: '0/5000000',
  paused: false,
  receiver: 'streaming',
  slotsLeft: 10,
  sendersLeft: 10,
  settings: { max_connections: 100 },
  freeBytes: 10_000_000_000,
  rewind,
  synchronousNames: '',
  restoreMs: undefined,
}
const limits = { maxTransactionAgeMs: 60_000, maxLagBytes: 1_000_000, loseLogicalSlots: false }
const standbys = ['pg1', 'pg3']
const oldest = { pid: 7, user: 'app', application: 'billing', ageMs: 61_000 }

t.test('each obstacle by itself, in words that name the place', async t => {
  t.same(obstacles('pg1', 'pg2', primary, successor, standbys, limits), [], 'nothing stands in the way')
  const table: [Partial<PrimaryFacts>, Partial<SuccessorFacts>, RegExp][] = [
    [{ oldest }, {}, /A transaction of app \(billing, process 7\) on pg1 has been open for 61 s/],
    [{ oldest: { ...oldest, application: '' } }, {}, /no application_name/],
    [{ backups: 1 }, {}, /base backup of pg1/],
    [{ waitingSegments: 9 }, {}, /9 WAL segments of pg1 wait/],
    [{ waitingSegments: 1, archiveFailing: true }, {}, /the last try failed/],
    [{}, { paused: true }, /Replay is paused on pg2/],
    [{}, { receiver: null }, /pg2 does not stream/],
    [{}, { replayed: null }, /pg2 has replayed nothing/],
    [{ lsn: '0/6000000' }, {}, /pg2 is 16777216 bytes of WAL behind pg1/],
    [{}, { slotsLeft: 1 }, /room for 1 more slots/],
    [{}, { sendersLeft: 2 }, /2 more streams/],
    [{}, { settings: { max_connections: 50 } }, /max_connections is 50 on pg2 and 100 on pg1/],
    [{}, { freeBytes: 1_000_000 }, /pg2 has only 0 MiB of disk free/],
    [{ freeBytes: 250 * 1024 * 1024 }, {}, /pg1 has only 250 MiB of disk free/],
    [{ logicalSlots: ['sub'] }, {}, /logical replication slots.*: sub/],
    [{}, { synchronousNames: 'pg2' }, /no commit would be confirmed/],
    [{}, { restoreMs: 5000 }, /takes 5000 ms/],
  ]
  for (const [there, here, said] of table) {
    const found = obstacles('pg1', 'pg2', { ...primary, ...there }, { ...successor, ...here }, standbys, limits)
    t.equal(found.length, 1, String(said))
    t.match(found[0]?.detail, said)
    t.match(found[0]?.remedy, /^[A-Z].*\.$/, 'with what to do')
  }
})

t.test('whether commits would be confirmed by the standbys that a new primary has', async t => {
  const table: [string, boolean][] = [
    ['', true],
    ['*', true],
    ['pg2', false],
    ['pg2, pg3', true],
    ['FIRST 1 (pg2, pg3)', true],
    ['FIRST 2 (pg2, pg3)', false],
    ['ANY 2 (pg1, pg2, pg3)', true],
    ['any 2 ("pg1","PG3")', true],
    ['2 (*)', true],
    ['3 (*)', false],
  ]
  for (const [names, can] of table) t.equal(canConfirm(names, standbys), can, names)
})

t.test('what is at its limit is no obstacle', async t => {
  t.same(
    obstacles(
      'pg1',
      'pg2',
      { ...primary, oldest: { ...oldest, ageMs: 60_000 }, waitingSegments: 8 },
      { ...successor, slotsLeft: 2, sendersLeft: 3, settings: { max_connections: 200 } },
      standbys,
      limits,
    ),
    [],
  )
})

t.test('what a rewind would need later is told, and is no reason not to begin', async t => {
  t.same(warnings('pg1', 'pg2', primary, successor), [])
  const bare = { ...successor, rewind: { hints: false, fullPageWrites: true } }
  t.same(obstacles('pg1', 'pg2', primary, bare, standbys, limits), [])
  t.match(warnings('pg1', 'pg2', primary, bare), [/^pg2 has neither data checksums nor wal_log_hints.*cloned/])
  const torn = { ...primary, rewind: { hints: true, fullPageWrites: false } }
  t.match(warnings('pg1', 'pg2', torn, bare), [/^full_page_writes is off on pg1/, /^pg2 has neither/])
})
