import { randomBytes } from 'node:crypto'
import { appendFile, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { newCluster } from '../../src/cluster/model.js'
import {
  BackupUnusable,
  checkBackup,
  restoreBackup,
  StoreInUse,
  StoreNotEmpty,
  writeBackup,
} from '../../src/store/backup.js'
import { migrate, StoreHalfRestored } from '../../src/store/migrate.js'
import { connectRedis } from '../../src/store/redis.js'
import { openStore } from '../../src/store/store.js'
import { startApp } from '../fixtures/app.js'
import { startRedis } from '../fixtures/redis.js'

const masterKey = randomBytes(32)
const now = new Date()
const ssh = { user: 'admin', hostKey: `SHA256:${'A'.repeat(43)}` }

interface Test {
  teardown(close: () => unknown): unknown
}

async function open(t: Test) {
  const server = await startRedis(t)
  const redis = connectRedis(server.url, { purpose: 'operations' })
  t.teardown(() => redis.disconnect())
  await migrate(redis)
  return { server, redis, store: openStore(redis, masterKey) }
}

async function directory(t: Test) {
  const path = await mkdtemp(join(tmpdir(), 'understudy-backup-'))
  t.teardown(() => rm(path, { recursive: true, force: true }))
  return path
}

/** A store in which everything is: what has ended, what runs, what waits. */
async function inhabited(t: Test) {
  const bed = await open(t)
  const { store } = bed
  for (const name of ['orders', 'accounts', 'stock'])
    await store.clusters.create(
      newCluster({ name, postgresVersion: 15, nodes: [{ name: 'pg1', host: '192.0.2.11', ssh }] }, now.toISOString()),
    )
  const token = await store.tokens.create('ci')
  await store.secrets.getOrCreate('cluster/orders/repmgr', () => 'the password')
  const ids: Record<string, string> = {}
  for (const [cluster, state] of [
    ['orders', 'succeeded'],
    ['accounts', 'running'],
    ['stock', 'queued'],
  ] as const) {
    const outcome = await store.operations.create({
      type: 'bootstrap-cluster',
      cluster,
      input: { at: 1 },
      requestedBy: 'ci',
    })
    if ('conflict' in outcome) throw new Error('conflict')
    const { id } = outcome.created
    ids[state] = id
    if (state === 'queued') continue
    const turn = await store.operations.take(id, 'worker', 60_000)
    if (!turn) throw new Error('it cannot be taken')
    const journal = store.operations.journal(turn, error => {
      throw error
    })
    const step = { title: 'a step', stage: 'a stage', node: 'pg1', kind: 'change' } as const
    const names = ['a', 'b', 'c']
    await journal.planned(names.map(name => ({ ...step, id: name, state: 'pending' as const })))
    await journal.step({ ...step, id: 'a', state: 'changed', endedAt: now.toISOString() })
    for (let at = 0; at < 1200; at += 1) journal.log('a', `line ${at} ü\u2028 of ${cluster}`)
    if (state === 'running') await journal.step({ ...step, id: 'b', state: 'running', startedAt: now.toISOString() })
    else await store.operations.finish(turn, { state: 'succeeded' })
  }
  return { ...bed, token, ids: ids as Record<'succeeded' | 'running' | 'queued', string> }
}

t.test('backed up and restored, the service goes on with what it knew', async t => {
  const old = await inhabited(t)
  const path = join(await directory(t), 'state.backup')
  const files = [{ name: 'master.key', content: `${masterKey.toString('hex')}\n` }]
  const made = await writeBackup(old.redis, path, { files, now })
  t.match(made, { clusters: 3, operations: 3, tokens: 1, secrets: 1, files: ['master.key'] })
  t.equal((await stat(path)).mode & 0o777, 0o600)
  t.notOk((await readFile(path, 'utf8')).includes('the password'), 'secrets stay encrypted')
  t.notOk((await readFile(path, 'utf8')).includes(old.token), 'tokens stay hashed')
  await t.rejects(writeBackup(old.redis, path, { files, now }), { code: 'EEXIST' }, 'a backup is not overwritten')
  t.match(await checkBackup(path), { summary: made, files })

  const fresh = await startRedis(t)
  const redis = connectRedis(fresh.url, { purpose: 'operations' })
  t.teardown(() => redis.disconnect())
  t.match(await restoreBackup(redis, path, { replace: false, now }), { ...made, unended: 2 })
  t.same(await migrate(redis), [], 'a service may start on it')
  const store = openStore(redis, masterKey)

  await t.test('clusters, tokens, secrets, and what has ended are the same', async t => {
    t.same(await store.clusters.list(), await old.store.clusters.list())
    t.equal(await store.secrets.get('cluster/orders/repmgr'), 'the password')
    t.match(await store.tokens.verify(old.token), { name: 'ci' })
    t.same(await store.operations.get(old.ids.succeeded), await old.store.operations.get(old.ids.succeeded))
    t.same(await store.operations.input(old.ids.succeeded), { at: 1 })
    const events = await store.operations.events(old.ids.succeeded, '0-0', 5000)
    t.same(events, await old.store.operations.events(old.ids.succeeded, '0-0', 5000))
    t.ok(events.length > 1200)
    const page = { limit: 10 }
    t.same(
      (await store.operations.list(page)).items.map(({ id }) => id),
      (await old.store.operations.list(page)).items.map(({ id }) => id),
    )
    t.same((await store.operations.list({ ...page, cluster: 'orders' })).items.length, 1)
  })

  await t.test('what had not ended says that nobody knows', async t => {
    for (const state of ['running', 'queued'] as const) {
      const operation = await store.operations.get(old.ids[state])
      t.match(operation, {
        state: 'failed',
        endedAt: now.toISOString(),
        error: { code: 'store-restored', outcome: 'unknown' },
      })
      t.equal(await store.operations.hasWorker(old.ids[state]), false)
      t.match((await store.operations.events(old.ids[state], '0-0', 5000)).at(-1), { data: { state: 'failed' } })
    }
    t.same(
      (await store.operations.get(old.ids.running))?.steps.map(step => step.state),
      ['changed', 'failed', 'not_reached'],
    )
    t.same(await store.operations.openIds(), [])
    t.equal(await store.operations.activeOn('accounts'), undefined, 'the cluster is free')
  })

  await t.test('the audit trail is whole, and tells of the restore', async t => {
    const before = (await old.store.events.list({ limit: 100 })).items
    const after = (await store.events.list({ limit: 100 })).items
    t.same(after.slice(-before.length), before)
    t.same(
      after.slice(0, -before.length).map(({ type }) => type),
      ['store-restored', 'operation-failed', 'operation-failed'],
    )
    t.match(after[0], { who: { name: 'understudy' }, summary: /from a backup of .* 2 operations had not ended/ })
  })

  await t.test('epochs do not go backwards, whatever came after the backup', async t => {
    const later = await old.store.operations.take(old.ids.queued, 'worker', 1000)
    const outcome = await store.operations.create({
      type: 'bootstrap-cluster',
      cluster: 'accounts',
      input: {},
      requestedBy: 'ci',
    })
    if ('conflict' in outcome) throw new Error('conflict')
    const turn = await store.operations.take(outcome.created.id, 'worker', 1000)
    t.ok(later && turn && turn.epoch > later.epoch + 3_500_000, 'also where the old clock was ahead by most of an hour')
  })

  await t.test('the service works with it', async t => {
    redis.disconnect()
    const { app } = await startApp(t, { redis: fresh })
    const headers = { authorization: `Bearer ${old.token}` }
    const clusters = await app.inject({ url: '/v1/clusters', headers })
    t.same(
      clusters.json().items.map(({ name }: { name: string }) => name),
      ['accounts', 'orders', 'stock'],
    )
    const retried = await app.inject({ method: 'POST', url: `/v1/operations/${old.ids.queued}/retry`, headers })
    t.equal(retried.statusCode, 202, retried.body)
  })
})

t.test('only into an empty store that nobody uses, unless told', async t => {
  const old = await inhabited(t)
  const path = join(await directory(t), 'state.backup')
  await writeBackup(old.redis, path, { files: [], now })
  const other = await open(t)
  await other.store.tokens.create('mine')
  await t.rejects(restoreBackup(other.redis, path, { replace: false, now }), new StoreNotEmpty())
  const service = connectRedis(other.server.url, { purpose: 'requests' })
  await service.connect().catch(() => undefined)
  t.teardown(() => service.disconnect())
  await t.rejects(restoreBackup(other.redis, path, { replace: true, now }), StoreInUse)
  t.match((await other.store.events.list({ limit: 1 })).items, [{ type: 'token-created' }], 'nothing was touched')
  service.disconnect()
  await other.redis.set('somebody:else', 'stays')
  let refused: unknown
  for (let tries = 0; tries < 50; tries += 1) {
    refused = await restoreBackup(other.redis, path, { replace: true, now }).then(
      () => undefined,
      error => error,
    )
    // The server needs a moment to see that the other one has gone.
    if (!(refused instanceof StoreInUse)) break
    await new Promise(resolve => setTimeout(resolve, 100))
  }
  t.equal(refused, undefined)
  t.equal((await other.store.clusters.list()).length, 3)
  t.notOk((await other.store.events.list({ limit: 100 })).items.some(({ summary }) => summary.includes('mine')))
  t.equal(await other.redis.get('somebody:else'), 'stays')
})

t.test('what cannot be trusted is refused, and changes nothing', async t => {
  const old = await inhabited(t)
  const folder = await directory(t)
  const path = join(folder, 'state.backup')
  await writeBackup(old.redis, path, { files: [], now })
  const whole = await readFile(path, 'utf8')
  const lines = whole.split('\n')
  const fresh = await startRedis(t)
  const redis = connectRedis(fresh.url, { purpose: 'operations' })
  t.teardown(() => redis.disconnect())
  const [head = '', ...rest] = lines
  const cases: [what: string, text: string, message: RegExp][] = [
    ['one letter', whole.replace('192.0.2.11', '192.0.2.12'), /changed or damaged/],
    ['a line is missing', lines.filter((_, at) => at !== 3).join('\n'), /changed or damaged/],
    ['cut short', whole.slice(0, whole.length / 2), /damaged|not whole/],
    ['its end is missing', `${lines.slice(0, -2).join('\n')}\n`, /not whole/],
    ['something after its end', `${whole}{}\n`, /after its end/],
    ['empty', '', /not whole/],
    ['another file', 'root:x:0:0:root\n', /no backup/],
    ['other JSON', '{"a":1}\n', /no backup/],
    ['a newer format', [head.replace('"version":1', '"version":2'), ...rest].join('\n'), /newer version/],
    ['newer records', [head.replace('"schema":2', '"schema":3'), ...rest].join('\n'), /newer version/],
  ]
  for (const [what, text, message] of cases) {
    const damaged = join(folder, 'damaged')
    await writeFile(damaged, text)
    const error = await restoreBackup(redis, damaged, { replace: true, now }).catch((error: unknown) => error)
    t.ok(error instanceof BackupUnusable, `${what}: ${error}`)
    t.match((error as Error).message, message, what)
    t.same(await redis.keys('*'), [], `${what}: nothing was written`)
  }
  await appendFile(path, '')
  t.match(await restoreBackup(redis, path, { replace: false, now }), { operations: 3 }, 'the whole one is fine')
})

t.test('cut short in its middle, no service starts on it', async t => {
  const { redis } = await open(t)
  await redis.set('{understudy}:restoring', '1')
  await t.rejects(migrate(redis), new StoreHalfRestored())
})
