import { getEventListeners } from 'node:events'
import t from 'tap'
import { listenForChanges } from '../../src/store/changes.js'
import { keys } from '../../src/store/keys.js'
import { openOperationStore } from '../../src/store/operations.js'
import { connectRedis } from '../../src/store/redis.js'
import { eventually, startRedis } from '../fixtures/redis.js'

t.test('who waits for an operation', async t => {
  const server = await startRedis(t)
  const redis = connectRedis(server.url, { purpose: 'operations' })
  const changes = await listenForChanges(connectRedis(server.url, { purpose: 'operations' }))
  t.teardown(async () => {
    await changes.close()
    redis.disconnect()
  })
  const operations = openOperationStore(redis)
  const request = { type: 'bootstrap-cluster', input: {}, requestedBy: 'test' } as const
  const made = async (cluster: string) => {
    const outcome = await operations.create({ ...request, cluster })
    if (!('created' in outcome)) throw new Error('conflict')
    return outcome.created.id
  }
  const elapsed = async (waiting: Promise<void>) => {
    const begun = performance.now()
    await waiting
    return performance.now() - begun
  }
  /** Everything that was announced before this has been heard when it returns. */
  const settle = async () => {
    const heard = changes.next('op_marker', 20_000)
    await redis.publish(keys.changed, 'op_marker')
    await heard
  }
  const [id, other] = [await made('orders'), await made('other')]

  await t.test('hears of every kind of change, however many wait', async t => {
    const woken = async (change: () => Promise<unknown>) => {
      await settle()
      const waiting = Promise.all(Array.from({ length: 30 }, () => elapsed(changes.next(id, 20_000))))
      await change()
      return Math.max(...(await waiting)) < 10_000
    }
    const turn = await operations.take(id, 'w', 10_000)
    if (!turn) throw new Error('no turn')
    const journal = operations.journal(turn, error => t.error(error))
    t.ok(await woken(() => journal.step({ id: 'a', title: 'a', stage: 's', kind: 'change', state: 'running' })), 'step')
    t.ok(await woken(async () => journal.log('a', 'line')), 'log')
    t.ok(await woken(async () => journal.progress('a', { doneBytes: 1 })), 'progress')
    t.ok(await woken(() => operations.release(turn)), 'interrupted')
    const next = await operations.take(id, 'v', 10_000)
    if (!next) throw new Error('no turn')
    t.ok(await woken(() => operations.finish(next, { state: 'failed' })), 'end')
  })

  await t.test('hears nothing of other operations', async t => {
    await settle()
    let woken = false
    const abort = new AbortController()
    const waiting = changes.next(id, 20_000, abort.signal).then(() => {
      woken = true
    })
    const heard = changes.next(other, 20_000)
    const turn = await operations.take(other, 'w', 10_000)
    t.ok(turn)
    await heard
    t.equal(woken, false)
    abort.abort()
    await waiting
  })

  await t.test('waits no longer than its time, or than its caller', async t => {
    const ms = await elapsed(changes.next(id, 50))
    t.ok(ms >= 45 && ms < 5000, `${ms} ms`)
    const abort = new AbortController()
    const waiting = elapsed(changes.next(id, 20_000, abort.signal))
    t.equal(getEventListeners(abort.signal, 'abort').length, 1)
    abort.abort()
    t.ok((await waiting) < 5000)
    t.equal(getEventListeners(abort.signal, 'abort').length, 0, 'and leaves nothing behind')
    t.ok((await elapsed(changes.next(id, 20_000, AbortSignal.abort()))) < 5000)
  })

  await t.test('hears of changes again after Redis was restarted', async t => {
    await server.kill()
    await server.start()
    // The subscription comes back some time after the connection.
    await eventually(async () => {
      const waiting = elapsed(changes.next('op_x', 100))
      await redis.publish(keys.changed, 'op_x')
      return (await waiting) < 95
    })
    t.pass()
  })
})
