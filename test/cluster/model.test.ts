import { Ajv } from 'ajv'
import addFormats from 'ajv-formats'
import fc from 'fast-check'
import t from 'tap'
import {
  Cluster,
  ClusterName,
  ClusterSpec,
  describes,
  HostKey,
  HostName,
  inconsistencies,
  NodeName,
  type NodeSpec,
  newCluster,
  newNode,
} from '../../src/cluster/model.js'

const ajv = new Ajv({ allErrors: true, strict: false })
addFormats.default(ajv)

const HOST_KEY = 'SHA256:kL4Sd0mNsCXzAVEoGUfOTlZeIkoQbBFNrHqJCrW9yZQ'
const NOW = '2026-03-01T12:00:00.000Z'
const node = (name: string, host = `${name}.example`, ssh: Partial<NodeSpec['ssh']> = {}): NodeSpec => ({
  name,
  host,
  ssh: { user: 'admin', hostKey: HOST_KEY, ...ssh },
})
const spec: ClusterSpec = { name: 'orders', postgresVersion: 15, nodes: [node('pg1'), node('pg2'), node('pg3')] }

t.test('names that are accepted, and names that are not', async t => {
  const table: [string, object, string[], string[]][] = [
    [
      'cluster',
      ClusterName,
      ['ab', 'orders', 'a1', 'eu-west-1', 'a-b', 'a--b', 'x'.repeat(40)],
      ['', 'a', 'A1', '1a', '-a', 'a-', 'a_b', 'a.b', 'a b', 'a/b', '../x', 'é1', 'a\n', 'ab\n', 'x'.repeat(41)],
    ],
    [
      'node',
      NodeName,
      ['pg1', 'pg', 'primary1', 'my-primary', 'standby-2', 'x'.repeat(63)],
      [
        'primary',
        'standby',
        'witness',
        'master',
        'slave',
        'replica',
        'p',
        'PG1',
        '1pg',
        'pg1-',
        "pg'1",
        'x'.repeat(64),
      ],
    ],
    [
      'host',
      HostName,
      ['192.0.2.11', 'db1', 'db1.example.com', '2001:db8::11', 'DB1', 'a'],
      ['', '-db', 'db-', 'db 1', 'db1;reboot', 'db1\n', '$(x)', 'user@db', 'db/1', "d'b", `${'x'.repeat(254)}`],
    ],
    [
      'host key',
      HostKey,
      [HOST_KEY, `SHA256:${'A'.repeat(43)}`],
      ['', 'MD5:aa:bb', HOST_KEY.slice(0, -1), `${HOST_KEY}=`, HOST_KEY.toLowerCase(), ` ${HOST_KEY}`, `${HOST_KEY}\n`],
    ],
  ]
  for (const [what, schema, accepted, refused] of table) {
    const validate = ajv.compile(schema)
    for (const name of accepted) t.equal(validate(name), true, `${what} ${JSON.stringify(name)} is accepted`)
    for (const name of refused) t.equal(validate(name), false, `${what} ${JSON.stringify(name)} is refused`)
  }
})

t.test('no name that is accepted means anything to a shell, a file system or a connection string', async t => {
  for (const schema of [ClusterName, NodeName]) {
    const validate = ajv.compile(schema)
    fc.assert(
      fc.property(fc.string({ minLength: 1, maxLength: 70 }), name => !validate(name) || /^[a-z0-9-]+$/.test(name)),
      { numRuns: 5000 },
    )
    fc.assert(
      fc.property(fc.stringMatching(/^[a-z][a-z0-9-]{0,20}[a-z0-9]$/), name => validate(name) || /^[a-z]+$/.test(name)),
      { numRuns: 5000 },
    )
  }
  t.pass()
})

