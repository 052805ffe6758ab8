/** The records of the clusters. What they say about roles is nothing: that is read from the servers. */
import { isDeepStrictEqual } from 'node:util'
import type { Redis } from 'ioredis'
import type { Cluster } from '../cluster/model.js'
import { type Asker, THE_SERVICE } from './event.js'
import { keys } from './keys.js'
import { type PlainEvent, recordPlainEvent } from './record-event.js'
import { withoutSchema, withSchema } from './schema.js'

/** Thrown when two writers changed one record at the same time; read it again and repeat. */
export class ClusterChanged extends Error {
  constructor(name: string) {
    super(`The record of cluster ${name} was changed by somebody else at the same time.`)
    this.name = 'ClusterChanged'
  }
}

export interface ClusterStore {
  get(name: string): Promise<Cluster | undefined>
  list(): Promise<Cluster[]>
  /** False where the name is taken. `how`: what the audit trail says instead of `described`. */
  create(cluster: Cluster, asker?: Asker, how?: string): Promise<boolean>
  /** Removes the record unless an operation that has not ended is about it: then that one's id. Undefined: it is gone. */
  forget(name: string, asker?: Asker): Promise<{ conflict: string } | undefined>
  /** The same for the operation itself that ends the cluster. */
  remove(name: string): Promise<void>
  /** Applies `change` to the newest record, again if somebody was faster. Returns the new record. */
  update(name: string, change: (cluster: Cluster) => Cluster, asker?: Asker): Promise<Cluster>
}

const CREATE = `
if redis.call('hsetnx', KEYS[1], ARGV[1], ARGV[2]) == 0 then return 0 end
${recordPlainEvent('cluster-described', 'ARGV[3]')}
return 1`

const FORGET = `
local active = redis.call('get', KEYS[2])
if active and ARGV[3] == '' then return active end
if redis.call('hdel', KEYS[1], ARGV[1]) == 1 then ${recordPlainEvent('cluster-forgotten', 'ARGV[2]')} end
return false`

/** Replaces the record only where it is still the version that was read. */
const REPLACE = `
local current = redis.call('hget', KEYS[1], ARGV[1])
if not current or cjson.decode(current).version ~= tonumber(ARGV[2]) then return 0 end
redis.call('hset', KEYS[1], ARGV[1], ARGV[3])
if ARGV[4] ~= '' then ${recordPlainEvent('cluster-changed', 'ARGV[4]')} end
return 1`

/** Of writers side by side one wins each round, so this is also how many may write one record at once. */
const MAX_TRIES = 100

export function openClusterStore(redis: Redis): ClusterStore {
  const get = async (name: string) => {
    const text = await redis.hget(keys.clusters, name)
    return text === null ? undefined : withoutSchema<Cluster>(text)
  }
  return {
    get,
    async list() {
      const all = await redis.hvals(keys.clusters)
      return all.map(text => withoutSchema<Cluster>(text)).sort((a, b) => (a.name < b.name ? -1 : 1))
    },
    async create(cluster, who = THE_SERVICE, detail = '') {
      const event = { cluster: cluster.name, who, ...(detail === '' ? {} : { detail }) } satisfies PlainEvent
      const record = withSchema(cluster)
      return (await redis.eval(CREATE, 1, keys.clusters, cluster.name, record, JSON.stringify(event))) === 1
    },
    async forget(name, who = THE_SERVICE) {
      const event = { cluster: name, who } satisfies PlainEvent
      const active = await redis.eval(
        FORGET,
        2,
        keys.clusters,
        keys.activeOperation(name),
        name,
        JSON.stringify(event),
        '',
      )
      return typeof active === 'string' ? { conflict: active } : undefined
    },
    async remove(name) {
      const event = { cluster: name, who: THE_SERVICE } satisfies PlainEvent
      await redis.eval(
        FORGET,
        2,
        keys.clusters,
        keys.activeOperation(name),
        name,
        JSON.stringify(event),
        'despite the operation',
      )
    },
    async update(name, change, who = THE_SERVICE) {
      for (let attempt = 0; attempt < MAX_TRIES; attempt += 1) {
        const current = await get(name)
        if (!current) throw new ClusterChanged(name)
        const next: Cluster = { ...change(current), version: current.version + 1 }
        const detail = changedFields(current, next).join(', ')
        const event = { cluster: name, who, detail } satisfies PlainEvent
        const replaced = await redis.eval(
          REPLACE,
          1,
          keys.clusters,
          name,
          String(current.version),
          withSchema(next),
          // A repeated call writes the same again: nothing to tell.
          detail === '' ? '' : JSON.stringify(event),
        )
        if (replaced === 1) return next
      }
      throw new ClusterChanged(name)
    },
  }
}

function changedFields(before: Cluster, after: Cluster): string[] {
  const fields = new Set([...Object.keys(before), ...Object.keys(after)]) as Set<keyof Cluster>
  return [...fields].filter(field => field !== 'version' && !isDeepStrictEqual(before[field], after[field])).sort()
}
