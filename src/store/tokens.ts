/** Bearer tokens. They are long and random, so a plain SHA-256 is enough to keep them by. */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import type { Redis } from 'ioredis'
import { ulid } from 'ulid'
import { type Asker, THE_SERVICE } from './event.js'
import { keys } from './keys.js'
import { type PlainEvent, recordPlainEvent } from './record-event.js'
import { withoutSchema, withSchema } from './schema.js'

export interface Principal {
  tokenId: string
  name: string
  role: 'admin'
}

interface TokenRecord {
  name: string
  role: 'admin'
  sha256: string
  createdAt: string
}

export interface TokenStore {
  /** Returns the token itself, the only time that it is known. */
  create(name: string, asker?: Asker): Promise<string>
  /** Takes in a token that was made before, for a store that has lost it. */
  adopt(name: string, token: string): Promise<void>
  verify(token: string): Promise<Principal | undefined>
  isEmpty(): Promise<boolean>
}

const ADOPT = `
redis.call('hset', KEYS[1], ARGV[1], ARGV[2])
${recordPlainEvent('token-created', 'ARGV[3]')}`

const FORM = /^und_([0-9a-z]{26})_([A-Za-z0-9_-]{43})$/

export function openTokenStore(redis: Redis, now: () => Date = () => new Date()): TokenStore {
  const adopt = async (name: string, token: string, who: Asker = THE_SERVICE) => {
    const id = FORM.exec(token)?.[1]
    if (id === undefined) throw new TypeError('not a token of this service')
    const record: TokenRecord = { name, role: 'admin', sha256: digest(token), createdAt: now().toISOString() }
    const event = { who, detail: name } satisfies PlainEvent
    await redis.eval(ADOPT, 1, keys.tokens, id, withSchema(record), JSON.stringify(event))
  }
  return {
    adopt,
    async create(name, asker) {
      const token = makeToken()
      await adopt(name, token, asker)
      return token
    },
    async verify(token) {
      const id = FORM.exec(token)?.[1]
      if (id === undefined) return undefined
      const text = await redis.hget(keys.tokens, id)
      if (text === null) return undefined
      const record = withoutSchema<TokenRecord>(text)
      if (!timingSafeEqual(Buffer.from(record.sha256), Buffer.from(digest(token)))) return undefined
      return { tokenId: id, name: record.name, role: record.role }
    },
    isEmpty: async () => (await redis.hlen(keys.tokens)) === 0,
  }
}

/** A new token. Nobody knows it until it is adopted. */
export const makeToken = () => `und_${ulid().toLowerCase()}_${randomBytes(32).toString('base64url')}`

const digest = (token: string) => createHash('sha256').update(token).digest('hex')

/** Whether a text has the form of a token, without asking the store. */
export const looksLikeToken = (text: string) => FORM.test(text)
