import { Ajv } from 'ajv'
import t from 'tap'
import { holdOf, type Mirror, Packages, packageInconsistencies, packageMismatches } from '../../src/cluster/packages.js'

const validate = new Ajv({ strict: false }).compile(Packages)
const signingKey = '-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmDMEZQ==\n=abcd\n-----END PGP PUBLIC KEY BLOCK-----\n'
const mirror: Mirror = { uri: 'https://mirror.example/pgdg', signingKey }

t.test('what is accepted, and what is not', async t => {
  const accepted: [string, unknown][] = [
    ['the distribution', { source: 'distribution' }],
    ['PGDG', { source: 'pgdg', hold: true }],
    ['a mirror', { source: 'mirror', mirror }],
    ['its key without a last newline', { source: 'mirror', mirror: { ...mirror, signingKey: signingKey.trim() } }],
    [
      'its key from Windows',
      { source: 'mirror', mirror: { ...mirror, signingKey: signingKey.replaceAll('\n', '\r\n') } },
    ],
    ['a directory of the hosts', { source: 'mirror', mirror: { ...mirror, uri: 'file:/srv/pgdg', suite: './' } }],
    ['a port, an address', { source: 'mirror', mirror: { ...mirror, uri: 'http://[2001:db8::1]:8080/pgdg/' } }],
    ['versions', { source: 'distribution', versions: { postgresql: '15.14-0+deb12u1', repmgr: '5.3.3-2' } }],
  ]
  for (const [what, value] of accepted) t.equal(validate(value), true, what)
  const refused: [string, unknown][] = [
    ['no source', {}],
    ['another source', { source: 'internet' }],
    ['no key', { source: 'mirror', mirror: { uri: mirror.uri } }],
    [
      'a private key',
      { source: 'mirror', mirror: { ...mirror, signingKey: signingKey.replaceAll('PUBLIC', 'PRIVATE') } },
    ],
    ['a password', { source: 'mirror', mirror: { ...mirror, uri: 'https://user:word@mirror.example/pgdg' } }],
    ['another protocol', { source: 'mirror', mirror: { ...mirror, uri: 'ftp://mirror.example/pgdg' } }],
    ['a second line', { source: 'mirror', mirror: { ...mirror, uri: 'https://mirror.example/pgdg\nTrusted: yes' } }],
    ['a second line in the suite', { source: 'mirror', mirror: { ...mirror, suite: 'x\nTrusted:yes' } }],
    ['an option of apt', { source: 'distribution', versions: { postgresql: '-o=x' } }],
    ['a version with a space', { source: 'distribution', versions: { postgresql: '15.14 x' } }],
  ]
  for (const [what, value] of refused) t.equal(validate(value), false, what)
})

t.test('what the schema cannot say', async t => {
  const pointers = (packages: Packages, postgresVersion = 15) =>
    packageInconsistencies({ postgresVersion, packages }).map(({ pointer }) => pointer)
  t.same(packageInconsistencies({ postgresVersion: 15 }), [])
  t.same(pointers({ source: 'mirror', mirror }), [])
  t.same(pointers({ source: 'mirror' }), ['/packages/mirror'])
  t.same(pointers({ source: 'pgdg', mirror }), ['/packages/mirror'])
  t.same(pointers({ source: 'mirror', mirror: { ...mirror, suite: './', components: ['main'] } }), [
    '/packages/mirror/components',
  ])
  for (const version of ['15.14-0+deb12u1', '1:15.14-1', '15~rc1-1', '15.14-1.pgdg12+1'])
    t.same(pointers({ source: 'pgdg', versions: { postgresql: version } }), [], version)
  for (const version of ['14.2-1', '151-1', '1:14.15-1'])
    t.same(pointers({ source: 'pgdg', versions: { postgresql: version } }), ['/packages/versions/postgresql'], version)
})

t.test('a version that is named is held, unless that is not wanted', async t => {
  t.equal(holdOf(undefined), undefined)
  t.equal(holdOf({ source: 'pgdg' }), undefined)
  t.equal(holdOf({ source: 'pgdg', versions: {} }), undefined)
  t.equal(holdOf({ source: 'pgdg', versions: { repmgr: '5.5.0-1' } }), true)
  t.equal(holdOf({ source: 'pgdg', versions: { repmgr: '5.5.0-1' }, hold: false }), false)
  t.equal(holdOf({ source: 'distribution', hold: true }), true)
})

t.test('what is installed against what is wanted', async t => {
  const wanted = [{ name: 'postgresql-15', version: '15.14-1' }, { name: 'repmgr-common' }]
  t.same(packageMismatches(wanted, { 'postgresql-15': '15.14-1', 'repmgr-common': '5.3.3-2' }), [])
  t.same(packageMismatches(wanted, { 'postgresql-15': '15.18-1' }), [
    { name: 'postgresql-15', installed: '15.18-1', wanted: '15.14-1' },
    { name: 'repmgr-common', installed: undefined, wanted: undefined },
  ])
})
