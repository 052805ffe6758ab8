import t from 'tap'
import {
  adoptedCluster,
  type ForeignCluster,
  objections,
  readConninfo,
  withDelay,
  withLogins,
} from '../../src/cluster/adoption.js'
import { archiveObjection } from '../../src/cluster/archive.js'
import { type FoundServer, foundArchive, foundOverrides } from '../../src/cluster/found-settings.js'
import { priorityOf } from '../../src/cluster/topology.js'

const hostKey = 'SHA256:kL4Sd0mNsCXzAVEoGUfOTlZeIkoQbBFNrHqJCrW9yZQ'
const row = (nodeId: number, name: string, type: string, conninfo = `host=${name} user=repmgr dbname=repmgr`) => ({
  nodeId,
  name,
  type,
  upstreamNodeId: type === 'standby' ? 1 : null,
  active: true,
  conninfo,
  priority: 100,
  configFile: '/etc/repmgr.conf',
})
const foreign: ForeignCluster = {
  postgresVersion: 15,
  port: 5432,
  systemIdentifier: '7',
  nodes: [row(1, 'db1', 'standby'), row(2, 'db2', 'primary'), row(7, 'db3', 'standby')],
  givenNodeId: 1,
}

for (const [text, wanted] of [
  ['', {}],
  ['host=a user=b', { host: 'a', user: 'b' }],
  ["  host = a   user='b c'", { host: 'a', user: 'b c' }],
  ["password='it\\'s \\\\ ok' dbname=x", { password: "it's \\ ok", dbname: 'x' }],
  ["host='' port=5433", { host: '', port: '5433' }],
  ['HOST=a', { host: 'a' }],
  ['host=a\\ b', { host: 'a b' }],
  ['postgresql://a/b', undefined],
  ['host', undefined],
  ["host='a", undefined],
] as const) {
  t.test(`conninfo ${JSON.stringify(text)}`, async t => {
    const read = readConninfo(text)
    t.same(read && Object.fromEntries(read), wanted)
  })
}

t.test('a cluster of the usual kind can be taken over', async t => {
  t.same(objections(foreign), [])
})

t.test('a witness is taken over as one', async t => {
  const eye = { ...row(9, 'eye', 'witness'), upstreamNodeId: 2, priority: 0 }
  const nodes = [...foreign.nodes, eye]
  t.same(objections({ ...foreign, nodes }), [])
  const second = [...nodes, { ...eye, nodeId: 10, name: 'eye2', conninfo: 'host=eye2 user=repmgr dbname=repmgr' }]
  t.match(objections({ ...foreign, nodes: second }), [/^eye2 \(node 10\) is a second witness/])
  const found = nodes.map(({ nodeId, name }) => ({ nodeId, name, host: name, ssh: { user: 'admin', hostKey } }))
  const { nodes: recorded } = adoptedCluster('orders', { ...foreign, nodes }, found, 'now')
  t.match(recorded.at(-1), { name: 'eye', kind: 'witness', adopted: true })
  t.notOk(recorded.at(-1)?.priority, 'a witness has none to be described')
  t.notOk(recorded.at(-1)?.upstream)
})

for (const [what, change, words] of [
  ['a name with capitals', { name: 'DB1' }, /name that this service does not take/],
  ['a name that is a role', { name: 'primary' }, /name that this service does not take/],
  ['a kind that is not known', { type: 'bdr' }, /is a bdr/],
  ['an inactive node', { active: false }, /inactive/],
  ['another role', { conninfo: 'host=db1 user=postgres dbname=repmgr' }, /role postgres/],
  ['another port', { conninfo: 'host=db1 user=repmgr dbname=repmgr port=5433' }, /port 5433/],
  ['no host', { conninfo: 'user=repmgr dbname=repmgr' }, /no host/],
  ['a URI', { conninfo: 'postgresql://db1/repmgr' }, /not of the form/],
  ['the host of a neighbour', { conninfo: 'host=db2 user=repmgr dbname=repmgr' }, /same host as/],
] as const) {
  t.test(`refused: ${what}`, async t => {
    const [first, ...others] = foreign.nodes
    t.match(objections({ ...foreign, nodes: [{ ...first, ...change } as never, ...others] }).join(' '), words)
  })
}

