import { existsSync, readFileSync } from 'node:fs'
import t from 'tap'
import { madisonVersions, readAptFailure } from '../../src/host/apt-errors.js'
import { repositoryFiles, sourcesText } from '../../src/host/apt-files.js'
import { pgdgRepository } from '../../src/host/pgdg.js'

const mirror = {
  uri: 'http://mirror.example/pgdg',
  suite: 'trixie-pgdg',
  components: ['main', '16'],
  signingKey: 'a\r\nkey\r\n',
  knownBy: { host: 'mirror.example' },
}

t.test('the files of a source', async t => {
  t.same(
    repositoryFiles(mirror, 'cluster orders').map(({ path, content, owner, mode }) => [path, content, owner, mode]),
    [
      ['/etc/apt/keyrings/understudy.asc', 'a\nkey\n', 'root:root', '0644'],
      [
        '/etc/apt/preferences.d/understudy',
        '# Managed by Understudy: cluster orders. What is changed here is overwritten.\n' +
          'Package: postgresql* repmgr* libpq*\nPin: origin "mirror.example"\nPin-Priority: 990\n',
        'root:root',
        '0644',
      ],
      [
        '/etc/apt/sources.list.d/understudy.sources',
        '# Managed by Understudy: cluster orders. What is changed here is overwritten.\n' +
          'Types: deb\nURIs: http://mirror.example/pgdg\nSuites: trixie-pgdg\nComponents: main 16\n' +
          'Signed-By: /etc/apt/keyrings/understudy.asc\n',
        'root:root',
        '0644',
      ],
    ],
  )
  t.equal(
    sourcesText({ ...mirror, uri: 'file:/srv/pgdg', suite: './' }, '/key'),
    'Types: deb\nURIs: file:/srv/pgdg\nSuites: ./\nSigned-By: /key\n',
    'a flat repository has no components',
  )
})

t.test('PGDG’s own repository', async t => {
  const repository = pgdgRepository('bookworm')
  t.match(repositoryFiles(repository, 'x')[2]?.content, /^Suites: bookworm-pgdg$/m)
  t.match(repositoryFiles(repository, 'x')[1]?.content, /^Pin: release o=apt\.postgresql\.org$/m)
  const debians = '/usr/share/postgresql-common/pgdg/apt.postgresql.org.asc'
  t.ok(existsSync(debians), 'npm test installs postgresql-common')
  t.equal(repository.signingKey, readFileSync(debians, 'utf8'), 'its key is the one that Debian ships')
})

