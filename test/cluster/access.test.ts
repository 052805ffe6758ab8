import fc from 'fast-check'
import t from 'tap'
import { type Access, ADDRESS_PATTERN, accessProblems, insidersOf, placeOf } from '../../src/cluster/access.js'

const insiders = insidersOf(
  [
    { name: 'pg1', host: '192.0.2.11' },
    { name: 'pg2', host: '2001:db8::12' },
    { name: 'pg3', host: 'pg3.example.net' },
  ],
  ['192.0.2.1', '192.0.2.1'],
)
const problems = (...access: Access) =>
  accessProblems(access, insiders).map(({ pointer, detail }) => `${pointer} ${detail}`)

t.test('addresses, ranges and names', async t => {
  for (const address of [
    '10.1.0.0/16',
    '10.1.2.3',
    '10.1.2.3/32',
    '0.0.0.0/0',
    '::/0',
    '::1',
    '2001:db8::/32',
    '2001:DB8::1/128',
    'app1',
    'app1.example.net',
    'App-1.example.net',
    'all',
    '1app.example',
  ]) {
    t.strictSame(problems({ address }), [], address)
  }
  for (const [address, why] of [
    ['10.1.2.3/16', /Write 10\.1\.0\.0\/16 for the range, or 10\.1\.2\.3 for the one/],
    ['2001:db8::1/32', /Write 2001:db8::\/32/],
    ['10.1.0.0/33', /from 0 to 32/],
    ['::/129', /from 0 to 128/],
    ['10.1.0.0/', /from 0 to 32/],
    ['10.1.0.0/08', /from 0 to 32/],
    ['10.1.0.0/8/9', /from 0 to 32/],
    ['10.1', /neither a whole address nor a host name/],
    ['10', /neither/],
    ['0x7f.1', /neither/],
    ['app.0x7f', /neither/],
    ['256.1.1.1', /neither/],
    ['010.1.1.1', /neither/],
    ['app/24', /no address before the slash/],
    ['fe80::1:', /no IPv6 address/],
    [':', /no IPv6 address/],
    ['app..net', /no host name/],
    ['app-', /no host name/],
    ['::ffff:10.0.0.1', /comes from 10\.0\.0\.1/],
    ['::ffff:10.0.0.0/104', /comes from/],
  ] as const) {
    t.match(problems({ address }), [new RegExp(`^/access/0/address .*${why.source}`)], address)
  }
})

t.test('whatever the schema lets through is a place or is refused, and never throws', async () => {
  fc.assert(
    fc.property(fc.stringMatching(new RegExp(ADDRESS_PATTERN)), address => {
      placeOf(address)
    }),
    { numRuns: 5000 },
  )
})

t.test('names, and what goes together', async t => {
  t.strictSame(problems({ address: '10.0.0.1', databases: ['ä'.repeat(31)], users: ['x'.repeat(63)] }), [])
  t.match(problems({ address: '10.0.0.1', databases: ['a', 'ä'.repeat(32)], users: ['\ud800', 'a\nb', '/regex'] }), [
    /^\/access\/0\/databases\/1 .*63 bytes/,
    /^\/access\/0\/users\/0 /,
    /^\/access\/0\/users\/1 A control character/,
    /^\/access\/0\/users\/2 .*regular expression/,
  ])
  t.match(problems({ address: '10.0.0.1' }, { address: '10.0.0.1', replication: true, databases: ['a'] }), [
    /^\/access\/1\/databases A replication connection has no database/,
  ])
})

t.test('how many there may be', async t => {
  const names = Array.from({ length: 25 }, (_, index) => `db${index}`)
  t.strictSame(problems({ address: '10.0.0.1', databases: names.slice(1), users: names.slice(1) }), [])
  t.match(problems({ address: '10.0.0.1', databases: names }), [/^\/access\/0\/databases More than 24/])
  const entries = Array.from({ length: 101 }, () => ({ address: '10.0.0.1' }))
  t.strictSame(problems(...entries.slice(1)), [])
  t.match(problems(...entries), [/^\/access There are more than 100/])
})

t.test('who must come in is not locked out', async t => {
  const reject = (address: string, rest: Partial<Access[number]> = {}) =>
    problems({ address, method: 'reject', ...rest }).join()
  t.match(reject('192.0.2.0/24'), /^\/access\/0 .*pg1 \(192\.0\.2\.11\), this service \(192\.0\.2\.1\)/)
  t.match(reject('192.0.2.11'), /pg1/)
  t.match(reject('0.0.0.0/0'), /pg1/)
  t.notMatch(reject('0.0.0.0/0'), /pg2/)
  t.match(reject('::/0'), /pg2/)
  t.match(reject('PG3.example.net'), /pg3/)
  t.match(reject('192.0.2.11', { users: ['app', 'repmgr'] }), /pg1/)
  t.match(reject('192.0.2.11', { databases: ['repmgr'] }), /pg1/)
  t.match(reject('192.0.2.11', { replication: true }), /pg1/)
  for (const harmless of [
    reject('192.0.2.12'),
    reject('198.51.100.0/24'),
    reject('192.0.2.0/24', { users: ['app'] }),
    reject('192.0.2.0/24', { databases: ['orders'] }),
    reject('192.0.2.0/24', { users: ['app'], replication: true }),
    reject('pg4.example.net'),
    problems({ address: '0.0.0.0/0' }).join(),
  ]) {
    t.equal(harmless, '')
  }
  t.match(
    accessProblems([{ address: '10.9.1.0/24', method: 'reject' }], insidersOf([], ['10.9.0.0/16'])),
    [{ pointer: '/access/0' }],
    'a part of a range from which this service may come',
  )
})
