/**
 * Whether the store may vote on a promotion. It may where it cannot have given the same cluster to two controllers: one
 * Redis, which writes each answer to its disk before it gives it, and is the very process that this one has known for longer
 * than any lease lasts. Behind Sentinel a copy that lags may become the master; then a witness has to vote in its place.
 */
import type { Redis } from 'ioredis'

export type StoreVote = { may: true } | { may: false; reason: string; waitMs?: number }

export interface StoreVoter {
  /** `waitMs`: it may by then, if nothing happens to it. */
  vote(): Promise<StoreVote>
}

/** A lease of ten seconds, and a margin. */
const QUARANTINE_MS = 15_000

export function openStoreVoter(redis: Redis, quarantineMs = QUARANTINE_MS): StoreVoter {
  let known: { run: string; sinceMs: number } | undefined
  const look = async () => {
    const info = await redis.info()
    const field = (name: string) => new RegExp(`^${name}:(.*?)\\r?$`, 'm').exec(info)?.[1]
    const run = `${field('run_id')} ${field('master_replid')}`
    if (known?.run !== run) known = { run, sinceMs: performance.now() }
    return { mode: field('redis_mode'), role: field('role'), sinceMs: known.sinceMs }
  }
  redis.once('ready', () => void look().catch(() => undefined))
  return {
    async vote() {
      const { mode, role, sinceMs } = await look()
      if (redis.options.sentinels?.length)
        return { may: false, reason: 'it is reached by Sentinel, and a failover of its own may lose its last second' }
      if (mode !== 'standalone' || role !== 'master') return { may: false, reason: `it is a ${mode} ${role}` }
      const [, fsync] = (await redis.config('GET', 'appendfsync').catch(() => [])) as string[]
      if (fsync !== 'always')
        return { may: false, reason: `its appendfsync is ${fsync ?? 'not to be read'}, and would have to be always` }
      const waitMs = Math.ceil(sinceMs + quarantineMs - performance.now())
      return waitMs > 0
        ? { may: false, reason: `it, or this service, was started less than ${quarantineMs / 1000} s ago`, waitMs }
        : { may: true }
    },
  }
}