t.test('a description with anything unknown or missing in it is refused', async t => {
  const validate = ajv.compile(ClusterSpec)
  t.ok(validate(spec))
  t.ok(validate({ ...spec, port: 6000 }))
  const wrong: [string, unknown][] = [
    ['unknown field', { ...spec, nodez: [] }],
    ['unknown field of a node', { ...spec, nodes: [{ ...node('pg1'), role: 'primary' }] }],
    ['unknown field of ssh', { ...spec, nodes: [node('pg1', 'h', { password: 'x' } as never)] }],
    ['no nodes', { ...spec, nodes: [] }],
    ['17 nodes', { ...spec, nodes: Array.from({ length: 17 }, (_, index) => node(`pg${index}`)) }],
    ['version as text', { ...spec, postgresVersion: '15' }],
    ['version without repmgr', { ...spec, postgresVersion: 12 }],
    ['port of the system', { ...spec, port: 80 }],
    ['port too large', { ...spec, port: 65536 }],
    ['login user with a space', { ...spec, nodes: [node('pg1', 'h', { user: 'a b' })] }],
    ['login user that is an option', { ...spec, nodes: [node('pg1', 'h', { user: '-oProxyCommand=x' })] }],
    ['no name', { postgresVersion: 15, nodes: spec.nodes }],
  ]
  for (const [what, value] of wrong) t.notOk(validate(value), what)
})

t.test('a new cluster numbers its nodes, and is as its schema says', async t => {
  const cluster = newCluster(spec, NOW)
  t.ok(ajv.validate(Cluster, cluster), ajv.errorsText())
  t.strictSame(
    cluster.nodes.map(({ name, nodeId }) => [name, nodeId]),
    [
      ['pg1', 1],
      ['pg2', 2],
      ['pg3', 3],
    ],
  )
  t.match(cluster, { name: 'orders', port: 5432, nextNodeId: 4, createdAt: NOW, version: 1 })
  t.equal(cluster.nodes[0]?.ssh.port, 22)
  t.equal(newCluster({ ...spec, port: 6000 }, NOW).port, 6000)
  t.equal(newNode(node('pg1', 'h', { port: 2222 }), 7).ssh.port, 2222)
  const { hostKey: _, ...keyless } = node('pg1').ssh
  t.throws(() => newNode({ ...node('pg1'), ssh: keyless }, 1), /pg1 has no host key/)
})

t.test('names and hosts are had once', async t => {
  t.strictSame(inconsistencies(spec.nodes), [])
  t.match(inconsistencies([node('pg1'), node('pg2'), node('pg1', 'other')]), [
    { pointer: '/nodes/2/name', detail: /pg1 is also the name of nodes\[0\]/ },
  ])
  t.match(inconsistencies([node('pg1', '10.0.0.1'), node('pg2', '10.0.0.1', { port: 2222 })]), [
    { pointer: '/nodes/1/host', detail: /nodes\[0\]; one node a host/ },
  ])
  t.equal(inconsistencies([node('pg1', 'DB1.example'), node('pg2', 'db1.example')]).length, 1, 'DNS knows no case')
  t.strictSame(
    inconsistencies([node('pg1'), node('pg1')], '/add').map(({ pointer }) => pointer),
    ['/add/1/name', '/add/1/host'],
  )
})

t.test('repeating a description is recognised, and any difference in it', async t => {
  const cluster = newCluster(spec, NOW)
  const [first, second, third] = spec.nodes as [NodeSpec, NodeSpec, NodeSpec]
  t.ok(describes(spec, cluster))
  t.ok(describes({ ...spec, port: 5432 }, cluster), 'a default that is spelt out')
  t.ok(describes({ ...spec, nodes: [node('pg1', 'pg1.example', { port: 22 }), second, third] }, cluster))
  t.ok(
    describes(spec, {
      ...cluster,
      version: 9,
      builtAt: NOW,
      systemIdentifier: '1',
      nodes: cluster.nodes.map(one => ({ ...one, joinedAt: NOW })),
    }),
    'what operations have added is not part of it',
  )
  const others: [string, ClusterSpec][] = [
    ['version', { ...spec, postgresVersion: 16 }],
    ['port', { ...spec, port: 5433 }],
    ['one node less', { ...spec, nodes: [first, second] }],
    ['one node more', { ...spec, nodes: [...spec.nodes, node('pg4')] }],
    ['another node', { ...spec, nodes: [first, second, node('pg4')] }],
    ['another host', { ...spec, nodes: [node('pg1', 'elsewhere'), second, third] }],
    ['another user', { ...spec, nodes: [node('pg1', 'pg1.example', { user: 'root' }), second, third] }],
    ['another SSH port', { ...spec, nodes: [node('pg1', 'pg1.example', { port: 2222 }), second, third] }],
    [
      'another key',
      { ...spec, nodes: [node('pg1', 'pg1.example', { hostKey: `SHA256:${'B'.repeat(43)}` }), second, third] },
    ],
  ]
  for (const [what, other] of others) t.notOk(describes(other, cluster), what)
})
