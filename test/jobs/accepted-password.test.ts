import t from 'tap'
import { accepts } from '../../jobs/accepted-password.js'
import { benchOf, primary, standby, stopped } from './fixtures/bench.js'

type Answer = boolean | undefined

t.test('who decides which password the servers have', async t => {
  const all = { pg1: primary, pg2: standby, pg3: standby }
  const situations: [string, Parameters<typeof benchOf>[0], Record<string, Answer>, boolean, string[]][] = [
    ['the primary has it', all, { pg1: true }, true, ['pg1']],
    ['the primary has it not', all, { pg1: false, pg2: true }, false, ['pg1']],
    ['the primary cannot be connected to', all, { pg2: true }, true, ['pg1', 'pg2']],
    ['the primary is another node', { pg1: standby, pg2: primary }, { pg1: false, pg2: true }, true, ['pg2']],
    ['the primary is stopped', { ...all, pg1: stopped(primary) }, { pg1: true, pg3: true }, true, ['pg2', 'pg3']],
    ['nobody answers', all, {}, false, ['pg1', 'pg2', 'pg3']],
    ['nothing is there', { pg1: {}, pg2: {} }, { pg1: true, pg2: true }, false, []],
  ]
  for (const [what, found, answers, expected, asked] of situations) {
    const seen: string[] = []
    const answer = await accepts(benchOf(found, { absent: [], built: true }), async ({ name }) => {
      seen.push(name)
      return answers[name]
    })
    t.equal(answer, expected, what)
    t.strictSame(seen, asked, what)
  }
})

t.test('a node that is away is not asked', async t => {
  const bench = benchOf({ pg1: primary, pg2: standby }, { absent: ['pg3'], built: true })
  const seen: string[] = []
  await accepts(bench, async ({ name }) => {
    seen.push(name)
    return undefined
  })
  t.strictSame(seen, ['pg1', 'pg2'])
})
