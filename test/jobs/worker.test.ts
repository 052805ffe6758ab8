import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type Socket } from 'node:net'
import { Queue } from 'bullmq'
import t, { type Test } from 'tap'
import { type OperationQueue, openQueue, QUEUE_NAME } from '../../jobs/queue.js'
import { startWorker } from '../../jobs/worker.js'
import { newCluster } from '../../src/cluster/model.js'
import { openHostPool } from '../../src/host/host.js'
import { generateIdentity } from '../../src/host/identity.js'
import { makeLogger } from '../../src/logging.js'
import { isFinal } from '../../src/operations/operation.js'
import { keys } from '../../src/store/keys.js'
import { asStoreError, connectRedis, StoreUnavailable, untilReady } from '../../src/store/redis.js'
import { openStore, type Store } from '../../src/store/store.js'
import { freePort } from '../fixtures/postgres.js'
import { eventually, startRedis, type TestRedis } from '../fixtures/redis.js'

const HOST_KEY = `SHA256:${'A'.repeat(43)}`
const masterKey = randomBytes(32)

interface Bed {
  redis: TestRedis
  store: Store
  queue: OperationQueue
  /** A cluster whose hosts are this machine, at these SSH ports; then an operation on it, not queued yet. */
  ask(cluster: string, ports: number[]): Promise<string>
  startWorker(t: Test, options?: { concurrency?: number; queue?: OperationQueue }): ReturnType<typeof startWorker>
  /** How many jobs wait for a worker. */
  waiting(): Promise<number>
  /** The operation once it has ended. */
  ended(id: string): Promise<NonNullable<Awaited<ReturnType<Store['operations']['get']>>>>
}

async function open(t: Test): Promise<Bed> {
  const redis = await startRedis(t)
  const identity = generateIdentity('test')
  const connect = (t: Test) => {
    const connection = connectRedis(redis.url, { purpose: 'operations' })
    t.teardown(() => connection.disconnect())
    return connection
  }
  const connection = connect(t)
  const store = openStore(connection, masterKey)
  const queue = openQueue(connection)
  t.teardown(() => queue.close())
  return {
    redis,
    store,
    queue,
    async ask(cluster, ports) {
      const nodes = ports.map((port, index) => ({
        name: `pg${index + 1}`,
        // One node a host: all of 127.0.0.0/8 is this machine.
        host: `127.0.0.${index + 1}`,
        ssh: { user: 'admin', port, hostKey: HOST_KEY },
      }))
      await store.clusters.create(newCluster({ name: cluster, postgresVersion: 15, nodes }, new Date().toISOString()))
      const request = { type: 'bootstrap-cluster', cluster, input: {}, requestedBy: 'test' } as const
      const outcome = await store.operations.create(request)
      if ('conflict' in outcome) throw new Error('conflict')
      return outcome.created.id
    },
    async waiting() {
      const jobs = new Queue(QUEUE_NAME, { connection, prefix: keys.queuePrefix })
      try {
        return await jobs.getWaitingCount()
      } finally {
        await jobs.close()
      }
    },
    startWorker(t, options = {}) {
      // Everything of its own, as in another process.
      const connection = connect(t)
      const queue = openQueue(connection)
      const pool = openHostPool({ identity, connectTimeoutMs: 30_000 })
      const worker = startWorker({
        ...{
          store: openStore(connection, masterKey),
          queue,
          pool,
          connection,
          concurrency: 4,
          leaseMs: 10_000,
          ...options,
        },
        logger: makeLogger('silent'),
      })
      t.teardown(async () => {
        await worker.close(0)
        await pool.close()
        await queue.close()
      })
      return worker
    },
    ended: id =>
      eventually(async () => {
        const operation = await store.operations.get(id)
        return operation && isFinal(operation.state) ? operation : undefined
      }, 30_000),
  }
}

/** Accepts connections and says nothing, as an SSH server does that hangs. */
async function silentPort(t: Test): Promise<{ port: number; connected: Promise<unknown>; close(): void }> {
  const sockets = new Set<Socket>()
  const server = createServer(socket => void sockets.add(socket.on('error', () => undefined))).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const close = () => {
    for (const socket of sockets) socket.destroy()
    server.close()
  }
  t.teardown(close)
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  return { port: address.port, connected: once(server, 'connection'), close }
}

