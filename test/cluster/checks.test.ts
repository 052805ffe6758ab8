import t from 'tap'
import { type HostAnswer, judgeAnswers, type PeerAnswer, worstOf } from '../../src/cluster/checks.js'

const GIB = 1024 ** 3
const peer: PeerAnswer = {
  resolvesTo: '192.0.2.12',
  ssh: 'open',
  postgres: 'open',
  client: { ok: true, said: '' },
  replication: { ok: true, said: '' },
}
const fine = {
  node: 'pg1',
  connectMs: 12,
  clockOffsetMs: -3,
  disk: { availableBytes: 50 * GIB, totalBytes: 100 * GIB, mount: '/var' },
  inUse: true,
  sudo: [{ command: '/usr/bin/systemctl start postgresql@15-main.service', allowed: true }],
  openFilesLimit: 65536,
  overcommitMemory: 0,
  transparentHugePages: 'madvise',
  packages: { 'postgresql-15': '15.14-0+deb12u1', 'postgresql-15-repmgr': '5.3.3-1' },
  peers: { pg2: peer },
  server: { inRecovery: false, canRewind: true, databaseBytes: 40 * GIB, archiving: true, archiveFailing: undefined },
} satisfies HostAnswer
type Answer = Exclude<HostAnswer, { failure: unknown }>
const bare: Answer = { ...fine, node: 'pg2', inUse: false, server: undefined, peers: {}, sudo: [], packages: {} }

const judge = (...answers: HostAnswer[]) => judgeAnswers(15, answers)
const bad = (...answers: HostAnswer[]) =>
  judge(...answers)
    .filter(({ verdict }) => verdict !== 'ok')
    .map(({ kind, verdict, from, to }) => [kind, verdict, from, to])

t.test('where all is well, everything is said to be so and nothing has a remedy', async t => {
  const items = judge(fine)
  t.equal(worstOf(items), 'ok')
  t.same(
    items.filter(({ remedy }) => remedy !== undefined),
    [],
  )
  t.same(
    [...new Set(items.map(({ kind }) => kind))].sort(),
    [
      'archive',
      'clock',
      'disk',
      'kernel',
      'name_resolution',
      'port',
      'postgres_client',
      'postgres_replication',
      'rewind',
      'ssh',
      'sudo',
      'versions',
    ],
    'every kind was looked at',
  )
})

const cases: [string, HostAnswer[], unknown[]][] = [
  [
    'a host that does not answer',
    [{ node: 'pg1', failure: { detail: 'gone', remedy: 'look' } }],
    [['ssh', 'failed', undefined, 'pg1']],
  ],
  ['a clock a little off', [{ ...fine, clockOffsetMs: 1500 }], [['clock', 'warning', undefined, 'pg1']]],
  ['a clock an hour behind', [{ ...fine, clockOffsetMs: -3_600_000 }], [['clock', 'failed', undefined, 'pg1']]],
  ['a clone that fits', [fine, bare], []],
  [
    'a clone that does not fit',
    [fine, { ...bare, disk: { ...bare.disk, availableBytes: 41 * GIB } }],
    [['disk', 'failed', undefined, 'pg2']],
  ],
  [
    'a standby in use needs no room for a clone',
    [fine, { ...fine, node: 'pg2', disk: { ...fine.disk, availableBytes: 30 * GIB }, peers: {} }],
    [],
  ],
  [
    'a disk that is nearly full',
    [{ ...fine, disk: { ...fine.disk, availableBytes: GIB / 8 } }],
    [['disk', 'warning', undefined, 'pg1']],
  ],
  ['few open files', [{ ...fine, openFilesLimit: 1024 }], [['kernel', 'warning', undefined, 'pg1']]],
  ['memory promised without end', [{ ...fine, overcommitMemory: 1 }], [['kernel', 'warning', undefined, 'pg1']]],
  ['huge pages always', [{ ...fine, transparentHugePages: 'always' }], [['kernel', 'warning', undefined, 'pg1']]],
  ['a kernel that says nothing', [{ ...fine, openFilesLimit: undefined, overcommitMemory: undefined }], []],
  [
    'a command that sudo refuses',
    [{ ...fine, sudo: [{ command: 'x', allowed: false }] }],
    [['sudo', 'warning', undefined, 'pg1']],
  ],
  ['no rewind', [{ ...fine, server: { ...fine.server, canRewind: false } }], [['rewind', 'warning', undefined, 'pg1']]],
  [
    'an archive that fails on the primary',
    [{ ...fine, server: { ...fine.server, archiveFailing: 'failed 3 times' } }],
    [['archive', 'failed', undefined, 'pg1']],
  ],
  [
    'an archive that failed once on a standby',
    [{ ...fine, server: { ...fine.server, inRecovery: true, archiveFailing: 'x' } }],
    [],
  ],
  [
    'a name that does not resolve says all there is to say',
    [{ ...fine, peers: { pg2: { ...peer, resolvesTo: undefined, ssh: 'refused', postgres: 'refused' } } }],
    [['name_resolution', 'failed', 'pg1', 'pg2']],
  ],
  [
    'a firewall that drops',
    [{ ...fine, peers: { pg2: { ...peer, postgres: 'silent', client: undefined, replication: undefined } } }],
    [['port', 'failed', 'pg1', 'pg2']],
  ],
  [
    'nobody listens before the server is built',
    [{ ...fine, peers: { pg2: { ...peer, postgres: 'refused', client: undefined, replication: undefined } } }],
    [],
  ],
  [
    'no SSH between the nodes',
    [{ ...fine, peers: { pg2: { ...peer, ssh: 'refused' } } }],
    [['port', 'warning', 'pg1', 'pg2']],
  ],
  [
    'a client that is not let in',
    [{ ...fine, peers: { pg2: { ...peer, client: { ok: false, said: 'no pg_hba.conf entry' } } } }],
    [['postgres_client', 'failed', 'pg1', 'pg2']],
  ],
  [
    'a replication client that is not let in',
    [{ ...fine, peers: { pg2: { ...peer, replication: { ok: false, said: 'no pg_hba.conf entry' } } } }],
    [['postgres_replication', 'failed', 'pg1', 'pg2']],
  ],
  [
    'minor versions of PostgreSQL that differ',
    [fine, { ...fine, node: 'pg2', peers: {}, packages: { ...fine.packages, 'postgresql-15': '15.15-1' } }],
    [['versions', 'warning', undefined, undefined]],
  ],
  [
    'another series of repmgr',
    [fine, { ...fine, node: 'pg2', peers: {}, packages: { ...fine.packages, 'postgresql-15-repmgr': '5.5.0-1' } }],
    [['versions', 'failed', undefined, undefined]],
  ],
]
for (const [what, answers, wanted] of cases) {
  t.test(what, async t => {
    t.same(bad(...answers), wanted)
    for (const item of judge(...answers)) if (item.verdict !== 'ok') t.type(item.remedy, 'string', 'it says what to do')
  })
}

t.test('the worst comes first', async t => {
  const items = judge({ node: 'pg3', failure: { detail: 'gone', remedy: 'look' } }, { ...fine, clockOffsetMs: 1500 })
  t.same(
    items.slice(0, 2).map(({ verdict }) => verdict),
    ['failed', 'warning'],
  )
  t.equal(worstOf(items), 'failed')
})
