import t from 'tap'
import { keptFromReplaying, keptFromStopping, type Replay, type Session } from '../../jobs/steps/in-the-way.js'
import { parseLsn } from '../../src/cluster/lsn.js'
import type { ClusterNode } from '../../src/cluster/model.js'
import { readServerProcess } from '../../src/postgres/server-process.js'

const nodes = [{ name: 'pg3', nodeId: 3, host: '192.0.2.13' }] as ClusterNode[]
const session: Session = {
  pid: 9,
  user: 'app',
  application: 'billing',
  state: 'active',
  waitsFor: 'Lock/transactionid',
  transactionMs: 61_200,
}
const server = '/usr/lib/postgresql/15/bin/postgres -D /data'
const kept = (titles: readonly string[], waitingSegments = 0, sessions: readonly Session[] = []) =>
  keptFromStopping(
    'pg1',
    { busy: titles.map((title, index) => readServerProcess(index + 8, title)), waitingSegments },
    sessions,
    nodes,
  )

t.test('what kept a server from ending, by how far it had come', async t => {
  const client = 'postgres: app orders 192.0.2.1(51234) UPDATE'
  const table: [string, readonly string[], readonly RegExp[]][] = [
    [
      'a session that was seen before the stop',
      [
        server,
        client,
        'postgres: checkpointer',
        'postgres: archiver last was 1',
        'postgres: walsender r 192.0.2.13(1)',
      ],
      [
        /^A session of app \(billing, process 9\) had not ended; before the stop it was active, in a transaction that was open for 61\.2 s, waiting for Lock\/transactionid\.$/,
      ],
    ],
    [
      'one that was not',
      ['postgres: app orders [local] COPY'],
      [/^A session of app in orders from \[local\], process 8, had not ended\.$/],
    ],
    ['a worker', [server, 'postgres: autovacuum worker orders'], [/autovacuum worker orders, process 9/]],
    ['one that always ends last', ['postgres: logger', server], [/./, /The server itself \(process 9\)/]],
    [
      'the last checkpoint',
      [server, 'postgres: checkpointer performing shutdown checkpoint', 'postgres: walsender r 192.0.2.13(1)'],
      [/^The checkpointer \(process 9\) had not ended, it is writing a shutdown checkpoint\.$/],
    ],
    [
      'the archive',
      [server, 'postgres: archiver archiving 000000010000000000000007'],
      [
        /archiver \(process 9\) had not ended, its command has not answered for segment 000000010000000000000007; .*archive: 3\.$/,
      ],
    ],
    [
      'an archive that does not answer, beside a session',
      [server, client, 'postgres: archiver archiving 000000010000000000000007'],
      [/A session of app/, /not answered for segment/],
    ],
    [
      'a standby that does not confirm',
      [server, 'postgres: walsender repmgr 192.0.2.13(40312) streaming 0/5000148'],
      [/^The walsender to pg3 \(process 9\) waits until pg3 confirms what it was sent, up to 0\/5000148\.$/],
    ],
  ]
  for (const [what, titles, expected] of table) {
    const found = kept(titles, 3, [session])
    t.equal(found.length, expected.length, what)
    t.match(
      found.map(({ detail }) => detail),
      expected,
      what,
    )
    for (const { remedy } of found) t.match(remedy, /^[A-Z].*\.$/, 'with what to do')
  }
})

t.test('what kept a standby from replaying the last record', async t => {
  const checkpoint = parseLsn('0/6000028')
  const behind: Replay = {
    replayed: parseLsn('0/5000100'),
    received: parseLsn('0/60000A0'),
    paused: false,
    waitsFor: undefined,
    oldest: session,
  }
  const table: [Partial<Replay>, RegExp, RegExp][] = [
    [{ paused: true }, /Replay is paused on pg2/, /pg_wal_replay_resume/],
    [{ received: parseLsn('0/5800000') }, /pg2 has received WAL up to 0\/5800000 only/, /its network/],
    [{}, /^It is at 0\/5000100, the last checkpoint at 0\/6000028\.$/, /deadlineMs/],
    [{ waitsFor: 'IO/DataFileRead' }, /its replay waits for IO\/DataFileRead/, /disk of pg2/],
    [
      { waitsFor: 'Lock/relation' },
      /held up by a query there \(Lock\/relation\)\. The oldest transaction there is of app \(billing, process 9\): active/,
      /pg_terminate_backend\(9\)/,
    ],
    [{ waitsFor: 'IPC/RecoveryConflictSnapshot', oldest: undefined }, /held up by a query/, /pg_stat_activity on pg2/],
  ]
  for (const [change, detail, remedy] of table) {
    const found = keptFromReplaying('pg2', { ...behind, ...change }, checkpoint)
    t.equal(found.length, 1, String(detail))
    t.match(found[0]?.detail, detail)
    t.match(found[0]?.remedy, remedy)
  }
})