t.test('a worker', async t => {
  const { store, queue, ask, startWorker, ended } = await open(t)
  const worker = startWorker(t)

  await t.test(
    'a host that cannot be reached: the operation fails, nothing was touched, the cluster is free',
    async t => {
      const id = await ask('unreachable', [await freePort()])
      await queue.add(id)
      const operation = await ended(id)
      t.match(operation, {
        ...{ state: 'failed', turns: 1, steps: [], startedAt: /^20/, endedAt: /^20/ },
        error: { code: 'host-unreachable', outcome: 'not_started', detail: /127\.0\.0\.1/, remedy: /sshd listens/ },
      })
      t.equal(await store.operations.activeOn('unreachable'), undefined)
      t.equal(await store.operations.hasWorker(id), false)
      t.strictSame(await store.operations.openIds(), [])
      t.strictSame(
        (await store.operations.events(id, '0-0', 100)).map(({ data }) => data.state),
        ['queued', 'running', 'failed'],
      )
      const again = await store.operations.create({
        ...{ type: 'bootstrap-cluster', cluster: 'unreachable', input: {}, requestedBy: 'test' },
      })
      t.ok('created' in again)
      if ('created' in again) {
        await queue.add(again.created.id)
        t.match(await ended(again.created.id), { state: 'failed' })
      }
    },
  )

  await t.test('several that cannot be reached: all of them are named', async t => {
    const id = await ask('several', [await freePort(), await freePort()])
    await queue.add(id)
    t.match((await ended(id)).error, {
      code: 'host-unreachable',
      outcome: 'not_started',
      detail: /pg1: .*127\.0\.0\.1.*pg2: .*127\.0\.0\.2/,
    })
  })

  await t.test('queued several times it is run once', async t => {
    const id = await ask('eager', [await freePort()])
    await Promise.all(Array.from({ length: 5 }, () => queue.add(id)))
    t.match(await ended(id), { state: 'failed', turns: 1 })
    // What is queued behind it is taken after it: then all five have been looked at.
    const next = await ask('behind', [await freePort()])
    await queue.add(next)
    await ended(next)
    t.match(await store.operations.get(id), { turns: 1 })
  })

  await t.test('a cluster without a record: it ends, and blocks nobody', async t => {
    const outcome = await store.operations.create({
      ...{ type: 'bootstrap-cluster', cluster: 'forgotten', input: {}, requestedBy: 'test' },
    })
    if ('conflict' in outcome) throw new Error('conflict')
    await queue.add(outcome.created.id)
    t.match(await ended(outcome.created.id), { state: 'failed', error: { outcome: 'not_started' } })
    t.equal(await store.operations.activeOn('forgotten'), undefined)
  })

  await t.test('a cluster that is another one now: nothing is done to it', async t => {
    const id = await ask('replaced', [await freePort()])
    await store.clusters.remove('replaced')
    const node = { name: 'pg1', host: '127.0.0.9', ssh: { user: 'admin', hostKey: HOST_KEY } }
    const another = newCluster({ name: 'replaced', postgresVersion: 15, nodes: [node] }, '2999-01-01T00:00:00.000Z')
    await store.clusters.create(another)
    await queue.add(id)
    t.match(await ended(id), { state: 'failed', error: { code: 'cluster-replaced', outcome: 'not_started' } })
    t.strictSame(await store.clusters.get('replaced'), another)
  })

  await t.test('an operation that does not exist harms nobody', async t => {
    await queue.add('op_00000000000000000000000000')
    const id = await ask('after-nothing', [await freePort()])
    await queue.add(id)
    t.match(await ended(id), { state: 'failed' })
  })

  await t.test('closed, it takes nothing more', async t => {
    const begun = performance.now()
    await worker.close(20_000)
    t.ok(performance.now() - begun < 5000, 'idle, it does not wait')
    const id = await ask('too-late', [await freePort()])
    await queue.add(id)
    const next = startWorker(t)
    t.match(await ended(id), { turns: 1 }, 'the next one does')
    await next.close(0)
  })
})

t.test('a worker that is closed while it looks at a host that hangs leaves the operation to the next one', async t => {
  const { store, queue, ask, startWorker } = await open(t)
  const worker = startWorker(t)
  // After the worker, so that it ends before it: the pool waits for a handshake under way.
  const { port, connected } = await silentPort(t)
  const id = await ask('hanging', [port])
  await queue.add(id)
  await connected
  t.match(await store.operations.get(id), { state: 'running', turns: 1 })
  const begun = performance.now()
  await worker.close(20_000)
  t.ok(performance.now() - begun < 10_000, 'it does not wait for the host')
  const operation = await store.operations.get(id)
  t.match(operation, { state: 'interrupted' })
  t.notOk(operation?.error, 'nothing has failed')
  t.equal(await store.operations.hasWorker(id), false, 'and can be taken at once')
  t.equal(await store.operations.activeOn('hanging'), id, 'nobody else may change the cluster meanwhile')
})

