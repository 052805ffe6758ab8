import t from 'tap'
import { readServerProcess } from '../../src/postgres/server-process.js'

t.test('what a process of a server is, by its title', async t => {
  const table: [string, Record<string, unknown>][] = [
    ['/usr/lib/postgresql/15/bin/postgres -D /var/lib/postgresql/15/main ', { kind: 'postmaster' }],
    ['postgres: 15/main: checkpointer   ', { kind: 'checkpointer' }],
    ['postgres: checkpointer performing shutdown checkpoint', { kind: 'checkpointer', writing: 'shutdown checkpoint' }],
    ['postgres: 15/main: archiver last was 000000010000000000000006', { kind: 'archiver' }],
    [
      'postgres: 15/main: archiver archiving 000000010000000000000007',
      { kind: 'archiver', segment: '000000010000000000000007' },
    ],
    [
      'postgres: 15/main: walsender repmgr 192.0.2.12(40312) streaming 0/5000148',
      { kind: 'walsender', address: '192.0.2.12', sentLsn: '0/5000148' },
    ],
    ['postgres: 15/main: walsender repmgr fd00::12(40312) backup', { kind: 'walsender', address: 'fd00::12' }],
    ['postgres: walsender repmgr [local] streaming 0/5000148', { kind: 'walsender', address: '[local]' }],
    [
      'postgres: 15/main: app orders 192.0.2.1(51234) idle in transaction',
      { kind: 'session', user: 'app', database: 'orders', client: '192.0.2.1(51234)' },
    ],
    ['postgres: the boss orders [local] SELECT', { kind: 'session', user: 'the boss', client: '[local]' }],
    ['postgres: 15/main: autovacuum worker orders', { kind: 'worker', doing: 'autovacuum worker orders' }],
  ]
  for (const [title, expected] of table) t.match(readServerProcess(7, title), { pid: 7, ...expected }, title)
  t.notOk('segment' in readServerProcess(7, 'postgres: archiver last was 000000010000000000000006'), 'it is not at it')
  t.notOk('writing' in readServerProcess(7, 'postgres: checkpointer'))
})
