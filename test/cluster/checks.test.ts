import t from 'tap'
import type { HostAnswer, PeerAnswer } from '../../src/cluster/check-answers.js'
import { worstOf } from '../../src/cluster/checks.js'
import { judgeAnswers } from '../../src/cluster/judge-answers.js'
import { newCluster } from '../../src/cluster/model.js'

const GIB = 1024 ** 3
const peer: PeerAnswer = {
  resolvesTo: '192.0.2.12',
  ssh: 'open',
  postgres: 'open',
  client: { ok: true, said: '' },
  replication: { ok: true, said: '' },
}
const archived = {
  mode: 'on',
  lastArchivedWal: '000000010000000000000003',
  lastArchivedAt: '2026-03-01T12:00:00+00:00',
  lastFailedWal: null,
  lastFailedAt: null,
  failedCount: 0,
  waitingSegments: 0,
}
const fine = {
  node: 'pg1',
  witness: false,
  built: true,
  service: { ok: true },
  connectMs: 12,
  clockOffsetMs: -3,
  disk: { availableBytes: 50 * GIB, totalBytes: 100 * GIB, mount: '/var' },
  inUse: true,
  ownBytes: 0,
  foreign: undefined,
  running: true,
  held: false,
  sudo: [{ command: '/usr/bin/systemctl start postgresql@15-main.service', allowed: true }],
  openFilesLimit: 65536,
  overcommitMemory: 0,
  transparentHugePages: 'madvise',
  packages: { 'postgresql-15': '15.14-0+deb12u1', 'postgresql-15-repmgr': '5.3.3-1' },
  wouldInstall: {},
  hasArchive: true,
  peers: { pg2: peer },
  server: { inRecovery: false, canRewind: true, databaseBytes: 40 * GIB },
  archive: archived,
} satisfies HostAnswer
type Answer = Exclude<HostAnswer, { failure: unknown }>
const { archive: _archive, ...unarchived } = fine
/** A standby, from which nobody was reached out to. */
const second: Answer = { ...unarchived, node: 'pg2', peers: {}, server: { ...fine.server, inRecovery: true } }
const bare: Answer = {
  ...unarchived,
  node: 'pg2',
  built: false,
  service: undefined,
  inUse: false,
  running: false,
  hasArchive: false,
  server: undefined,
  peers: {},
  sudo: [],
  packages: {},
}
const gone: HostAnswer = {
  node: 'pg1',
  witness: false,
  built: false,
  service: undefined,
  failure: { detail: 'gone', remedy: 'look' },
}

const described = newCluster(
  {
    name: 'orders',
    postgresVersion: 15,
    nodes: ['pg1', 'pg2'].map((name, at) => ({
      name,
      host: `192.0.2.1${at + 1}`,
      ssh: { user: 'admin', hostKey: `SHA256:${'A'.repeat(43)}` },
    })),
  },
  '2026-03-01T12:00:00.000Z',
)
const shipping = { ...described, archive: { mode: 'ship' } } as const
const judge = (answers: readonly HostAnswer[], cluster = described) => judgeAnswers(cluster, answers)
const bad = (answers: readonly HostAnswer[], cluster = described) =>
  judge(answers, cluster)
    .filter(({ verdict }) => verdict !== 'ok')
    .map(({ kind, verdict, from, to }) => [kind, verdict, from, to])

t.test('where all is well, everything is said to be so and nothing has a remedy', async t => {
  const items = judge([fine, second], shipping)
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
      'server',
      'ssh',
      'sudo',
      'versions',
    ],
    'every kind was looked at',
  )
})

t.test('without an archive nothing is said to have been archived', async t => {
  const items = judge([{ ...fine, archive: { ...archived, lastArchivedWal: null, lastArchivedAt: null } }, second])
  t.match(
    items.filter(({ kind }) => kind === 'archive'),
    [{ verdict: 'ok', detail: /^no archive is asked for/ }],
  )
})

t.test('before it is built, nobody has to listen, and nobody is asked', async t => {
  const closed = { ...peer, postgres: 'refused', client: undefined, replication: undefined } as const
  const items = judge([
    { ...bare, node: 'pg1', peers: { pg2: closed } },
    { ...bare, peers: { pg1: closed } },
  ])
  t.equal(worstOf(items), 'ok')
  t.equal(items.filter(({ kind, detail }) => kind === 'port' && detail.endsWith(' yet')).length, 2)
  t.notOk(items.some(({ kind }) => kind === 'server' || kind.startsWith('postgres_')))
})

