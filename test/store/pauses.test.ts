import { randomBytes } from 'node:crypto'
import t from 'tap'
import { newCluster } from '../../src/cluster/model.js'
import { makeLogger } from '../../src/logging.js'
import { startPauseWatch } from '../../src/store/pause-watch.js'
import { attendPauses, pauseCluster, resumeCluster } from '../../src/store/pauses.js'
import { connectRedis } from '../../src/store/redis.js'
import { openStore } from '../../src/store/store.js'
import { eventually, startRedis } from '../fixtures/redis.js'

const MINUTE = 60_000
const NOW = Date.parse('2026-03-01T12:00:00.000Z')
const alice = { name: 'alice' }
const ssh = { user: 'admin', hostKey: `SHA256:${'A'.repeat(43)}` }

t.test('pauses in the store', async t => {
  const { url } = await startRedis(t)
  const open = () => {
    const redis = connectRedis(url, { purpose: 'operations' })
    t.teardown(() => redis.disconnect())
    return openStore(redis, randomBytes(32))
  }
  const store = open()
  const { clusters } = store
  const refuse = () => undefined
  const make = (name: string) =>
    clusters.create(
      newCluster(
        { name, postgresVersion: 15, nodes: [{ name: 'pg1', host: '10.0.0.1', ssh }] },
        '2026-03-01T09:00:00.000Z',
      ),
    )
  const pause = (name: string, minutes: number, by = 'alice') =>
    pauseCluster(
      clusters,
      name,
      { reason: 'disks', by, untilMs: NOW + minutes * MINUTE },
      { who: { name: by }, nowMs: NOW, refuse },
    )
  const told = async (cluster: string) =>
    (await store.events.list({ cluster, limit: 50 })).items
      .filter(({ type }) => type.startsWith('cluster-pause') || type === 'cluster-resumed')
      .reverse()
      .map(({ type, who, summary }) => `${type} ${who.name}: ${summary}`)

  await t.test('begun, extended, ended: each is told once, with who', async t => {
    await make('orders')
    await pause('orders', 60)
    await pause('orders', 60)
    await pause('orders', 90, 'bob')
    t.match(await clusters.get('orders'), { version: 1, pause: { by: 'alice', extended: { by: 'bob' } } })
    const resume = () => resumeCluster(clusters, 'orders', { who: alice, nowMs: NOW, reference: 'CHG-1', refuse })
    t.equal((await resume())?.pause, undefined)
    await resume()
    t.strictSame(await told('orders'), [
      'cluster-paused alice: orders is paused until 2026-03-01T13:00:00.000Z (disks).',
      'cluster-pause-extended bob: The pause of orders goes on until 2026-03-01T13:30:00.000Z (disks).',
      'cluster-resumed alice: The pause of orders was ended (CHG-1). It was asked for by alice and bob at 2026-03-01T12:00:00.000Z (disks).',
    ])
    t.equal((await clusters.get('orders'))?.version, 1, 'an operation that failed before may still be retried')
    t.equal(await pause('nowhere', 60), undefined)
  })

  await t.test('what refuses sees the record that would be changed', async t => {
    const refused = pauseCluster(
      clusters,
      'orders',
      { reason: 'disks', by: 'alice', untilMs: NOW + MINUTE },
      {
        who: alice,
        nowMs: NOW,
        refuse: () => {
          throw new Error('no')
        },
      },
    )
    await t.rejects(refused, { message: 'no' })
    t.equal((await clusters.get('orders'))?.pause, undefined)
  })

  await t.test('of many processes one tells that it is about to end, and one that it has', async t => {
    await make('accounts')
    await pause('accounts', 60)
    const processes = [clusters, ...Array.from({ length: 7 }, () => open().clusters)]
    const attend = async (minutes: number) =>
      (await Promise.all(processes.map(one => attendPauses(one, () => NOW + minutes * MINUTE)))).flat()
    t.same(await attend(40), [])
    t.match(await attend(55), [{ cluster: 'accounts', type: 'cluster-pause-ending' }])
    t.same(await attend(56), [])
    t.match(await attend(60), [{ cluster: 'accounts', type: 'cluster-pause-expired' }])
    t.same(await attend(61), [])
    t.equal((await clusters.get('accounts'))?.pause, undefined)
    t.strictSame((await told('accounts')).slice(1), [
      'cluster-pause-ending understudy: The pause of accounts ends by itself at 2026-03-01T13:00:00.000Z (disks).',
      'cluster-pause-expired understudy: The pause of accounts ran out at 2026-03-01T13:00:00.000Z. It was asked for by alice at 2026-03-01T12:00:00.000Z (disks).',
    ])
  })

  await t.test('changed by somebody else in between: neither change is lost', async t => {
    await make('both')
    await Promise.all([
      ...Array.from({ length: 10 }, (_, at) => clusters.update('both', one => ({ ...one, port: 6000 + at }))),
      ...Array.from({ length: 10 }, (_, at) => pause('both', at + 10)),
    ])
    t.match(await clusters.get('both'), { version: 11, pause: { until: new Date(NOW + 19 * MINUTE).toISOString() } })
  })

  await t.test('one that ran out while no process was there is told of at the next start, as late', async t => {
    await make('late')
    const [untilMs, nowMs] = [Date.now() - 30 * MINUTE, Date.now() - 90 * MINUTE]
    await pauseCluster(clusters, 'late', { reason: 'disks', by: 'alice', untilMs }, { who: alice, nowMs, refuse })
    const stops = [1, 2, 3].map(() => startPauseWatch(open().clusters, makeLogger('silent'), 3_600_000))
    await eventually(async () => (await clusters.get('late'))?.pause === undefined)
    await Promise.all(stops.map(stop => stop()))
    const events = await told('late')
    t.equal(events.length, 2)
    t.match(
      events[1],
      /ran out at .* That is told 30 min later: no process of this service saw it end\. It was asked for by alice/,
    )
  })
})