t.test('refused: no primary, or two', async t => {
  for (const type of ['standby', 'primary'])
    t.match(
      objections({ ...foreign, nodes: foreign.nodes.map(node => ({ ...node, type })) }).join(' '),
      /one active primary/,
    )
})

t.test('each node gets the login that is said of it, else the first one’s without its key', async t => {
  const found = withLogins(foreign, {
    name: 'orders',
    node: { host: '192.0.2.11', ssh: { user: 'admin', port: 2222, hostKey } },
    nodes: [{ name: 'db3', host: '192.0.2.13', ssh: { user: 'root' } }],
  })
  t.same(found, [
    { nodeId: 1, name: 'db1', host: '192.0.2.11', ssh: { user: 'admin', port: 2222, hostKey } },
    { nodeId: 2, name: 'db2', host: 'db2', ssh: { user: 'admin', port: 2222 } },
    { nodeId: 7, name: 'db3', host: '192.0.2.13', ssh: { user: 'root' } },
  ])
  t.throws(() => adoptedCluster('orders', foreign, found, 'now'), /no host key/)
  const record = adoptedCluster(
    'orders',
    foreign,
    found.map(node => ({ ...node, ssh: { ...node.ssh, hostKey } })),
    'now',
  )
  t.same(
    record.nodes.map(({ name, nodeId, ssh }) => [name, nodeId, ssh.port]),
    [
      ['db2', 2, 2222],
      ['db1', 1, 2222],
      ['db3', 7, 22],
    ],
  )
  t.equal(record.nextNodeId, 8)
  t.equal(record.builtAt, undefined)
})

const server = (files: Record<string, string>, archive: Record<string, string> = {}, node = 'db1'): FoundServer => ({
  node,
  files,
  applyDelayMs: 0,
  archive: {
    archive_mode: 'off',
    archive_command: '(disabled)',
    archive_library: '',
    archive_timeout: '0',
    ...archive,
  },
})
const push = { archive_mode: 'on', archive_command: 'push %p' }

t.test('what the primary was told by hand, where this service would write something else', async t => {
  const ours = [
    { name: 'listen_addresses', value: '*' },
    { name: 'shared_preload_libraries', value: 'repmgr' },
    { name: 'wal_level', value: 'replica' },
    { name: 'wal_log_hints', value: true },
    { name: 'max_connections', value: 40 },
    { name: 'shared_buffers', value: '64MB' },
    { name: 'work_mem', value: '4MB' },
    { name: 'archive_command', value: '/bin/true' },
  ]
  const cases: [Record<string, string>, Record<string, string>][] = [
    [{}, {}],
    [{ max_connections: '100', shared_buffers: '128MB' }, { max_connections: '100' }],
    [
      { shared_buffers: '4GB', work_mem: '64MB' },
      { shared_buffers: '4GB', work_mem: '64MB' },
    ],
    [{ shared_preload_libraries: 'repmgr' }, {}],
    [{ shared_preload_libraries: 'timescaledb, repmgr' }, { shared_preload_libraries: 'timescaledb, repmgr' }],
    [{ shared_preload_libraries: 'timescaledb' }, { shared_preload_libraries: 'repmgr,timescaledb' }],
    [{ shared_preload_libraries: '' }, {}],
    [{ wal_level: 'logical', wal_log_hints: 'on' }, { wal_level: 'logical' }],
    [{ wal_log_hints: 'off', listen_addresses: 'db1', archive_command: 'push %p' }, {}],
    [{ timezone: 'UTC' }, {}],
  ]
  for (const [files, wanted] of cases) t.same(foundOverrides(ours, { files }), wanted, JSON.stringify(files))
})

