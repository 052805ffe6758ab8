/** Secrets at rest: AES-256-GCM under a key from a file, one place for all of them. */
import { createCipheriv, createDecipheriv, createHash, randomBytes } from 'node:crypto'
import type { Redis } from 'ioredis'
import { keys } from './keys.js'

/** Thrown when a stored secret was encrypted under another key, or was tampered with. */
export class SecretUnreadable extends Error {
  constructor(name: string, cause?: unknown) {
    super(
      `The secret ${name} cannot be decrypted with this master key. Start the service with the key file it was written with.`,
      { cause },
    )
    this.name = 'SecretUnreadable'
  }
}

export interface SecretStore {
  get(name: string): Promise<string | undefined>
  /** Keeps what is there: two processes that make the same secret at once end with the same one. */
  getOrCreate(name: string, make: () => string): Promise<string>
  /** In place of what was there. */
  set(name: string, value: string): Promise<void>
  delete(name: string): Promise<void>
  /** All whose names begin so. */
  deleteUnder(prefix: string): Promise<void>
}

/** Every secret of a cluster is named with this in front. */
export const clusterSecrets = (cluster: string) => `cluster/${cluster}/`

export const repmgrPassword = (cluster: string) => `cluster/${cluster}/repmgr`

/** While a rotation is under way: the password that the servers have, or are about to have. */
export const nextRepmgrPassword = (cluster: string) => `cluster/${cluster}/repmgr/next`

/** The CA that signs the certificates of its servers: key and certificate, as JSON. */
export const authorityOf = (cluster: string) => `cluster/${cluster}/tls/authority`

/** While TLS is changed: the CAs of before and after, because servers may have either. */
export const alsoTrusted = (cluster: string) => `cluster/${cluster}/tls/also-trusted`

/** URL-safe, so that it needs no escaping in a .pgpass or a connection string. 192 bits. */
export const makePassword = () => randomBytes(24).toString('base64url')

export function openSecretStore(redis: Redis, masterKey: Buffer): SecretStore {
  const keyId = createHash('sha256').update(masterKey).digest('hex').slice(0, 8)

  const seal = (name: string, value: string) => {
    const iv = randomBytes(12)
    const cipher = createCipheriv('aes-256-gcm', masterKey, iv).setAAD(Buffer.from(name))
    const sealed = Buffer.concat([cipher.update(value, 'utf8'), cipher.final()])
    return ['v1', keyId, iv.toString('base64'), sealed.toString('base64'), cipher.getAuthTag().toString('base64')].join(
      '.',
    )
  }
  const open = (name: string, text: string) => {
    const [version, id, iv, sealed, tag] = text.split('.')
    if (version !== 'v1' || id !== keyId || !iv || sealed === undefined || !tag) throw new SecretUnreadable(name)
    try {
      const decipher = createDecipheriv('aes-256-gcm', masterKey, Buffer.from(iv, 'base64'), { authTagLength: 16 })
      decipher.setAAD(Buffer.from(name)).setAuthTag(Buffer.from(tag, 'base64'))
      return Buffer.concat([decipher.update(Buffer.from(sealed, 'base64')), decipher.final()]).toString('utf8')
    } catch (error) {
      throw new SecretUnreadable(name, error)
    }
  }

  const get = async (name: string) => {
    const text = await redis.hget(keys.secrets, name)
    return text === null ? undefined : open(name, text)
  }
  return {
    get,
    async getOrCreate(name, make) {
      const existing = await get(name)
      if (existing !== undefined) return existing
      const value = make()
      const wasFirst = await redis.hsetnx(keys.secrets, name, seal(name, value))
      return wasFirst === 1 ? value : ((await get(name)) ?? value)
    },
    async set(name, value) {
      await redis.hset(keys.secrets, name, seal(name, value))
    },
    async delete(name) {
      await redis.hdel(keys.secrets, name)
    },
    async deleteUnder(prefix) {
      const names = (await redis.hkeys(keys.secrets)).filter(name => name.startsWith(prefix))
      if (names.length > 0) await redis.hdel(keys.secrets, ...names)
    },
  }
}
