import t from 'tap'
import { commonHistory, readTimelineHistory } from '../../src/cluster/common-history.js'
import { parseLsn } from '../../src/cluster/lsn.js'

const SECOND = '1\t0/3000148\tno recovery target specified\n'
const THIRD = `${SECOND}\n2\t0/5000060\tno recovery target specified\n`

t.test('a history file becomes spans', async t => {
  t.same(readTimelineHistory(1, undefined), [{ timeline: 1, begin: '0/0', end: undefined }])
  t.same(readTimelineHistory(3, `# comment\n${THIRD}`), [
    { timeline: 1, begin: '0/0', end: '0/3000148' },
    { timeline: 2, begin: '0/3000148', end: '0/5000060' },
    { timeline: 3, begin: '0/5000060', end: undefined },
  ])
  t.throws(() => readTimelineHistory(2, undefined), /no history of timeline 2/)
  t.throws(() => readTimelineHistory(2, 'nonsense'), /no history of timeline 2/)
})

const one = readTimelineHistory(1, undefined)
const two = readTimelineHistory(2, SECOND)
const three = readTimelineHistory(3, THIRD)
const otherTwo = readTimelineHistory(2, '1\t0/4000000\tpromoted elsewhere\n')
const skipped = readTimelineHistory(3, '1\t0/4000000\tpromoted elsewhere\n')

const table: [string, ReturnType<typeof readTimelineHistory>, ReturnType<typeof readTimelineHistory>, unknown][] = [
  ['the same', two, two, { timeline: 2, end: undefined }],
  ['the old primary of the first promotion', one, two, { timeline: 1, end: '0/3000148' }],
  ['the old primary of the first of two promotions', one, three, { timeline: 1, end: '0/3000148' }],
  ['the old primary of the second of two promotions', two, three, { timeline: 2, end: '0/5000060' }],
  ['two promotions apart from each other', otherTwo, two, { timeline: 1, end: '0/3000148' }],
  ['two promotions apart, under two numbers', skipped, three, { timeline: 1, end: '0/3000148' }],
]
for (const [title, ours, theirs, expected] of table) {
  t.test(title, async t => {
    t.same(commonHistory(ours, theirs), expected)
    t.same(commonHistory(theirs, ours), expected, 'whichever way it is asked')
  })
}

t.test('positions are compared as numbers', async t => {
  const early = [{ timeline: 1, begin: parseLsn('0/0'), end: parseLsn('A/0') }]
  const late = [{ timeline: 1, begin: parseLsn('0/0'), end: parseLsn('10/0') }]
  t.match(commonHistory(late, early), { end: 'A/0' })
})
