import t from 'tap'
import { parseLsn } from '../../src/cluster/lsn.js'
import { branches, divergence } from '../../src/cluster/timeline-history.js'

const HISTORY = '1\t0/3000110\tno recovery target specified\n\n2\t0/5000000\tno recovery target specified\n'
const at = (timeline: number, lsn: string) => ({ timeline, lsn: parseLsn(lsn) })

t.same(
  [...branches(HISTORY)],
  [
    [1, '0/3000110'],
    [2, '0/5000000'],
  ],
)
t.same([...branches('')], [])

t.test('who can go on from whom', async t => {
  const upstream = at(3, '0/6000000')
  t.equal(divergence(at(3, '0/7000000'), upstream, HISTORY), undefined, 'in front on the same timeline: it waits')
  t.equal(divergence(at(2, '0/4FFFFFF'), upstream, HISTORY), undefined, 'before the branch')
  t.equal(divergence(at(2, '0/5000000'), upstream, HISTORY), undefined, 'exactly at it')
  t.match(
    divergence(at(2, '0/5000001'), upstream, HISTORY),
    /up to 0\/5000001, and timeline 3 branched off at 0\/5000000/,
  )
  t.match(divergence(at(1, '1/0'), upstream, HISTORY), /branched off at 0\/3000110/)
  t.match(divergence(at(2, '0/1'), at(3, '0/9'), '1\t0/3000110\tx\n'), /not in the history/)
  t.match(divergence(at(4, '0/1'), upstream, HISTORY), /on timeline 4 already/)
})
