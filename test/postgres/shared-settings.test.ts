import fc from 'fast-check'
import t from 'tap'
import { type InForce, SHARED_SETTINGS, sharedNow, sharedTarget } from '../../src/postgres/shared-settings.js'

const DEFAULTS = {
  max_connections: 100,
  max_worker_processes: 8,
  max_wal_senders: 10,
  max_prepared_transactions: 0,
  max_locks_per_transaction: 64,
}
const running = (maxConnections: number): InForce => ({ ...DEFAULTS, max_connections: maxConnections })

t.test('the most that any node asks for', async t => {
  t.same(sharedTarget([]), DEFAULTS)
  t.same(
    sharedTarget([{ max_connections: 40 }]),
    { ...DEFAULTS, max_connections: 40 },
    'less than the default, if all say so',
  )
  t.equal(sharedTarget([{ max_connections: 40 }, {}]).max_connections, 100, 'who asks for nothing has the default')
  t.equal(sharedTarget([{ max_worker_processes: 8 }, { max_worker_processes: 64 }]).max_worker_processes, 64)
  t.equal(
    sharedTarget([{ max_connections: Number.NaN }]).max_connections,
    100,
    'what is no number is refused elsewhere',
  )
})

t.test('what may be written now', async t => {
  const cases: [string, number, 'primary' | 'standby', number | undefined, number[], number][] = [
    // what, target, role, the primary runs with, its standbys run with, to be written
    ['nothing runs yet', 200, 'primary', undefined, [], 200],
    ['nothing runs yet', 200, 'standby', undefined, [], 200],
    ['raise: standbys may at once', 300, 'standby', 200, [200, 200], 300],
    ['raise: the primary waits for them', 300, 'primary', 200, [200, 200], 200],
    ['raise: for the last of them', 300, 'primary', 200, [300, 200], 200],
    ['raise: then it may', 300, 'primary', 200, [300, 300], 300],
    ['raise: alone it may at once', 300, 'primary', 200, [], 300],
    ['lower: the primary may at once', 100, 'primary', 200, [200, 200], 100],
    ['lower: standbys wait for it', 100, 'standby', 200, [200, 200], 200],
    ['lower: then they may', 100, 'standby', 100, [200, 200], 100],
    ['standbys have more than they need', 200, 'primary', 200, [500], 200],
    ['a standby that was raised by hand half way', 300, 'primary', 200, [250, 300], 250],
  ]
  for (const [what, target, role, primary, standbys, expected] of cases) {
    const now = sharedNow({ ...DEFAULTS, max_connections: target }, role, {
      primary: primary === undefined ? undefined : running(primary),
      standbys: standbys.map(running),
    })
    t.equal(now.max_connections, expected, `${what}: ${role}`)
  }
  const [unknown] = [
    sharedNow({ ...DEFAULTS, max_connections: 300 }, 'primary', { primary: running(200), standbys: [{}] }),
  ]
  t.equal(unknown?.max_connections, 200, 'a standby that cannot be asked is taken to have no more')
})

t.test('whichever server starts again next, no standby has less than its primary', async t => {
  const value = fc.integer({ min: 0, max: 5 })
  fc.assert(
    fc.property(
      fc.record({ target: value, primary: value, standbys: fc.array(value, { maxLength: 3 }) }),
      fc.array(fc.nat(), { minLength: 20, maxLength: 40 }),
      ({ target, primary, standbys }, schedule) => {
        // As it is before: a cluster that works.
        const servers = [primary, ...standbys.map(standby => Math.max(standby, primary))]
        const wanted = { ...DEFAULTS, max_connections: target }
        const allowed = (index: number) => {
          const [first = 0, ...rest] = servers
          const now = { primary: { max_connections: first }, standbys: rest.map(max => ({ max_connections: max })) }
          return sharedNow(wanted, index === 0 ? 'primary' : 'standby', now).max_connections
        }
        const files = [...servers]
        for (const step of schedule) {
          const index = step % servers.length
          // An operation writes all files by what it found, and dies; or some server is started again.
          if (step % 3 === 0) files.splice(0, files.length, ...servers.map((_, each) => allowed(each)))
          else servers[index] = files[index] ?? 0
          const [first = 0, ...rest] = servers
          if (rest.some(standby => standby < first)) return false
        }
        // And left alone it gets there: each is written and started again, standbys first, then all once more.
        for (const index of [...servers.keys()].reverse()) servers[index] = allowed(index)
        for (const index of servers.keys()) servers[index] = allowed(index)
        return servers.every(server => server === target)
      },
    ),
    { numRuns: 2000 },
  )
  t.equal(SHARED_SETTINGS.length, 5)
})
