/** Brings the records of an older version to this one's, step by step, before anybody reads them. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Redis } from 'ioredis'
import { ulid } from 'ulid'
import { keys } from './keys.js'
import { SCHEMA_VERSION } from './schema.js'

/** Thrown at start on a store that a newer version has written: this one would misread it. */
export class StoreTooNew extends Error {
  constructor(found: number) {
    super(
      `The store was written by a newer version of Understudy: its records are version ${found}, this one knows ${SCHEMA_VERSION}. ` +
        'Start that version again, or restore a backup that was made before the upgrade.',
    )
    this.name = 'StoreTooNew'
  }
}

/** Thrown at start on a store into which a restore was begun and not ended. */
export class StoreHalfRestored extends Error {
  constructor() {
    super('A restore into this store was cut short. Repeat it with --replace before the service is started.')
    this.name = 'StoreHalfRestored'
  }
}

/** Thrown when another process holds the lock for too long. */
export class MigrationStuck extends Error {
  constructor() {
    super('Another process has been upgrading the records of the store for ten minutes. Look at its log.')
    this.name = 'MigrationStuck'
  }
}

/** From the version before `to`. May be cut short anywhere and repeated: a record that has been upgraded is left alone. */
interface Migration {
  to: number
  run(redis: Redis): Promise<void>
}

const MIGRATIONS: Migration[] = [{ to: 2, run: carryVersions }]

const LOCK_MS = 60_000
const PATIENCE_MS = 600_000
const POLL_MS = 200

/** Returns the versions that it has gone through; empty where there was nothing to do. */
export async function migrate(redis: Redis): Promise<number[]> {
  if ((await redis.exists(keys.restoring)) === 1) throw new StoreHalfRestored()
  if ((await versionOf(redis)) === SCHEMA_VERSION) return []
  const holder = ulid()
  const deadline = performance.now() + PATIENCE_MS
  while ((await redis.set(keys.migrating, holder, 'PX', LOCK_MS, 'NX')) !== 'OK') {
    if (performance.now() > deadline) throw new MigrationStuck()
    await sleep(POLL_MS)
    if ((await versionOf(redis)) === SCHEMA_VERSION) return []
  }
  const renewal = setInterval(
    () => void redis.eval(RENEW, 1, keys.migrating, holder, LOCK_MS).catch(() => 0),
    LOCK_MS / 4,
  )
  try {
    const gone: number[] = []
    // Asked again: somebody else may have had the lock just before.
    for (const migration of MIGRATIONS) {
      if ((await versionOf(redis)) !== migration.to - 1) continue
      await migration.run(redis)
      const written = await redis.eval(COMPLETE, 2, keys.migrating, keys.schema, holder, String(migration.to))
      if (written !== 1) throw new MigrationStuck()
      gone.push(migration.to)
    }
    return gone
  } finally {
    clearInterval(renewal)
    await redis.eval(RELEASE, 1, keys.migrating, holder)
  }
}

const RENEW = `if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('pexpire', KEYS[1], ARGV[2]) end return 0`
const RELEASE = `if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0`
/** Only by who still has the lock. */
const COMPLETE = `
if redis.call('get', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('set', KEYS[2], ARGV[2])
return 1`

/** An empty store becomes one of this version. */
async function versionOf(redis: Redis): Promise<number> {
  const known = await redis.get(keys.schema)
  if (known === null) {
    const holds = await redis.exists(keys.clusters, keys.operations, keys.tokens, keys.secrets)
    if (holds > 0) return 1
    await redis.set(keys.schema, String(SCHEMA_VERSION), 'NX')
    return versionOf(redis)
  }
  const version = Number(known)
  if (!Number.isInteger(version) || version > SCHEMA_VERSION) throw new StoreTooNew(version)
  return version
}

async function carryVersions(redis: Redis): Promise<void> {
  for (const hash of [keys.clusters, keys.tokens]) {
    await upgradeHash(redis, hash, record => (record.schema === undefined ? { schema: 2, ...record } : record))
  }
  for (let last = '-'; ; ) {
    const ids = await redis.zrange(keys.operations, last, '+', 'BYLEX', 'LIMIT', 0, 500)
    for (const id of ids) {
      const base = await redis.hget(keys.operation(id), 'base')
      if (base === null) continue
      const { requestedBy } = JSON.parse(base) as { requestedBy: string }
      await redis.hsetnx(keys.operation(id), 'origin', JSON.stringify({ name: requestedBy }))
      await redis.hset(keys.operation(id), 'schema', '2')
    }
    const end = ids.at(-1)
    if (end === undefined) return
    last = `(${end}`
  }
}

const REPLACE = `
if redis.call('hget', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('hset', KEYS[1], ARGV[1], ARGV[3])
return 1`

/** Rewrites each record of a hash, again where somebody was faster. */
async function upgradeHash(
  redis: Redis,
  hash: string,
  upgrade: (record: Record<string, unknown>) => Record<string, unknown>,
): Promise<void> {
  for (const name of await redis.hkeys(hash)) {
    for (let text = await redis.hget(hash, name); text !== null; text = await redis.hget(hash, name)) {
      const next = JSON.stringify(upgrade(JSON.parse(text) as Record<string, unknown>))
      if (next === text || (await redis.eval(REPLACE, 1, hash, name, text, next)) === 1) break
    }
  }
}
