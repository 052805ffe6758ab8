import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import fc from 'fast-check'
import pg from 'pg'
import t from 'tap'
import { type AccessEntry, accessProblems } from '../../src/cluster/access.js'
import { type Credentials, withServer } from '../../src/postgres/connect.js'
import { managedBlock } from '../../src/postgres/hba.js'
import { withManagedBlock, withoutManagedBlock } from '../../src/postgres/managed-block.js'
import { scramVerifier } from '../../src/postgres/scram.js'
import { makeRepmgrRole, startPostgres } from '../fixtures/postgres.js'
import { eventually } from '../fixtures/redis.js'

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

/** Names as people and machines make them, and the worst that they could be. */
const role = fc
  .oneof(
    fc.constantFrom('app', 'all', 'replication', 'sameuser', 'samerole', 'samegroup', '+admins', '@file', 'x y', 'a,b'),
    fc.constantFrom('"', '""', '#no', "o'clock", '\\', 'end\\', ' ', 'Ünï', '日本', 'ALL', 'x/y', '$x', '0', ','),
    fc.string({ unit: 'grapheme', minLength: 1, maxLength: 12 }),
    fc.stringMatching(/^[a-z_][a-z0-9_]{0,62}$/),
  )
  // biome-ignore lint/suspicious/noControlCharactersInRegex: the schema refuses these
  .filter(text => !/^\/|[\u0000-\u001f\u007f]|\p{Surrogate}/u.test(text) && Buffer.byteLength(text) <= 63)
const roles = fc.uniqueArray(role, { minLength: 1, maxLength: 4 })
const v4 = fc.tuple(fc.ipV4(), fc.nat(32)).map(([address, bits]) => {
  const number = address.split('.').reduce((sum, byte) => sum * 256n + BigInt(byte), 0n)
  const net = (number >> BigInt(32 - bits)) << BigInt(32 - bits)
  return `${[24n, 16n, 8n, 0n].map(shift => (net >> shift) & 255n).join('.')}/${bits}`
})
const places = fc.oneof(
  v4,
  fc.ipV4(),
  fc.constantFrom('::/0', '2001:db8::/32', '::1', 'fe80::/10'),
  fc.domain(),
  fc.constantFrom('all', 'samenet'),
)
const entry: fc.Arbitrary<AccessEntry> = fc.record(
  {
    address: places,
    databases: roles,
    users: roles,
    method: fc.constantFrom('scram-sha-256' as const, 'reject' as const),
  },
  { requiredKeys: ['address'] },
)

t.test('thousands of entries are read by a real server as they were meant', async t => {
  const server = await startPostgres(t)
  const replication = entry.map(({ databases: _, ...rest }): AccessEntry => ({ ...rest, replication: true }))
  const entries = fc.sample(fc.oneof(entry, replication), 4000)
  const meant = entries.filter(one => accessProblems([one], []).length === 0)
  t.ok(meant.length > 3000, 'hardly any of them is refused')
  await writeFile(
    join(server.dataDirectory, 'pg_hba.conf'),
    managedBlock({ nodes: [], controllers: [], applications: meant }),
  )
  const rules = await server.query(
    `SELECT type, database, user_name, address, auth_method, error, line_number,
            CASE WHEN netmask IS NOT NULL THEN text(inet_merge(address::inet, (address::inet | ~netmask::inet))) END AS range
       FROM pg_hba_file_rules WHERE line_number > 2 ORDER BY line_number`,
  )
  t.equal(rules.length, meant.length)
  const wrong = meant.filter((one, index) => {
    const { line_number: _, range, ...rule } = rules[index] ?? {}
    const name = range === null
    const read = { ...rule, address: name ? rule.address : range }
    const normal = (text: string) => (text.includes('/') ? text : `${text}/${text.includes(':') ? 128 : 32}`)
    return !isDeepStrictEqual(read, {
      type: 'host',
      database: one.replication ? ['replication'] : (one.databases ?? ['all']),
      user_name: one.users ?? ['all'],
      address: name ? one.address : normal(one.address),
      auth_method: one.method ?? 'scram-sha-256',
      error: null,
    })
  })
  t.strictSame(wrong.slice(0, 3), [])
})

t.test('a name that is a keyword is a name: it lets in whom it names, and nobody else', async t => {
  const server = await startPostgres(t)
  await server.query('CREATE ROLE observer LOGIN SUPERUSER')
  const names = ['all', 'sameuser', 'replication', '+app', 'app', 'a "b", #c', '日本']
  for (const one of names) {
    await server.query(`CREATE ROLE ${pg.escapeIdentifier(one)} LOGIN PASSWORD '${scramVerifier('right')}'`)
    await server.query(`CREATE DATABASE ${pg.escapeIdentifier(one)}`)
  }
  const enters = (user: string, database: string) =>
    withServer(server, { user, password: 'right', database }, { timeoutMs: 5000 }, async query =>
      query('SELECT 1'),
    ).then(
      () => true,
      () => false,
    )
  const path = join(server.dataDirectory, 'pg_hba.conf')
  for (const one of names) {
    const applications = [{ address: '127.0.0.1', users: [one], databases: [one] }]
    await writeFile(path, `${managedBlock({ nodes: [], controllers: [], applications })}local all observer trust\n`)
    const read = async (): Promise<unknown> =>
      (await server.query('SELECT pg_conf_load_time()::text AS at', [], { user: 'observer' }))[0]?.at
    const before = await read()
    await server.query('SELECT pg_reload_conf()', [], { user: 'observer' })
    await eventually(async () => (await read()) !== before)
    for (const other of names) {
      t.equal(await enters(other, one), other === one, `${other} to ${one}`)
      t.equal(await enters(one, other), other === one, `${one} to ${other}`)
    }
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
