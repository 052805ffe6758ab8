import t from 'tap'
import { keptPaused, leftPaused } from '../../src/cluster/repmgrd.js'

const awake = { running: true, paused: false }
const paused = { running: true, paused: true }
const off = { running: false, paused: false }
const said = (pg1: object, pg2: object) => [
  { node: 'pg1', ...off, ...pg1 },
  { node: 'pg2', ...off, ...pg2 },
]
const hold = { operation: 'op_1', nodes: ['pg1', 'pg2'] }

t.test('repmgrd that is left paused', async t => {
  const cases: [string, Parameters<typeof leftPaused>[0], RegExp | undefined][] = [
    ['awake', { said: said(awake, awake), hold: undefined, expected: false }, undefined],
    ['nobody runs it', { said: said({ paused: true }, off), hold: undefined, expected: false }, undefined],
    [
      'while an operation runs, or the cluster is paused',
      { said: said(paused, paused), hold, expected: true },
      undefined,
    ],
    [
      'by hand',
      { said: said(awake, paused), hold: undefined, expected: false },
      /paused on pg2, .*: nothing that this/,
    ],
    [
      'its flag is set where it does not run at the moment',
      { said: said(awake, { paused: true }), hold: undefined, expected: false },
      /paused on pg2/,
    ],
    [
      'by an operation that could not unpause it',
      { said: said(paused, paused), hold: { ...hold, kept: 'pg2 did not answer' }, expected: false },
      /paused on pg1, pg2, .*since operation op_1, because pg2 did not answer\. "repmgr service unpause"/,
    ],
    [
      'the same where it ran nowhere just now',
      { said: said({ paused: true }, off), hold, expected: false },
      /paused on pg1,/,
    ],
  ]
  for (const [name, situation, expected] of cases) {
    const found = leftPaused(situation)
    if (expected === undefined) t.equal(found, undefined, name)
    else t.match(found, expected, name)
  }
  t.equal(keptPaused(hold), '', 'an operation that is still at it is no news')
  t.match(keptPaused({ ...hold, kept: 'no server accepts writes' }), /stays paused on pg1, pg2 since operation op_1/)
})
