/** Whom a node comes back to: never a guess. Nothing is connected to. */
import t from 'tap'
import { currentPrimary } from '../../jobs/current-primary.js'
import { nodeNamed } from '../../jobs/refusals.js'
import { rejoinNode } from '../../jobs/rejoin-node.js'
import { stepsOf } from '../../src/operations/step.js'
import { bare, benchOf, type Found, primary, standby, stopped } from './fixtures/bench.js'

const at = (found: Found, timeline: number): Found => ({ ...found, timeline })

const table: [string, Record<string, Found>, string | RegExp, string[]?][] = [
  ['a stopped old primary', { pg1: at(stopped(primary), 1), pg2: at(primary, 2) }, 'pg2'],
  ['an old primary that still accepts writes', { pg1: at(primary, 1), pg2: at(primary, 2) }, 'pg2'],
  ['a standby', { pg1: at(standby, 2), pg2: at(primary, 2) }, 'pg2'],
  ['a bare host', { pg1: bare, pg2: at(primary, 2) }, 'pg2'],
  ['while another standby is away', { pg1: at(stopped(primary), 1), pg2: at(primary, 2) }, 'pg2', ['pg3']],
  ['both on one timeline', { pg1: at(primary, 2), pg2: at(primary, 2) }, /^primary-unclear: .*same timeline 2/],
  ['it is the primary itself', { pg1: at(primary, 2), pg2: at(standby, 2) }, /^node-is-primary: pg1/],
  ['it is the newer one', { pg1: at(primary, 3), pg2: at(primary, 2) }, /^node-is-primary: pg1/],
  [
    'nobody accepts writes',
    { pg1: at(stopped(primary), 1), pg2: at(standby, 1) },
    /^primary-unclear: No node that answers accepts writes/,
  ],
  [
    'the primary is away',
    { pg1: at(stopped(primary), 1) },
    /^primary-unclear: No node .* pg2 does not answer/,
    ['pg2'],
  ],
  [
    'it has seen a newer primary',
    { pg1: at(standby, 3), pg2: at(primary, 2) },
    /^primary-unclear: .*pg1 has seen timeline 3/,
  ],
  [
    'another one has seen a newer primary',
    { pg1: at(stopped(primary), 1), pg2: at(primary, 2), pg3: at(standby, 3) },
    /^primary-unclear: .*pg3 has seen timeline 3/,
  ],
  [
    'a third one accepts writes too',
    { pg1: at(stopped(primary), 1), pg2: at(primary, 3), pg3: at(primary, 2) },
    /^primary-unclear: pg3 accepts writes too.*nodes\/pg3\/rejoin/,
  ],
  [
    'a primary of another database does not count',
    { pg1: at(stopped(primary), 1), pg2: { ...at(primary, 9), systemIdentifier: '1' } },
    /^primary-unclear: No node/,
  ],
]
for (const [title, found, expected, absent = []] of table) {
  t.test(title, async t => {
    const bench = benchOf(found, { absent, built: true })
    let said: string
    try {
      said = currentPrimary(bench, nodeNamed(bench, 'pg1')).name
    } catch (error) {
      const { code, message, remedy } = error as { code: string; message: string; remedy: string }
      said = `${code}: ${message} ${remedy}`
    }
    if (typeof expected === 'string') t.equal(said, expected)
    else t.match(said, expected)
  })
}

t.test('the mark of a standby is on its disk before it is told to stop, and no boot starts it in between', async t => {
  const bench = benchOf({ pg1: at(primary, 1), pg2: at(primary, 2) }, { absent: [], built: true })
  const ids = stepsOf(rejoinNode.plan(bench, { node: 'pg1', confirm: 'pg1' })).map(({ id }) => id)
  const order = [
    'standby-signal',
    'hold',
    'stop',
    'recovery',
    'loss',
    'rewind',
    'give-up-copy',
    'clone',
    'source',
    'start',
  ]
  t.same(
    ids.filter(id => id.startsWith('pg1/')).slice(0, order.length),
    order.map(step => `pg1/${step}`),
  )
  t.equal(new Set(ids).size, ids.length, 'each step has its own id')
})