t.test('an archive that is there is described', async t => {
  t.same(foundArchive([server({})]), { reasons: [] })
  t.same(foundArchive([server({ archive_command: 'push %p', archive_mode: 'off' })]), { reasons: [] })
  t.same(foundArchive([server({ archive_mode: 'on', archive_command: '/bin/true' })]), { reasons: [] })
  t.same(foundArchive([server(push), server(push, {}, 'db2')]).archive, {
    mode: 'command',
    command: 'push %p',
    restoreCommand: '',
  })
  t.same(
    foundArchive([server({}, { ...push, archive_timeout: '60' }), server({ restore_command: 'get %f %p' }, {}, 'db2')])
      .archive,
    { mode: 'command', command: 'push %p', restoreCommand: 'get %f %p', timeoutSeconds: 60 },
    'a standby may be the one that knows the way back',
  )
})

t.test('an archive that loses WAL is recorded as it is, for it is there', async t => {
  // As the tutorial has it, letter by letter.
  const command = '/var/lib/postgresql/repmgr/ship_logs.sh'
  const said = { archive_mode: 'on', archive_command: command }
  const { archive, reasons } = foundArchive([server(said), server(said, {}, 'db2')])
  t.same(reasons, [])
  t.same(archive, { mode: 'command', command, restoreCommand: '' })
  t.match(archiveObjection(archive), /loses WAL: .*ship_logs\.sh", without %p and %f/)
  t.equal(archiveObjection(foundArchive([server(push)]).archive), undefined)
  t.same(foundArchive([server({ ...push, archive_command: 'cp pg_wal/%f /srv/%f' })]).archive?.mode, 'command')
  t.match(
    foundArchive([server({ ...said, restore_command: 'get %p' })]).reasons,
    [/^restore_command: .*%f/],
    'what else is wrong with it is still in the way',
  )
})

t.test('a standby that is behind on purpose', async t => {
  const found = foreign.nodes.map(({ nodeId, name }) => ({ nodeId, name, host: name, ssh: { user: 'admin', hostKey } }))
  const { nodes } = adoptedCluster('orders', foreign, found, 'now')
  const [primary, standby] = nodes
  if (!primary || !standby) throw new Error('no nodes')
  const delayed = withDelay(standby, 3_600_000)
  t.equal(delayed.applyDelayMs, 3_600_000)
  t.equal(priorityOf(delayed), 0, 'repmgr’s 100 was chosen by nobody')
  t.equal(priorityOf(withDelay({ ...standby, priority: 50 }, 1000)), 50, 'and 50 by somebody')
  t.same(withDelay(standby, 0), standby)
})

for (const [what, servers, words] of [
  [
    'a library',
    [server({}, { archive_mode: 'on', archive_library: 'basic_archive' })],
    /archive_library = basic_archive/,
  ],
  ['always', [server({ ...push, archive_mode: 'always' })], /archive_mode = always/],
  ['no command', [server({ archive_mode: 'on', archive_command: '' })], /its WAL waits/],
  ['no command, told by the server', [server({}, { archive_mode: 'on', archive_command: '' })], /its WAL waits/],
  ['two lines', [server({ ...push, archive_command: 'push %p\nand more' })], /more than one line/],
  ['a way back without a name', [server({ ...push, restore_command: 'get %p' })], /restore_command: .*%f/],
  [
    'two ways back',
    [server({ ...push, restore_command: 'get %f %p' }), server({ restore_command: 'fetch %f %p' }, {}, 'db2')],
    /different commands/,
  ],
  ['two commands', [server(push), server({ ...push, archive_command: 'put %p' }, {}, 'db2')], /db2 has another/],
  ['a standby alone', [server({}), server(push, {}, 'db2')], /db2 has another/],
] as const) {
  t.test(`refused as an archive: ${what}`, async t => {
    const { archive, reasons } = foundArchive(servers)
    t.equal(archive, undefined)
    t.match(reasons.join(' '), words)
  })
}
