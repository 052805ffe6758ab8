/** Connections to Redis, and what is asked of it before the service trusts it. */
import { Redis, type RedisOptions } from 'ioredis'
import { connectionOf, type RedisUrl } from './redis-url.js'

/** Thrown at start when the Redis that was given would lose or evict what the service keeps in it. */
export class RedisUnfit extends Error {
  constructor(problem: string, remedy: string) {
    super(`Redis is not fit to be the store: ${problem} ${remedy}`)
    this.name = 'RedisUnfit'
  }
}

/** Thrown when the store does not answer; requests become 503, running operations wait. */
export class StoreUnavailable extends Error {
  constructor(cause: unknown) {
    super('The store (Redis) does not answer.', { cause })
    this.name = 'StoreUnavailable'
  }
}

export interface ConnectionPurpose {
  /**
   * `requests` fails within two seconds, so that a caller hears of it. `operations` waits for as long as it takes: an
   * operation under way is not given up because Redis was restarted.
   */
  purpose: 'requests' | 'operations'
  onError?: (error: Error) => void
}

export function connectRedis(url: RedisUrl, { purpose, onError }: ConnectionPurpose): Redis {
  const options = {
    connectionName: `understudy-${purpose}`,
    retryStrategy: attempt => Math.min(50 * 2 ** Math.min(attempt, 5), 1000),
    sentinelRetryStrategy: attempt => Math.min(50 * 2 ** Math.min(attempt, 5), 1000),
    // It was the master until just now: whoever is it by now gets the command, which this one did not carry out.
    reconnectOnError: error => (error.message.includes('READONLY') ? 2 : false),
    ...(purpose === 'requests'
      ? { enableOfflineQueue: false, maxRetriesPerRequest: 0, commandTimeout: 2000, connectTimeout: 2000 }
      : { maxRetriesPerRequest: null }),
  } satisfies RedisOptions
  const { target, options: where } = connectionOf(url)
  const redis = target === undefined ? new Redis({ ...options, ...where }) : new Redis(target, options)
  // Without a listener a lost connection would be an uncaught exception.
  redis.on('error', error => onError?.(error))
  return redis
}

/** Waits until the connection is usable. Throws `StoreUnavailable` after `timeoutMs`. */
export async function untilReady(redis: Redis, timeoutMs: number): Promise<void> {
  if (redis.status === 'ready') return
  let timer: NodeJS.Timeout | undefined
  try {
    await new Promise<void>((resolve, reject) => {
      let last: unknown
      redis.once('ready', resolve)
      redis.on('error', error => {
        last = error
      })
      timer = setTimeout(() => reject(new StoreUnavailable(last)), timeoutMs)
    })
  } finally {
    clearTimeout(timer)
  }
}

/**
 * Reads `INFO`, which managed services allow where they forbid `CONFIG`.
 * @throws RedisUnfit when it evicts, does not persist, is a read-only replica, or is older than 6.2 (BullMQ's minimum).
 */
export async function checkRedis(redis: Redis): Promise<void> {
  const info = new Map<string, string>()
  for (const line of (await redis.info()).split(/\r?\n/)) {
    const colon = line.indexOf(':')
    if (colon > 0) info.set(line.slice(0, colon), line.slice(colon + 1))
  }
  const [major = 0, minor = 0] = (info.get('redis_version') ?? '').split('.').map(Number)
  if (major < 6 || (major === 6 && minor < 2)) {
    throw new RedisUnfit(`it is version ${info.get('redis_version')}.`, 'Use Redis 6.2 or later, or Valkey.')
  }
  if (info.get('role') !== 'master') {
    throw new RedisUnfit('it is a read-only replica.', 'Point REDIS_URL at the master.')
  }
  const policy = info.get('maxmemory_policy')
  if (policy !== 'noeviction') {
    throw new RedisUnfit(
      `its maxmemory-policy is ${policy}, so it may drop records.`,
      'Set "maxmemory-policy noeviction".',
    )
  }
  if (info.get('aof_enabled') !== '1') {
    throw new RedisUnfit('it does not keep an append-only file, so a restart loses records.', 'Set "appendonly yes".')
  }
}

/** Turns the connection errors of ioredis into ours; anything else passes. */
export function asStoreError(error: unknown): unknown {
  const message = error instanceof Error ? error.message : ''
  const lost =
    /Stream isn't writeable|Connection is closed|Command timed out|max retries per request|ECONNREFUSED|ENOENT|ECONNRESET|EPIPE|LOADING|READONLY|MISCONF/i
  return lost.test(message) ? new StoreUnavailable(error) : error
}