t.test('recovery', async t => {
  const { redis, store, ask, startWorker, ended } = await open(t)

  // Its worker died: it was running, and its lease has run out.
  const orphan = await ask('orphan', [await freePort()])
  await store.operations.take(orphan, 'dead', 1)
  // Its worker lives: it holds its lease, though the queue knows nothing of it.
  const living = await ask('living', [await freePort()])
  const turn = await store.operations.take(living, 'alive', 60_000)
  t.ok(turn)

  // It was asked for just before Redis went away.
  const unqueued = await ask('unqueued', [await freePort()])
  const impatient = connectRedis(redis.url, { purpose: 'requests' })
  t.teardown(() => impatient.disconnect())
  await untilReady(impatient, 5000)
  const requests = openQueue(impatient)
  t.teardown(() => requests.close().catch(() => undefined))
  const failed = async () => {
    const begun = performance.now()
    const error = await requests.add(unqueued).then(
      () => undefined,
      (error: unknown) => asStoreError(error),
    )
    return { unavailable: error instanceof StoreUnavailable, ms: performance.now() - begun, error }
  }
  await t.test('queueing fails soon when Redis hangs or is gone', async t => {
    redis.signal('SIGSTOP')
    const hung = await failed()
    redis.signal('SIGCONT')
    await redis.kill()
    await eventually(async () => impatient.status !== 'ready')
    const gone = await failed()
    await redis.start()
    for (const { unavailable, ms, error } of [hung, gone]) {
      t.ok(unavailable, String(error))
      t.ok(ms < 4000, `${ms} ms`)
    }
  })

  startWorker(t)
  await t.test('what nobody runs is taken up, and what somebody runs is left alone', async t => {
    const taken = await ended(orphan)
    t.match(taken, { state: 'failed', turns: 2, error: { code: 'host-unreachable' } })
    t.strictSame(
      (await store.operations.events(orphan, '0-0', 100)).map(({ data }) => data.state),
      ['queued', 'running', 'interrupted', 'running', 'failed'],
    )
    t.match(await ended(unqueued), { state: 'failed', turns: 1, error: { code: 'host-unreachable' } })
    t.match(await store.operations.get(living), { state: 'running', turns: 1 })
    if (turn) t.equal(await store.operations.renew(turn, 60_000), true)
  })
})

t.test('what waits for a free worker is not queued over and over', async t => {
  const { redis, store, queue, ask, startWorker, waiting, ended } = await open(t)
  const redisConnection = connectRedis(redis.url, { purpose: 'operations' })
  t.teardown(() => redisConnection.disconnect())
  const [first, second] = [await silentPort(t), await freePort()]
  const busy = await ask('busy', [first.port])
  const next = await ask('next', [second])

  await Promise.all(Array.from({ length: 5 }, () => queue.add(next)))
  t.equal(await waiting(), 1, 'asked for five times, it waits once')

  await queue.add(busy)
  const added: string[] = []
  const watched: OperationQueue = {
    async add(id) {
      added.push(id)
      await queue.add(id)
      // It may be queued again at the next look, and not after ten seconds only.
      await redisConnection.del(keys.requeued(id))
    },
    close: async () => {},
  }
  // Taken first, it ends; the one behind it hangs, and holds the only place.
  startWorker(t, { concurrency: 1, queue: watched })
  t.match(await ended(next), { state: 'failed', turns: 1 })
  await first.connected
  const last = await ask('last', [second])
  const orphan = await ask('orphan', [second])
  await store.operations.take(orphan, 'dead', 1)
  await eventually(async () => [last, orphan].every(id => added.filter(other => other === id).length >= 4), 30_000)
  t.equal(await waiting(), 2, 'each once, the interrupted one too')
  first.close()
  t.match(await ended(last), { turns: 1 })
  t.match(await ended(orphan), { turns: 2 })
})

t.test('a job that a dead worker has taken does not keep its operation from the next one', async t => {
  const { store, queue, ask, startWorker, waiting } = await open(t)
  const worker = startWorker(t)
  const { port, connected, close } = await silentPort(t)
  const id = await ask('left', [port])
  await queue.add(id)
  await connected
  t.equal(await waiting(), 0)
  // It stops without a word to BullMQ: its job stays the active one until it is found to have stalled.
  await worker.close(0)
  await eventually(async () => (await store.operations.get(id))?.state === 'interrupted')
  const begun = performance.now()
  startWorker(t)
  await eventually(async () => (await store.operations.get(id))?.turns === 2, 30_000)
  t.ok(performance.now() - begun < 15_000)
  close()
})
