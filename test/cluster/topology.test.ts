import fc from 'fast-check'
import t from 'tap'
import {
  dataNodes,
  misplacements,
  type Placed,
  priorityOf,
  standbysByDepth,
  upstreamOf,
  witnesses,
} from '../../src/cluster/topology.js'

const node = (name: string, change: Partial<Placed> = {}): Placed => ({ name, ...change })
const pg1 = node('pg1')

t.test('shapes that are accepted, and shapes that are refused, each with its place', async t => {
  const table: [string, Placed[], Record<string, RegExp>][] = [
    ['one node alone', [pg1], {}],
    ['standbys of the primary', [pg1, node('pg2'), node('pg3')], {}],
    ['a standby of a standby', [pg1, node('pg2'), node('pg3', { upstream: 'pg2' })], {}],
    ['described before the one that it streams from', [pg1, node('pg2', { upstream: 'pg3' }), node('pg3')], {}],
    ['three deep', [pg1, node('pg2'), node('pg3', { upstream: 'pg2' }), node('pg4', { upstream: 'pg3' })], {}],
    ['bound to the first node', [pg1, node('pg2', { upstream: 'pg1' })], {}],
    ['delayed', [pg1, node('pg2', { applyDelayMs: 3_600_000 })], {}],
    ['delayed, and to be promoted all the same', [pg1, node('pg2', { applyDelayMs: 1000, priority: 10 })], {}],
    ['a witness', [pg1, node('pg2'), node('eye', { kind: 'witness' })], {}],
    ['a witness with the priority that it has anyway', [pg1, node('eye', { kind: 'witness', priority: 0 })], {}],
    ['an upstream that is not there', [pg1, node('pg2', { upstream: 'pg9' })], { '/1/upstream': /no such node/ }],
    ['itself', [pg1, node('pg2', { upstream: 'pg2' })], { '/1/upstream': /pg2 cannot stream from itself/ }],
    [
      'a circle of two',
      [pg1, node('pg2', { upstream: 'pg3' }), node('pg3', { upstream: 'pg2' })],
      {
        '/1/upstream': /pg2 streams from pg3 streams from pg2: a circle/,
        '/2/upstream': /pg3 streams from pg2 streams from pg3/,
      },
    ],
    [
      'a circle, and one that hangs on it: told of at its members',
      [pg1, node('pg2', { upstream: 'pg3' }), node('pg3', { upstream: 'pg4' }), node('pg4', { upstream: 'pg3' })],
      { '/2/upstream': /circle/, '/3/upstream': /circle/ },
    ],
    [
      'the first node streams from another',
      [node('pg1', { upstream: 'pg2' }), node('pg2')],
      { '/0/upstream': /becomes the primary; a primary has no upstream/ },
    ],
    [
      'the first node is delayed',
      [node('pg1', { applyDelayMs: 1 }), node('pg2')],
      { '/0/applyDelayMs': /only a standby can be delayed/ },
    ],
    ['the first is a witness', [node('eye', { kind: 'witness' }), pg1], { '/0/kind': /holds no data/ }],
    [
      'two witnesses',
      [pg1, node('eye', { kind: 'witness' }), node('ear', { kind: 'witness' })],
      { '/2/kind': /eye is the witness already/ },
    ],
    [
      'a witness with what only standbys have',
      [pg1, node('eye', { kind: 'witness', upstream: 'pg1', applyDelayMs: 5, priority: 100 })],
      { '/1/upstream': /streams from nobody/, '/1/applyDelayMs': /applies nothing/, '/1/priority': /never promoted/ },
    ],
    [
      'a standby of a witness',
      [pg1, node('eye', { kind: 'witness' }), node('pg2', { upstream: 'eye' })],
      { '/2/upstream': /a witness and has no data/ },
    ],
    [
      'a standby of a delayed one',
      [pg1, node('pg2', { applyDelayMs: 1000 }), node('pg3', { upstream: 'pg2' })],
      { '/2/upstream': /which is delayed; take the node that pg2 itself streams from/ },
    ],
  ]
  for (const [what, nodes, wanted] of table) {
    const found = misplacements(nodes, '')
    t.strictSame(
      found.map(({ pointer }) => pointer),
      Object.keys(wanted),
      what,
    )
    for (const { pointer, detail } of found) t.match(detail, wanted[pointer], what)
  }
  t.equal(misplacements([pg1, node('pg2', { upstream: 'x9' })], '/nodes')[0]?.pointer, '/nodes/1/upstream')
})

t.test('who streams from whom', async t => {
  const nodes = [pg1, node('pg2'), node('pg3', { upstream: 'pg2' }), node('eye', { kind: 'witness' })]
  const [, pg2, pg3] = nodes as [Placed, Placed, Placed]
  t.equal(upstreamOf(pg2, nodes, pg1), pg1, 'nothing said: the primary')
  t.equal(upstreamOf(pg3, nodes, pg1), pg2)
  t.equal(upstreamOf(pg1, nodes, pg2), pg2, 'the old primary follows the new one')
  t.equal(upstreamOf(pg3, nodes, pg2), pg2)
  t.equal(upstreamOf(pg2, nodes, pg3), pg3, 'the one at the end was promoted')
  t.equal(upstreamOf(node('pg4', { upstream: 'gone' }), nodes, pg1), pg1, 'removed since: the primary')
  t.strictSame(
    standbysByDepth(nodes, pg1).map(level => level.map(({ name }) => name)),
    [['pg2'], ['pg3']],
  )
  t.strictSame(
    standbysByDepth(nodes, pg3).map(level => level.map(({ name }) => name)),
    [['pg1', 'pg2']],
  )
  t.strictSame(standbysByDepth([pg1], pg1), [])
  t.strictSame([dataNodes(nodes).length, witnesses(nodes).map(({ name }) => name)], [3, ['eye']])
})

t.test('whoever of an accepted shape is the primary, every other data node is below it once', async t => {
  const shape = fc
    .array(fc.option(fc.nat(6), { nil: undefined }), { minLength: 1, maxLength: 7 })
    .map(upstreams =>
      upstreams.map((at, index) => node(`pg${index}`, at === undefined || index === 0 ? {} : { upstream: `pg${at}` })),
    )
  fc.assert(
    fc.property(shape, fc.nat(6), (nodes, at) => {
      const primary = nodes[at % nodes.length]
      if (!primary || misplacements(nodes, '').length > 0) return
      const names = standbysByDepth(nodes, primary)
        .flat()
        .map(({ name }) => name)
      const wanted = nodes.filter(other => other !== primary).map(({ name }) => name)
      t.strictSame(names.sort(), wanted.sort()) || t.bailout('see above')
    }),
    { numRuns: 500 },
  )
})

t.test('who may be promoted', async t => {
  const table: [Partial<Placed>, number][] = [
    [{}, 100],
    [{ priority: 7 }, 7],
    [{ priority: 0 }, 0],
    [{ applyDelayMs: 1 }, 0],
    [{ applyDelayMs: 1, priority: 50 }, 50],
    [{ kind: 'witness' }, 0],
  ]
  for (const [placed, priority] of table) t.equal(priorityOf(node('pg2', placed)), priority, JSON.stringify(placed))
})
