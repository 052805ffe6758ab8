import t from 'tap'
import { type ArchivePolicy, archiveContradictions, archiveOf } from '../../src/cluster/archive.js'
import { type ArchiveObservation, describeArchive } from '../../src/cluster/archive-status.js'
import { nodeSshOf } from '../../src/cluster/node-ssh.js'

t.test('what holds where nothing was said', async t => {
  t.same(archiveOf({}), { mode: 'none' })
  t.same(archiveOf({ archive: { mode: 'none' } }), { mode: 'none' })
  t.same(archiveOf({ archive: { mode: 'ship' } }), {
    mode: 'ship',
    directory: '/var/lib/postgresql/wal-archive',
    minimumCopies: 1,
    maxWaitingBytes: 10 * 1024 ** 3,
    retentionHours: 168,
    retentionBytes: 20 * 1024 ** 3,
    timeoutSeconds: 0,
  })
  t.same(archiveOf({ archive: { mode: 'ship', retention: { hours: 3 }, minimumCopies: 0, directory: '/srv/wal' } }), {
    ...archiveOf({ archive: { mode: 'ship' } }),
    retentionHours: 3,
    minimumCopies: 0,
    directory: '/srv/wal',
  })
  t.throws(() => archiveOf({ archive: { mode: 'command' } }), TypeError)
})

t.test('what contradicts itself', async t => {
  const command = 'push %p'
  const restoreCommand = 'get %f %p'
  const cases: [ArchivePolicy | undefined, ...string[]][] = [
    [undefined],
    [{ mode: 'none' }],
    [{ mode: 'ship' }],
    [{ mode: 'ship', directory: '/srv/wal', timeoutSeconds: 60 }],
    [{ mode: 'command', command, restoreCommand }],
    [{ mode: 'command', command, restoreCommand: '' }],
    [{ mode: 'command', command: 'cp pg_wal/%f /srv/wal/', restoreCommand }],
    [{ mode: 'none', directory: '/srv/wal' }, '/archive/directory'],
    [{ mode: 'ship', command }, '/archive/command'],
    [{ mode: 'command', command, restoreCommand, retention: { hours: 1 } }, '/archive/retention'],
    [{ mode: 'command' }, '/archive/command', '/archive/restoreCommand'],
    [{ mode: 'command', command: 'true', restoreCommand }, '/archive/command'],
    [{ mode: 'command', command: 'push %%p', restoreCommand }, '/archive/command'],
    [{ mode: 'command', command, restoreCommand: 'get %p' }, '/archive/restoreCommand'],
    [{ mode: 'command', command, restoreCommand: 'get' }, '/archive/restoreCommand', '/archive/restoreCommand'],
    ...[
      '/srv/wal-archive',
      '/var/lib/postgresql/wal-archive',
      '/var/lib/wal-archive',
      '/mnt/wal/orders',
      '/opt/wal/x',
    ].map((directory): [ArchivePolicy] => [{ mode: 'ship', directory }]),
    ...[
      '/etc/wal',
      '/usr/wal/x',
      '/proc/1',
      '/var/lib/postgresql/15/main/pg_wal',
      '/var/run/wal',
      '/var/lib',
      '/var/log',
      '/var/log/wal',
      '/var/cache/wal',
      '/var/lib/postgresql',
      '/var/lib/postgresql/16',
      '/var/lib/postgresql/16/main',
      '/var/lib/postgresql/16/archive',
      '/var/lib/postgresql/repmgr',
      '/var/lib/dpkg/wal',
      '/var/lib/understudy',
      '/home/deploy',
      '/home/deploy/wal',
      '/root/wal',
      '/tmp/wal',
    ].map((directory): [ArchivePolicy, string] => [{ mode: 'ship', directory }, '/archive/directory']),
  ]
  for (const [archive, ...pointers] of cases) {
    t.same(
      archiveContradictions(archive, '/archive').map(({ pointer }) => pointer),
      pointers,
      JSON.stringify(archive),
    )
  }
})

t.test('SSH between the nodes: a login where it is asked for, else only what the archive needs', async t => {
  t.equal(nodeSshOf({}), 'none')
  t.equal(nodeSshOf({ sshBetweenNodes: false }), 'none')
  t.equal(nodeSshOf({ archive: { mode: 'ship' } }), 'archive')
  t.equal(nodeSshOf({ archive: { mode: 'ship' }, sshBetweenNodes: true }), 'full')
  t.equal(nodeSshOf({ sshBetweenNodes: true }), 'full')
})

t.test('how the archive is doing', async t => {
  const cluster = { archive: { mode: 'ship' as const } }
  const well: ArchiveObservation = {
    mode: 'on',
    lastArchivedWal: '000000010000000000000005',
    lastArchivedAt: '2026-03-01T12:00:00.5+00:00',
    lastFailedWal: null,
    lastFailedAt: null,
    failedCount: 0,
    waitingSegments: 0,
  }
  const failed = {
    lastFailedWal: '000000010000000000000006',
    lastFailedAt: '2026-03-01T12:01:00+00:00',
    failedCount: 4,
  }
  t.equal(describeArchive({}, 'pg1', well), null, 'there is none')
  t.equal(describeArchive(cluster, 'pg1', undefined), null, 'nobody could say')
  t.match(describeArchive(cluster, 'pg1', well), {
    failing: false,
    problem: null,
    lastArchivedAt: '2026-03-01T12:00:00.500Z',
    missing: [],
    aloneSegments: 0,
  })
  t.match(describeArchive(cluster, 'pg1', { ...well, waitingSegments: 3 }), { failing: false }, 'to wait is no failure')
  t.match(
    describeArchive(cluster, 'pg1', { ...well, ...failed, waitingSegments: 3, reason: 'NOW pg2 does not answer\n' }),
    {
      failing: true,
      problem:
        /pg1 cannot archive 000000010000000000000006; 3 segments wait on its disk\. NOW pg2 does not answer\. Mend/,
    },
  )
  t.match(
    describeArchive(cluster, 'pg1', {
      ...well,
      lastArchivedAt: null,
      lastArchivedWal: null,
      ...failed,
      waitingSegments: 1,
    }),
    { failing: true },
    'nothing was ever archived',
  )
  t.match(
    describeArchive(cluster, 'pg1', {
      ...well,
      ...failed,
      lastArchivedAt: '2026-03-01T12:02:00+00:00',
      waitingSegments: 1,
    }),
    { failing: false },
    'a failure that was made up for',
  )
  t.match(describeArchive(cluster, 'pg1', { ...well, mode: 'off' }), {
    failing: true,
    problem: /archive_mode is off on pg1/,
  })
  t.match(describeArchive(cluster, 'pg1', { ...well, missing: { pg3: 2, pg2: 0 }, aloneSegments: 1 }), {
    failing: false,
    missing: [{ node: 'pg3', segments: 2 }],
    aloneSegments: 1,
  })
})
