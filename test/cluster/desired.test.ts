import t from 'tap'
import { compareDesired, withDescription } from '../../src/cluster/desired.js'
import { type ClusterSpec, newCluster } from '../../src/cluster/model.js'

const hostKey = 'SHA256:kL4Sd0mNsCXzAVEoGUfOTlZeIkoQbBFNrHqJCrW9yZQ'
const otherKey = 'SHA256:Zp1yq3m0WqUuG2qk5tS4y7nRr1dXb9c8VfHj6LwTaMs'
const node = (name: string, host: string) => ({ name, host, ssh: { user: 'admin', hostKey } })
const spec: ClusterSpec = {
  name: 'orders',
  postgresVersion: 15,
  nodes: [node('pg1', '192.0.2.11'), node('pg2', '192.0.2.12')],
}
const cluster = {
  ...newCluster(spec, '2026-11-23T07:00:00.000Z'),
  systemIdentifier: '7',
  builtAt: '2026-11-23T07:01:00.000Z',
  controllers: ['192.0.2.1'],
}
const joined = {
  ...cluster,
  nodes: cluster.nodes.map(each => ({ ...each, joinedAt: '2026-11-23T07:01:00.000Z' })),
}

t.test('the same description differs in nothing and makes the same record', async t => {
  t.same(compareDesired(spec, joined), { differences: [], refused: [] })
  t.same(withDescription(joined, spec), joined)
})

t.test('a new node gets the next number; what is known keeps its number and its history', async t => {
  const wanted = { ...spec, nodes: [node('pg3', '192.0.2.13'), ...spec.nodes] }
  const { differences, refused } = compareDesired(wanted, joined)
  t.same(
    differences.map(({ pointer }) => pointer),
    ['/nodes/0'],
  )
  t.same(refused, [])
  const next = withDescription(joined, wanted)
  t.same(
    next.nodes.map(({ name, nodeId, joinedAt }) => [name, nodeId, joinedAt !== undefined]),
    [
      ['pg3', 3, false],
      ['pg1', 1, true],
      ['pg2', 2, true],
    ],
  )
  t.equal(next.nextNodeId, 4)
  t.equal(next.systemIdentifier, '7')
  t.same(next.controllers, ['192.0.2.1'])
})

t.test('how to log in is changed in place, and a host key that is not said stays', async t => {
  const wanted: ClusterSpec = {
    ...spec,
    nodes: [
      { name: 'pg1', host: '192.0.2.11', ssh: { user: 'root', port: 2222 } },
      { name: 'pg2', host: '192.0.2.12', ssh: { user: 'admin', hostKey: otherKey } },
    ],
  }
  const { differences, refused } = compareDesired(wanted, joined)
  t.same(
    differences.map(({ pointer }) => pointer),
    ['/nodes/0/ssh/user', '/nodes/0/ssh/port', '/nodes/1/ssh/hostKey'],
  )
  t.same(refused, [])
  t.same(
    withDescription(joined, wanted).nodes.map(({ ssh }) => ssh),
    [
      { user: 'root', port: 2222, hostKey },
      { user: 'admin', port: 22, hostKey: otherKey },
    ],
  )
})

for (const [what, wanted, pointers] of [
  ['another name', { ...spec, name: 'other' }, ['/name']],
  ['another version', { ...spec, postgresVersion: 16 }, ['/postgresVersion']],
  ['another port', { ...spec, port: 5433 }, ['/port']],
  ['a node moved', { ...spec, nodes: [node('pg1', '192.0.2.99'), node('pg2', '192.0.2.12')] }, ['/nodes/0/host']],
  ['a node left out', { ...spec, nodes: [node('pg1', '192.0.2.11')] }, ['/nodes']],
] as const) {
  t.test(`${what} cannot be had by describing it`, async t => {
    t.same(
      compareDesired(wanted as ClusterSpec, joined).refused.map(({ pointer }) => pointer),
      pointers,
    )
  })
}

t.test('an adopted cluster keeps its archive and its settings until somebody says otherwise', async t => {
  const archive = { mode: 'command' as const, command: 'push %p', restoreCommand: '' }
  const adopted = {
    ...joined,
    nodes: joined.nodes.map(each => ({ ...each, adopted: true })),
    archive,
    settings: { max_connections: '150', work_mem: '64MB', jit: 'off' },
    adoptedSettings: ['max_connections', 'work_mem'],
  }
  const refused = (wanted: ClusterSpec, of = adopted) =>
    compareDesired(wanted, of).refused.map(({ pointer }) => pointer)
  t.same(refused(spec), ['/archive'])
  t.match(compareDesired(spec, adopted).refused[0]?.detail, /say \{"mode":"command","command":"push %p"/)
  const lossy = { ...adopted, archive: { ...archive, command: '/var/lib/postgresql/repmgr/ship_logs.sh' } }
  t.match(compareDesired(spec, lossy).refused[0]?.detail, /loses WAL: say \{"mode":"ship"\} .*, \{"mode":"none"\}/)
  t.same(refused({ ...spec, archive: { mode: 'none' } }), [], 'said is said')
  t.same(refused({ ...spec, archive: { mode: 'ship' } }), [])
  t.same(refused(spec, joined as never), [], 'there is nothing to lose')
  t.same(refused(spec, { ...adopted, nodes: joined.nodes } as never), [], 'of its own clusters the description is all')

  const plain = { ...spec, archive }
  t.same(withDescription(adopted, plain).settings, { max_connections: '150', work_mem: '64MB' })
  t.same(
    compareDesired(plain, adopted).differences.map(({ pointer }) => pointer),
    ['/settings'],
    'what was asked for later is taken out as ever',
  )
  const said = withDescription(adopted, { ...plain, settings: { work_mem: '8MB' } })
  t.same(said.settings, { max_connections: '150', work_mem: '8MB' })
  t.same(said.adoptedSettings, adopted.adoptedSettings)
  const taken = { ...adopted, settings: { work_mem: '64MB' } }
  t.same(withDescription(taken, plain).settings, { work_mem: '64MB' }, 'what PATCH took away does not come back')
})
