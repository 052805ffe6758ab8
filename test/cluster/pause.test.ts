import t from 'tap'
import { announcedFrom, ownersOf, type Pause, pausedBy, pauseInForce } from '../../src/cluster/pause.js'

const NOON = Date.parse('2026-03-01T12:00:00.000Z')
const MINUTE = 60_000
const at = (ms: number) => new Date(ms).toISOString()
const pause = (change: Partial<Pause> = {}): Pause => ({
  since: at(NOON),
  by: 'alice',
  reason: 'disks',
  until: at(NOON + 60 * MINUTE),
  ...change,
})
const asked = (change: object = {}) => ({ by: 'bob', reason: 'disks', untilMs: NOON + 30 * MINUTE, ...change })

t.test('a pause is in force until its end, and not at it', async t => {
  t.equal(pauseInForce({}, NOON), undefined)
  const known = pause()
  t.equal(pauseInForce({ pause: known }, NOON), known)
  t.equal(pauseInForce({ pause: known }, NOON + 60 * MINUTE - 1), known)
  t.equal(pauseInForce({ pause: known }, NOON + 60 * MINUTE), undefined)
})

t.test('who pauses', async t => {
  t.strictSame(pausedBy({}, asked({ reference: 'CHG-1' }), NOON), {
    since: at(NOON),
    by: 'bob',
    reason: 'disks',
    until: at(NOON + 30 * MINUTE),
    reference: 'CHG-1',
  })
  await t.test('again, for less: nothing is cut short', async t => {
    const known = pause({ announcedAt: at(NOON) })
    t.equal(pausedBy({ pause: known }, asked(), NOON + 1), known, 'and the same again is nothing new')
    t.match(pausedBy({ pause: known }, asked({ reason: 'kernel' }), NOON + 1), {
      until: known.until,
      reason: 'kernel',
      announcedAt: at(NOON),
      by: 'alice',
      extended: { by: 'bob', at: at(NOON + 1) },
    })
  })
  await t.test('again, for more: it goes on, and will be announced anew', async t => {
    const longer = pausedBy(
      { pause: pause({ announcedAt: at(NOON) }) },
      asked({ untilMs: NOON + 90 * MINUTE }),
      NOON + 1,
    )
    t.strictSame(longer, {
      since: at(NOON),
      by: 'alice',
      reason: 'disks',
      until: at(NOON + 90 * MINUTE),
      extended: { at: at(NOON + 1), by: 'bob' },
    })
    t.equal(ownersOf(longer), 'alice and bob')
  })
  await t.test('after it has run out: another one begins', async t => {
    const next = pausedBy({ pause: pause() }, asked({ untilMs: NOON + 90 * MINUTE }), NOON + 70 * MINUTE)
    t.match(next, { since: at(NOON + 70 * MINUTE), by: 'bob' })
    t.equal(next.extended, undefined)
  })
})

t.test('its end is announced a quarter of an hour before, and of a short one in its last fifth', async t => {
  t.equal(announcedFrom(pause({ until: at(NOON + 600 * MINUTE) })), NOON + 585 * MINUTE)
  t.equal(announcedFrom(pause({ until: at(NOON + 10 * MINUTE) })), NOON + 8 * MINUTE)
  const extended = { at: at(NOON + 50 * MINUTE), by: 'bob' }
  t.equal(announcedFrom(pause({ extended })), NOON + 58 * MINUTE, 'counted from who asked last')
})
