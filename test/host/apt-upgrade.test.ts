import t from 'tap'
import { readUpgrades } from '../../src/host/apt-upgrade.js'

const POLICY = `libpq5:
  Installed: 15.13-0+deb12u1
  Candidate: 15.14-0+deb12u1
  Version table:
     15.14-0+deb12u1 500
        500 http://security.debian.org/debian-security bookworm-security/main amd64 Packages
 *** 15.13-0+deb12u1 500
        500 http://deb.debian.org/debian bookworm/main amd64 Packages
        100 /var/lib/dpkg/status
postgresql-15:
  Installed: 15.99-0+lab1
  Candidate: 15.99-0+lab1
  Version table:
 *** 15.99-0+lab1 990
        990 http://192.0.2.1:8081 bookworm-pgdg/main amd64 Packages
        100 /var/lib/dpkg/status
     15.14-0+deb12u1 -1
        500 http://security.debian.org/debian-security bookworm-security/main amd64 Packages
`

t.test('what apt-cache policy says', async t => {
  t.same(readUpgrades(POLICY), {
    stale: false,
    packages: [
      {
        name: 'libpq5',
        installed: '15.13-0+deb12u1',
        candidate: '15.14-0+deb12u1',
        versions: ['15.14-0+deb12u1', '15.13-0+deb12u1'],
      },
      {
        name: 'postgresql-15',
        installed: '15.99-0+lab1',
        candidate: '15.99-0+lab1',
        versions: ['15.99-0+lab1', '15.14-0+deb12u1'],
      },
    ],
  })
  t.match(readUpgrades(`stale\n${POLICY}`), { stale: true, packages: [{ name: 'libpq5' }, { name: 'postgresql-15' }] })
})
