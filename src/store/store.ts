/** The store, whole: one Redis connection and everything that is kept in it. */
import type { Redis } from 'ioredis'
import { type ClusterStore, openClusterStore } from './clusters.js'
import { type EventStore, openEventStore } from './events.js'
import { type OnceStore, openOnceStore } from './once.js'
import { type OperationStore, openOperationStore } from './operations.js'
import { openSecretStore, type SecretStore } from './secrets.js'
import { openTokenStore, type TokenStore } from './tokens.js'
import { openStoreVoter, type StoreVoter } from './voter.js'

export interface Store {
  clusters: ClusterStore
  events: EventStore
  operations: OperationStore
  once: OnceStore
  secrets: SecretStore
  tokens: TokenStore
  voter: StoreVoter
  ping(): Promise<void>
}

export function openStore(redis: Redis, masterKey: Buffer): Store {
  return {
    clusters: openClusterStore(redis),
    events: openEventStore(redis),
    operations: openOperationStore(redis),
    once: openOnceStore(redis),
    secrets: openSecretStore(redis, masterKey),
    tokens: openTokenStore(redis),
    voter: openStoreVoter(redis),
    async ping() {
      await redis.ping()
    },
  }
}
