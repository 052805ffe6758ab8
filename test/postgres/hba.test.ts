import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import fc from 'fast-check'
import t from 'tap'
import { type Credentials, withServer } from '../../src/postgres/connect.js'
import { managedBlock } from '../../src/postgres/hba.js'
import { withManagedBlock, withoutManagedBlock } from '../../src/postgres/managed-block.js'
import { scramVerifier } from '../../src/postgres/scram.js'
import { makeRepmgrRole, startPostgres } from '../fixtures/postgres.js'

const address = fc.oneof(fc.ipV4(), fc.ipV6(), fc.domain())
const access = fc.record({
  nodes: fc.array(address, { maxLength: 5 }),
  controllers: fc.array(address, { maxLength: 3 }),
})
const line = fc.oneof(
  fc.constantFrom('', '# a comment', 'local all all peer', 'host all all 0.0.0.0/0 reject', '\thost  a b c', 'x\r'),
  fc.string({ unit: 'grapheme' }).map(text => text.replaceAll('\n', ' ')),
)
const file = fc
  .tuple(fc.array(line, { maxLength: 8 }), fc.boolean())
  .map(([lines, ends]) => lines.join('\n') + (ends ? '\n' : ''))

t.test('one line an address and database, sorted, each once, and none without SCRAM', async t => {
  const block = managedBlock({
    nodes: ['10.0.0.2', '2001:db8::1', 'db1.example', '10.0.0.2'],
    controllers: ['192.0.2.1', '192.0.2.1'],
  })
  t.strictSame(
    block.split('\n').map(line => line.replace(/ +/g, ' ')),
    [
      '# BEGIN understudy (managed: what is changed in here is overwritten)',
      'local all postgres peer',
      'host repmgr repmgr 10.0.0.2/32 scram-sha-256',
      'host replication repmgr 10.0.0.2/32 scram-sha-256',
      'host repmgr repmgr 2001:db8::1/128 scram-sha-256',
      'host replication repmgr 2001:db8::1/128 scram-sha-256',
      'host repmgr repmgr db1.example scram-sha-256',
      'host replication repmgr db1.example scram-sha-256',
      'host repmgr repmgr 192.0.2.1/32 scram-sha-256',
      '# END understudy',
      '',
    ],
  )
  t.equal(
    managedBlock({ nodes: ['b', 'a'], controllers: [] }),
    managedBlock({ nodes: ['a', 'b', 'a'], controllers: [] }),
    'the order in which nodes were described makes no difference',
  )
})

t.test('a host that is called like a keyword is a host', async t => {
  for (const name of ['all', 'samehost', 'samenet', 'ALL']) {
    t.match(managedBlock({ nodes: [name], controllers: [name] }), new RegExp(`repmgr +"${name}" `))
    t.notMatch(managedBlock({ nodes: [name], controllers: [name] }), new RegExp(`repmgr +${name} `))
  }
})

t.test('first in the file, the rest as it was, and twice is once', async () => {
  fc.assert(
    fc.property(file, access, access, (existing, before, now) => {
      const [old, block] = [managedBlock(before), managedBlock(now)]
      const once = withManagedBlock(existing, block)
      const rest = existing.replace(/^\n+/, '')
      if (once !== (rest === '' ? block : `${block}\n${rest}`)) throw new Error('the rest was touched')
      if (withManagedBlock(once, block) !== once) throw new Error('twice is not once')
      if (withManagedBlock(withManagedBlock(existing, old), block) !== once)
        throw new Error('the old block has left something')
      if (withoutManagedBlock(once).replace(/^\n+/, '') !== rest)
        throw new Error('removing it does not bring the rest back')
    }),
    { numRuns: 3000 },
  )
})

t.test('a block that somebody has moved down comes first again', async t => {
  const block = managedBlock({ nodes: ['10.0.0.1'], controllers: [] })
  const moved = `local all all peer\n${block}host all all all reject\n`
  t.equal(withManagedBlock(moved, block), `${block}\nlocal all all peer\nhost all all all reject\n`)
  t.equal(withoutManagedBlock(moved), 'local all all peer\nhost all all all reject\n')
})

t.test('half a block is not taken for one', async t => {
  const [begin = ''] = managedBlock({ nodes: [], controllers: [] }).split('\n')
  for (const text of [`${begin}\nhost a b c md5\n`, '# END understudy\nhost a b c md5\n', '', 'host a b c md5']) {
    t.equal(withoutManagedBlock(text), text)
  }
})

t.test('a real server accepts it, and lets in who is meant and nobody else', async t => {
  const server = await startPostgres(t)
  // Under the block the socket is for the postgres user alone; the tests look in as this one.
  await server.query('CREATE ROLE observer LOGIN SUPERUSER')
  await makeRepmgrRole(server, scramVerifier('right'))
  const path = join(server.dataDirectory, 'pg_hba.conf')
  const packaged = await readFile(path, 'utf8')
  const ask = (sql: string) => server.query(sql, [], { user: 'observer' })
  const use = async (nodes: string[], rest = packaged) => {
    await writeFile(path, withManagedBlock(rest, managedBlock({ nodes, controllers: ['192.0.2.7', 'ctl.example'] })))
    t.strictSame(await ask('SELECT line_number, error FROM pg_hba_file_rules WHERE error IS NOT NULL'), [])
    await ask('SELECT pg_reload_conf()')
  }
  const login = (change: Partial<Credentials> = {}) =>
    withServer(
      server,
      { user: 'repmgr', password: 'right', database: 'repmgr', ...change },
      { timeoutMs: 5000 },
      async query => (await query('SELECT current_user AS me'))[0]?.me,
    ).catch((error: { reason?: string }) => error.reason)
  /** A reload takes a moment to be in force, and nothing announces it. */
  const eventuallyLogin = async (wanted: string, change?: Partial<Credentials>) => {
    let got = await login(change)
    for (const end = performance.now() + 5000; got !== wanted && performance.now() < end; ) got = await login(change)
    return got
  }

  const strangersOut = 'local all observer trust\nhost all all 0.0.0.0/0 reject\n'
  await use(['127.0.0.1', '2001:db8::5', 'db1.example', 'all'], strangersOut)
  t.equal(await eventuallyLogin('repmgr'), 'repmgr')
  t.equal(await login({ password: 'wrong' }), 'authentication')
  t.equal(await eventuallyLogin('authentication', { database: 'postgres' }), 'authentication', 'its own database alone')
  const rules = await ask(
    `SELECT address, netmask, database::text, user_name::text AS "user", auth_method AS method FROM pg_hba_file_rules
      WHERE line_number <= 13 AND type = 'host' ORDER BY line_number`,
  )
  t.match(rules, [
    {
      address: '127.0.0.1',
      netmask: '255.255.255.255',
      database: '{repmgr}',
      user: '{repmgr}',
      method: 'scram-sha-256',
    },
    { address: '127.0.0.1', database: '{replication}' },
    { address: '2001:db8::5', netmask: 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff', database: '{repmgr}' },
    { database: '{replication}' },
    { address: 'all', netmask: null, database: '{repmgr}' },
    { address: 'all', database: '{replication}' },
    { address: 'db1.example', netmask: null },
    { address: 'db1.example' },
    { address: '192.0.2.7', database: '{repmgr}' },
    { address: 'ctl.example', database: '{repmgr}' },
  ])

  await use(['10.0.0.1', 'all'], strangersOut)
  t.equal(await eventuallyLogin('authentication'), 'authentication', 'a host named "all" is not everybody')
})
