import t from 'tap'
import { newCluster } from '../../src/cluster/model.js'
import { openClusterStore } from '../../src/store/clusters.js'
import { connectRedis } from '../../src/store/redis.js'
import { startRedis } from '../fixtures/redis.js'

const ssh = { user: 'admin', hostKey: `SHA256:${'A'.repeat(43)}` }
const cluster = (name: string) =>
  newCluster({ name, postgresVersion: 15, nodes: [{ name: 'pg1', host: '10.0.0.1', ssh }] }, '2026-03-01T12:00:00.000Z')

t.test('the records of clusters', async t => {
  const { url } = await startRedis(t)
  const open = () => {
    const redis = connectRedis(url, { purpose: 'operations' })
    t.teardown(() => redis.disconnect())
    return openClusterStore(redis)
  }
  const store = open()

  await t.test('a name is had once', async t => {
    t.equal(await store.get('orders'), undefined)
    t.strictSame(await store.list(), [])
    const made = await Promise.all(Array.from({ length: 20 }, () => store.create(cluster('orders'))))
    t.equal(made.filter(Boolean).length, 1, 'of many at once, one makes it')
    t.strictSame(await store.get('orders'), cluster('orders'))
    t.equal(await store.create({ ...cluster('orders'), port: 6000 }), false)
    t.equal((await store.get('orders'))?.port, 5432, 'and the first one stays')
  })

  await t.test('they are listed by name', async t => {
    await store.create(cluster('zeta'))
    await store.create(cluster('alpha'))
    t.strictSame(
      (await store.list()).map(({ name }) => name),
      ['alpha', 'orders', 'zeta'],
    )
  })

  await t.test('twenty changes side by side, on several connections: all of them are there', async t => {
    const stores = [store, open(), open(), open()]
    let calls = 0
    const changed = await Promise.all(
      Array.from({ length: 20 }, (_, index) =>
        (stores[index % 4] ?? store).update('orders', current => {
          calls += 1
          return { ...current, nextNodeId: current.nextNodeId + 1 }
        }),
      ),
    )
    const end = await store.get('orders')
    t.equal(end?.nextNodeId, 22)
    t.equal(end?.version, 21)
    t.ok(calls > 20, 'they were in each other’s way')
    t.strictSame(
      changed.map(({ version }) => version).sort((a, b) => a - b),
      Array.from({ length: 20 }, (_, index) => index + 2),
      'each is told its own version',
    )
  })

  await t.test('a change that throws changes nothing, and a version cannot be forged', async t => {
    const before = await store.get('orders')
    await t.rejects(
      store.update('orders', () => {
        throw new Error('no')
      }),
      { message: 'no' },
    )
    t.strictSame(await store.get('orders'), before)
    t.equal((await store.update('orders', current => ({ ...current, version: 1000 }))).version, 22)
    await t.rejects(
      store.update('nobody', current => current),
      { name: 'ClusterChanged' },
    )
    t.equal(await store.get('nobody'), undefined)
  })
})