// What apt printed, from lab hosts: 2.2 is Debian 11, 2.6 Debian 12, 3.0 Debian 13.
const said: [string, string, ReturnType<typeof readAptFailure>][] = [
  [
    'a name that does not resolve',
    `Ign:1 https://apt.postgresql.org/pub/repos/apt bookworm-pgdg InRelease
Err:1 https://apt.postgresql.org/pub/repos/apt bookworm-pgdg InRelease
  Temporary failure resolving 'apt.postgresql.org'
Reading package lists...
E: Failed to fetch https://apt.postgresql.org/pub/repos/apt/dists/bookworm-pgdg/InRelease  Temporary failure resolving 'apt.postgresql.org'
E: Some index files failed to download. They have been ignored, or old ones used instead.`,
    { kind: 'unreachable', detail: "Temporary failure resolving 'apt.postgresql.org'" },
  ],
  [
    'a port that refuses, 3.0',
    `Err:1 http://192.0.2.1:9/x bookworm-pgdg InRelease
  Could not connect to 192.0.2.1:9 (192.0.2.1). - connect (111: Connection refused)
  Unable to connect to 192.0.2.1:9:
Reading package lists...
E: Failed to fetch http://192.0.2.1:9/x/dists/bookworm-pgdg/InRelease  Unable to connect to 192.0.2.1:9:
E: Some index files failed to download. They have been ignored, or old ones used instead.`,
    {
      kind: 'unreachable',
      detail: 'Could not connect to 192.0.2.1:9 (192.0.2.1). - connect (111: Connection refused)',
    },
  ],
  [
    'a directory without a repository',
    `Err:2 file:/srv/none ./ Release
  File not found - /srv/none/./Release (2: No such file or directory)
Reading package lists...
E: The repository 'file:/srv/none ./ Release' does not have a Release file.`,
    { kind: 'unreachable', detail: 'File not found - /srv/none/./Release (2: No such file or directory)' },
  ],
  [
    'not signed',
    `Ign:3 file:/srv/debian ./ Release.gpg
Reading package lists...
E: The repository 'file:/srv/debian ./ Release' is not signed.`,
    { kind: 'untrusted', detail: "The repository 'file:/srv/debian ./ Release' is not signed." },
  ],
  [
    'no such package',
    `Reading package lists...
Building dependency tree...
E: Unable to locate package postgresql-18
E: Unable to locate package postgresql-18-repmgr`,
    { kind: 'unavailable', packages: ['postgresql-18', 'postgresql-18-repmgr'], unread: undefined },
  ],
  [
    'no such package, and a source that could not be read',
    `Err:1 http://deb.debian.org/debian bookworm InRelease
  Temporary failure resolving 'deb.debian.org'
W: Failed to fetch http://deb.debian.org/debian/dists/bookworm/InRelease  Temporary failure resolving 'deb.debian.org'
E: Unable to locate package postgresql-15`,
    { kind: 'unavailable', packages: ['postgresql-15'], unread: "Temporary failure resolving 'deb.debian.org'" },
  ],
  [
    'no such version',
    `Reading state information...
E: Version '15.1-1' for 'postgresql-15' was not found
E: Version '15.1-1' for 'postgresql-client-15' was not found`,
    { kind: 'unavailable', packages: ['postgresql-15', 'postgresql-client-15'], unread: undefined },
  ],
  [
    'the lists are locked',
    `Reading package lists...
E: Could not get lock /var/lib/apt/lists/lock. It is held by process 44 (unattended-upgr)
E: Unable to lock directory /var/lib/apt/lists/`,
    { kind: 'busy', holder: 'unattended-upgr (process 44, /var/lib/apt/lists/lock)' },
  ],
  [
    'dpkg is locked, 2.6',
    `dpkg: error: dpkg frontend lock was locked by another process with pid 272
Note: removing the lock file is always wrong, can damage the locked area
and the entire system. See <https://wiki.debian.org/Teams/Dpkg/FAQ#db-lock>.
E: Sub-process dpkg --set-selections returned an error code (2)
E: Executing dpkg failed. Are you root?`,
    { kind: 'busy', holder: 'a program (process 272)' },
  ],
  [
    'dpkg is locked, 3.0',
    `dpkg: error: dpkg frontend lock was locked by /usr/bin/perl process with pid 244
Note: removing the lock file is always wrong, can damage the locked area
and the entire system. See <https://wiki.debian.org/Teams/Dpkg/FAQ#db-lock>.
E: Sub-process dpkg --set-selections returned an error code (2)
E: Executing dpkg failed. Are you root?`,
    { kind: 'busy', holder: '/usr/bin/perl (process 244)' },
  ],
  [
    'the lock was set free, and then something else went wrong',
    `E: Could not get lock /var/lib/apt/lists/lock. It is held by process 44 (unattended-upgr)
E: Unable to lock directory /var/lib/apt/lists/
waiting until it is free, 300 s at most
Reading package lists...
Building dependency tree...
Reading state information...
E: Unable to locate package postgresql-18`,
    { kind: 'unavailable', packages: ['postgresql-18'], unread: undefined },
  ],
  [
    'dpkg was cut short',
    `E: dpkg was interrupted, you must manually run 'dpkg --configure -a' to correct the problem.`,
    { kind: 'interrupted' },
  ],
  [
    'no room for the downloads',
    `Need to get 18.9 MB of archives.
After this operation, 65.0 MB of additional disk space will be used.
E: You don't have enough free space in /var/cache/apt/archives/.`,
    { kind: 'disk-full', detail: 'not enough is free in /var/cache/apt/archives/.', partial: false },
  ],
  [
    'no room while unpacking',
    `Unpacking postgresql-15 (15.18-0+deb12u1) ...
dpkg: error processing archive /srv/debian/postgresql-15_15.18-0+deb12u1_amd64.deb (--unpack):
 cannot copy extracted data for './usr/lib/postgresql/15/bin/postgres' to '/usr/lib/postgresql/15/bin/postgres.dpkg-new': failed to write (No space left on device)
E: Sub-process /usr/bin/dpkg returned an error code (1)`,
    {
      kind: 'disk-full',
      detail:
        "cannot copy extracted data for './usr/lib/postgresql/15/bin/postgres' to '/usr/lib/postgresql/15/bin/postgres.dpkg-new': failed to write (No space left on device)",
      partial: true,
    },
  ],
  ['something else', 'E: Sub-process /usr/bin/dpkg returned an error code (1)', undefined],
]

for (const [what, output, expected] of said) {
  t.test(`apt says: ${what}`, async t => {
    t.same(readAptFailure(output), expected)
  })
}

t.test('the versions that apt-cache madison lists', async t => {
  const output = `postgresql-15 | 15.18-0+deb12u1 | http://deb.debian.org/debian bookworm/main amd64 Packages
postgresql-15 | 15.14-0+deb12u1 | http://deb.debian.org/debian-security bookworm-security/main amd64 Packages
postgresql-15 | 15.18-0+deb12u1 | http://deb.debian.org/debian bookworm/main Sources
postgresql-15-repmgr | 5.3.3-2 | file:/srv/debian ./ Packages
`
  t.same(madisonVersions(output, 'postgresql-15'), ['15.18-0+deb12u1', '15.14-0+deb12u1'])
  t.same(madisonVersions(output, 'postgresql-18'), [])
})
