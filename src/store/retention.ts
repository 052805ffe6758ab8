/** Drops what is old: operations that have ended, with all that is theirs, and the far end of the audit trail. */
import type { Redis } from 'ioredis'
import { encodeTime } from 'ulid'
import type { Logger } from '../logging.js'
import { keys, keysOfOperation } from './keys.js'

export interface Retention {
  operationDays: number
  eventDays: number
}

const DAY_MS = 86_400_000
const HOUR_MS = 3_600_000
const BATCH = 200

/** One that has not ended is kept, however old; so is one that was old when it was retried, and has ended lately. */
const REMOVE = `
local state = redis.call('hget', KEYS[1], 'state')
if state and state ~= 'succeeded' and state ~= 'failed' and state ~= 'cancelled' then return 0 end
local ended = redis.call('hget', KEYS[1], 'endedAt')
if ended and ended >= ARGV[2] then return 0 end
for at = 3, #KEYS do redis.call('del', KEYS[at]) end
redis.call('del', KEYS[1])
redis.call('zrem', KEYS[2], ARGV[1])
if ARGV[3] ~= '' then redis.call('zrem', ARGV[3], ARGV[1]) end
return 1`

/** Returns how many of each were dropped. */
export async function sweep(
  redis: Redis,
  { operationDays, eventDays }: Retention,
  nowMs: number,
): Promise<{ operations: number; events: number }> {
  const before = nowMs - operationDays * DAY_MS
  let operations = 0
  // Ids begin with their time.
  const end = `(op_${encodeTime(Math.max(0, before), 10)}`
  for (let start = '-'; ; ) {
    const ids = await redis.zrange(keys.operations, start, end, 'BYLEX', 'LIMIT', 0, BATCH)
    for (const id of ids) {
      const base = await redis.hget(keys.operation(id), 'base')
      const cluster = base === null ? undefined : (JSON.parse(base) as { cluster: string }).cluster
      const [record = '', ...others] = keysOfOperation(id)
      const removed = await redis.eval(
        REMOVE,
        2 + others.length,
        record,
        keys.operations,
        ...others,
        id,
        new Date(before).toISOString(),
        cluster === undefined ? '' : keys.operationsOf(cluster),
      )
      if (removed === 1) operations += 1
    }
    const last = ids.at(-1)
    if (last === undefined) break
    start = `(${last}`
  }
  const events = await redis.xtrim(keys.trail, 'MINID', Math.max(0, nowMs - eventDays * DAY_MS))
  return { operations, events }
}

/** Once an hour, by one of however many processes there are. Returns how to end it. */
export function startSweeping(redis: Redis, retention: Retention, logger: Logger): () => Promise<void> {
  let running: Promise<void> = Promise.resolve()
  const once = async () => {
    try {
      // A little less than the hour, so that it is not every second one.
      if ((await redis.set(keys.swept, '1', 'PX', HOUR_MS - 60_000, 'NX')) !== 'OK') return
      const dropped = await sweep(redis, retention, Date.now())
      if (dropped.operations + dropped.events > 0) logger.info(dropped, 'dropped what was older than its retention')
    } catch (error) {
      logger.warn({ err: error }, 'old records could not be dropped; the next hour tries again')
    }
  }
  const begin = () => {
    running = running.then(once)
  }
  begin()
  const timer = setInterval(begin, HOUR_MS)
  return async () => {
    clearInterval(timer)
    await running
  }
}
