/** Requests that are carried out once, however often they are sent: which operation a key stands for. */
import type { Redis } from 'ioredis'
import { keys } from './keys.js'

/** A request with an `Idempotency-Key`. Neither the key itself nor what was asked for is kept: digests are. */
export interface Once {
  /** Digest of the caller and the key. */
  key: string
  /** Digest of what was asked for. */
  fingerprint: string
}

/** Long enough for who comes back after a week-end; the record is a hundred bytes. */
export const ONCE_MS = 7 * 24 * 3_600_000

/** Thrown when a key comes again with another request. Nothing was done. */
export class KeyReused extends Error {
  constructor() {
    super('This Idempotency-Key was used for another request.')
    this.name = 'KeyReused'
  }
}

/**
 * Lua, for the head of a script that creates or changes an operation, so that the key is kept in the same moment as what it
 * stands for: a crash in between loses neither. `once` gives nothing for a new key, `reused`, or the operation's id.
 */
export const ONCE_SCRIPT = `
local function once(key, fingerprint)
  if fingerprint == '' then return nil end
  local known = redis.call('get', key)
  if not known then return nil end
  if string.sub(known, 1, #fingerprint + 1) ~= fingerprint .. ' ' then return 'reused' end
  return string.sub(known, #fingerprint + 2)
end
local function remember(key, fingerprint, id)
  if fingerprint ~= '' then redis.call('set', key, fingerprint .. ' ' .. id, 'px', '${ONCE_MS}') end
end`

/** Key and fingerprint for a script; without a key, a name that is never written. */
export const onceArguments = (once: Once | undefined) => ({
  onceKey: keys.once(once?.key ?? 'none'),
  fingerprint: once?.fingerprint ?? '',
})

export interface OnceStore {
  /**
   * What the key stands for: an operation's id, '' for a request that had no operation, undefined where it is new.
   * Throws KeyReused.
   */
  find(once: Once): Promise<string | undefined>
  /** For a request that had no operation: another one with this key is refused from now on. */
  remember(once: Once): Promise<void>
}

export function openOnceStore(redis: Redis): OnceStore {
  return {
    async find({ key, fingerprint }) {
      const known = await redis.get(keys.once(key))
      if (known === null) return undefined
      if (!known.startsWith(`${fingerprint} `)) throw new KeyReused()
      return known.slice(fingerprint.length + 1)
    },
    async remember({ key, fingerprint }) {
      await redis.set(keys.once(key), `${fingerprint} `, 'PX', ONCE_MS, 'NX')
    },
  }
}
