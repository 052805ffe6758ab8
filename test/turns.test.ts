import { readdir } from 'node:fs/promises'
import t from 'tap'
import { turnOf } from './turns.js'

t.test('in seven days every file of the lab has had its turn, and what guards data runs on each', async t => {
  const files = (await readdir('test/lab')).filter(name => name.endsWith('.test.ts')).map(name => `test/lab/${name}`)
  const days = [0, 1, 2, 3, 4, 5, 6].map(day => turnOf(files, 20_000 + day))
  t.same([...new Set(days.flatMap(({ now }) => now))].sort(), [...files].sort())
  for (const { now, later } of days) {
    t.same([...now, ...later].sort(), [...files].sort())
    for (const name of ['bootstrap', 'switchover', 'promote', 'rejoin', 'interruptions', 'sweep'])
      t.ok(now.includes(`test/lab/${name}.test.ts`), name)
  }
  t.same(turnOf(['test/lab/new.test.ts'], 3), { now: ['test/lab/new.test.ts'], later: [] })
})
