import fc from 'fast-check'
import t from 'tap'
import { duration } from '../../src/api/text.js'
import { paceOf, recentSamples, type Sample, WINDOW_MS } from '../../src/operations/pace.js'

const MB = 1_000_000
const sample = (seconds: number, megabytes: number): Sample => ({ atMs: seconds * 1000, doneBytes: megabytes * MB })
const collect = (...all: Sample[]) => all.reduce<Sample[]>((samples, newest) => recentSamples(samples, newest), [])

t.test('rate and time left', async t => {
  const cases: [what: string, samples: Sample[], totalMegabytes: number | undefined, expected: object][] = [
    ['nothing seen', [], 100, {}],
    ['seen once', [sample(0, 5)], 100, {}],
    ['seen twice within a blink', [sample(0, 5), sample(0.4, 9)], 100, {}],
    ['half done', [sample(0, 0), sample(10, 50)], 100, { rateBytesPerSecond: 5 * MB, remainingSeconds: 10 }],
    ['the total is not known yet', [sample(0, 0), sample(10, 50)], undefined, { rateBytesPerSecond: 5 * MB }],
    [
      'it does not start at nothing',
      [sample(7, 40), sample(9, 50)],
      100,
      { rateBytesPerSecond: 5 * MB, remainingSeconds: 10 },
    ],
    [
      'part of a second is a second',
      [sample(0, 0), sample(3, 10)],
      11,
      { rateBytesPerSecond: 3_333_333, remainingSeconds: 1 },
    ],
    ['nothing moves', [sample(0, 50), sample(30, 50)], 100, { rateBytesPerSecond: 0 }],
    ['all is there', [sample(0, 50), sample(10, 100)], 100, { rateBytesPerSecond: 5 * MB, remainingSeconds: 0 }],
    [
      'more than was estimated',
      [sample(0, 50), sample(10, 120)],
      100,
      { rateBytesPerSecond: 7 * MB, remainingSeconds: 0 },
    ],
    [
      'all is there and nothing moves',
      [sample(0, 100), sample(10, 100)],
      100,
      { rateBytesPerSecond: 0, remainingSeconds: 0 },
    ],
    [
      'two terabytes',
      [sample(0, 0), sample(30, 3000)],
      2_000_000,
      { rateBytesPerSecond: 100 * MB, remainingSeconds: 19_970 },
    ],
    [
      'it was fast, and is slow now',
      collect(sample(0, 0), sample(10, 1000), sample(35, 1025), sample(60, 1050)),
      1100,
      { rateBytesPerSecond: MB, remainingSeconds: 50 },
    ],
    [
      'the copy began anew',
      collect(sample(0, 0), sample(10, 500), sample(12, 1), sample(14, 21)),
      41,
      { rateBytesPerSecond: 10 * MB, remainingSeconds: 2 },
    ],
  ]
  for (const [what, samples, total, expected] of cases)
    t.same(paceOf(samples, total === undefined ? undefined : total * MB), expected, what)
})

t.test('which samples count', async t => {
  t.same(collect(sample(0, 1)), [sample(0, 1)])
  t.same(
    collect(sample(0, 1), sample(5, 2), sample(31, 3)),
    [sample(0, 1), sample(5, 2), sample(31, 3)],
    'the window is whole',
  )
  t.same(collect(sample(0, 1), sample(5, 2), sample(36, 3)), [sample(5, 2), sample(36, 3)])
  t.same(collect(sample(0, 1), sample(300, 2)), [sample(0, 1), sample(300, 2)], 'after a long silence')
  t.same(collect(sample(0, 5), sample(1, 4)), [sample(1, 4)], 'begun anew')
})

t.test('of any copy', async t => {
  const step = fc.record({ ms: fc.integer({ min: 1, max: 20_000 }), bytes: fc.integer({ min: 0, max: 2 ** 40 }) })
  t.doesNotThrow(() =>
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), fc.option(fc.nat(2 ** 45), { nil: undefined }), (steps, total) => {
        let samples: Sample[] = []
        let at = { atMs: 0, doneBytes: 0 }
        for (const { ms, bytes } of steps) {
          at = { atMs: at.atMs + ms, doneBytes: at.doneBytes + bytes }
          samples = recentSamples(samples, at)
          const old = samples.filter(({ atMs }) => atMs <= at.atMs - WINDOW_MS)
          if (samples.at(-1) !== at || old.length > 1) return false
          const { rateBytesPerSecond = 0, remainingSeconds = 0 } = paceOf(samples, total)
          for (const value of [rateBytesPerSecond, remainingSeconds])
            if (!Number.isSafeInteger(value) || value < 0) return false
        }
        return true
      }),
    ),
  )
})

t.test('in words', async t => {
  for (const [seconds, text] of [
    [0, '0 s'],
    [99, '99 s'],
    [100, '2 min'],
    [720, '12 min'],
    [12_000, '3 h 20 min'],
    [86_400, '24 h 0 min'],
  ] as const)
    t.equal(duration(seconds), text)
})