const refused = { ...peer, postgres: 'refused', client: undefined, replication: undefined } as const
const dead = { running: false, server: undefined, service: { ok: false, detail: 'refused', remedy: 'look' } } as const

const cases: [string, readonly HostAnswer[], unknown[], typeof described?][] = [
  ['a host that does not answer', [gone], [['ssh', 'failed', undefined, 'pg1']]],
  ['a clock a little off', [{ ...fine, clockOffsetMs: 1500 }], [['clock', 'warning', undefined, 'pg1']]],
  ['a clock an hour behind', [{ ...fine, clockOffsetMs: -3_600_000 }], [['clock', 'failed', undefined, 'pg1']]],
  ['a clone that fits', [fine, bare], []],
  [
    'a clone that does not fit',
    [fine, { ...bare, disk: { ...bare.disk, availableBytes: 41 * GIB } }],
    [['disk', 'failed', undefined, 'pg2']],
  ],
  [
    'a clone that fits once half a clone is gone',
    [fine, { ...bare, disk: { ...bare.disk, availableBytes: 30 * GIB }, ownBytes: 20 * GIB }],
    [],
  ],
  [
    'a standby in use needs no room for a clone',
    [fine, { ...second, disk: { ...fine.disk, availableBytes: 30 * GIB } }],
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
    'a primary that is stopped',
    [
      { ...unarchived, ...dead },
      { ...second, peers: { pg1: refused } },
    ],
    [
      ['postgres_client', 'failed', undefined, 'pg1'],
      ['server', 'failed', undefined, undefined],
      ['server', 'failed', undefined, 'pg1'],
      ['port', 'failed', 'pg2', 'pg1'],
    ],
  ],
  [
    'a primary whose host is away, known from the record',
    [
      { ...gone, built: true, service: dead.service },
      { ...second, peers: { pg1: refused } },
    ],
    [
      ['ssh', 'failed', undefined, 'pg1'],
      ['postgres_client', 'failed', undefined, 'pg1'],
      ['server', 'failed', undefined, undefined],
      ['port', 'failed', 'pg2', 'pg1'],
    ],
  ],
  [
    'a standby that was told to stop',
    [fine, { ...second, ...dead, held: true }],
    [
      ['postgres_client', 'failed', undefined, 'pg2'],
      ['server', 'failed', undefined, 'pg2'],
    ],
  ],
  [
    'a member whose host was made anew',
    [fine, { ...bare, built: true, service: dead.service }],
    [
      ['postgres_client', 'failed', undefined, 'pg2'],
      ['server', 'failed', undefined, 'pg2'],
    ],
  ],
  ['a server that answers nobody', [fine, { ...second, server: undefined }], [['server', 'failed', undefined, 'pg2']]],
  ['two that accept writes', [fine, { ...fine, node: 'pg2', peers: {} }], [['server', 'failed', undefined, undefined]]],
  ['a witness accepts writes too', [fine, { ...fine, node: 'pg2', witness: true, peers: {} }], []],
  [
    'a host that serves somebody else',
    [fine, { ...bare, foreign: { detail: 'taken', remedy: 'another host' } }],
    [['server', 'failed', undefined, 'pg2']],
  ],
  [
    'this service is not let in',
    [{ ...fine, service: { ok: false, detail: 'no pg_hba.conf entry', remedy: 'mend' } }],
    [['postgres_client', 'failed', undefined, 'pg1']],
  ],

  [
    'an archive that fails on the primary',
    [{ ...fine, archive: { ...archived, waitingSegments: 3, lastFailedAt: '2026-03-01T13:00:00+00:00' } }],
    [['archive', 'failed', undefined, 'pg1']],
    shipping,
  ],
  [
    'an archive that failed, and has made up for it',
    [{ ...fine, archive: { ...archived, failedCount: 3, lastFailedAt: '2026-03-01T11:00:00+00:00' } }],
    [],
    shipping,
  ],
  [
    'an archive that waits for a restart',
    [{ ...fine, archive: { ...archived, mode: 'off' } }],
    [['archive', 'failed', undefined, 'pg1']],
    shipping,
  ],
  [
    'an archive that is not whole on another node',
    [{ ...fine, archive: { ...archived, missing: { pg2: 4 } } }],
    [['archive', 'warning', undefined, 'pg1']],
    shipping,
  ],
  ['an archive that could not be asked for', [unarchived], [['archive', 'warning', undefined, 'pg1']], shipping],
  [
    'a standby without the archive’s script',
    [fine, { ...second, hasArchive: false }],
    [['archive', 'failed', undefined, 'pg2']],
    shipping,
  ],
  ['a failing archive that nobody described', [{ ...fine, archive: { ...archived, mode: 'off' } }], []],

  [
    'a name that does not resolve says all there is to say',
    [{ ...fine, peers: { pg2: { ...peer, resolvesTo: undefined, ssh: 'refused', postgres: 'refused' } } }],
    [['name_resolution', 'failed', 'pg1', 'pg2']],
  ],
  [
    'a firewall that drops, also before anything is built',
    [{ ...bare, node: 'pg1', peers: { pg2: { ...refused, postgres: 'silent' } } }, bare],
    [['port', 'failed', 'pg1', 'pg2']],
  ],
  [
    'no SSH between the nodes',
    [{ ...fine, peers: { pg2: { ...peer, ssh: 'refused' } } }, second],
    [['port', 'warning', 'pg1', 'pg2']],
  ],
  [
    'no SSH between the nodes, and the archive needs it',
    [{ ...fine, peers: { pg2: { ...peer, ssh: 'refused' } } }, second],
    [['ssh', 'failed', 'pg1', 'pg2']],
    shipping,
  ],
  [
    'no SSH to the witness, which has nothing to archive',
    [
      { ...fine, peers: { pg2: { ...peer, ssh: 'silent' } } },
      { ...second, witness: true },
    ],
    [['port', 'warning', 'pg1', 'pg2']],
    { ...shipping, nodes: described.nodes.map((node, at) => (at === 1 ? { ...node, kind: 'witness' } : node)) },
  ],
  [
    'a key that is not let in',
    [
      { ...fine, peers: { pg2: { ...peer, login: { ok: false, detail: 'Permission denied', remedy: 'look' } } } },
      second,
    ],
    [['ssh', 'failed', 'pg1', 'pg2']],
    { ...described, sshBetweenNodes: true },
  ],
  [
    'a client that is not let in',
    [{ ...fine, peers: { pg2: { ...peer, client: { ok: false, said: 'no pg_hba.conf entry' } } } }, second],
    [['postgres_client', 'failed', 'pg1', 'pg2']],
  ],
  [
    'a replication client that is not let in',
    [{ ...fine, peers: { pg2: { ...peer, replication: { ok: false, said: 'no pg_hba.conf entry' } } } }, second],
    [['postgres_replication', 'failed', 'pg1', 'pg2']],
  ],
  [
    'minor versions of PostgreSQL that differ',
    [fine, { ...second, packages: { ...fine.packages, 'postgresql-15': '15.13-1' } }],
    [['versions', 'warning', undefined, undefined]],
  ],
  [
    'an older PostgreSQL that is to hold a newer one’s data',
    [fine, { ...bare, wouldInstall: { ...fine.packages, 'postgresql-15': '15.9-1' } }],
    [
      ['versions', 'failed', undefined, 'pg2'],
      ['versions', 'warning', undefined, undefined],
    ],
  ],
  [
    'a newer one that is to hold an older one’s data',
    [fine, { ...bare, wouldInstall: { ...fine.packages, 'postgresql-15': '15.15-1' } }],
    [['versions', 'warning', undefined, undefined]],
  ],
  [
    'another series of repmgr',
    [fine, { ...second, packages: { ...fine.packages, 'postgresql-15-repmgr': '5.5.0-1' } }],
    [['versions', 'failed', undefined, undefined]],
  ],
  [
    'another series of repmgr, which would come with its installation',
    [fine, { ...bare, wouldInstall: { ...fine.packages, 'postgresql-15-repmgr': '5.5.0-1' } }],
    [['versions', 'failed', undefined, undefined]],
  ],
]
for (const [what, answers, wanted, cluster] of cases) {
  t.test(what, async t => {
    t.same(bad(answers, cluster), wanted)
    for (const item of judge(answers, cluster))
      if (item.verdict !== 'ok') t.type(item.remedy, 'string', 'it says what to do')
  })
}

t.test('the worst comes first', async t => {
  const items = judge([
    { ...gone, node: 'pg3' },
    { ...fine, clockOffsetMs: 1500 },
  ])
  t.same(
    items.slice(0, 2).map(({ verdict }) => verdict),
    ['failed', 'warning'],
  )
  t.equal(worstOf(items), 'failed')
})
