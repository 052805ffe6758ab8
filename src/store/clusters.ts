/** The records of the clusters. What they say about roles is nothing: that is read from the servers. */
import { isDeepStrictEqual } from 'node:util'
import type { Redis } from 'ioredis'
import type { Cluster } from '../cluster/model.js'
import { type Asker, type EventType, THE_SERVICE } from './event.js'
import { keys } from './keys.js'
import { type PlainEvent, recordEventOfType, recordPlainEvent } from './record-event.js'
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
  /**
   * The same for what is no part of the description, such as a pause: the version stays, so that an operation may still be
   * retried. `decide` makes the new record, and what is told of it; undefined where nothing is to be done. Returns the
   * record as it is then; undefined where there is none.
   */
  amend(name: string, decide: (cluster: Cluster) => Amendment | undefined): Promise<Cluster | undefined>
}

export interface Amendment {
  cluster: Cluster
  event?: { type: EventType; who: Asker; detail: string }
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

/** Replaces the record only where it is still, to the letter, what was read. */
const REPLACE = `
if redis.call('hget', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('hset', KEYS[1], ARGV[1], ARGV[3])
if ARGV[4] ~= '' then ${recordEventOfType('ARGV[5]', 'ARGV[4]')} end
return 1`

/** Of writers side by side one wins each round, so this is also how many may write one record at once. */
const MAX_TRIES = 100

export function openClusterStore(redis: Redis): ClusterStore {
  const get = async (name: string) => {
    const text = await redis.hget(keys.clusters, name)
    return text === null ? undefined : withoutSchema<Cluster>(text)
  }
  /** False where somebody was faster. */
  const replace = async (name: string, read: string, next: Cluster, type: EventType, event?: PlainEvent) =>
    (await redis.eval(
      REPLACE,
      1,
      keys.clusters,
      name,
      read,
      withSchema(next),
      event ? JSON.stringify(event) : '',
      type,
    )) === 1
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
        const read = await redis.hget(keys.clusters, name)
        if (read === null) throw new ClusterChanged(name)
        const current = withoutSchema<Cluster>(read)
        const next: Cluster = { ...change(current), version: current.version + 1 }
        const detail = changedFields(current, next).join(', ')
        const event = { cluster: name, who, detail } satisfies PlainEvent
        // A repeated call writes the same again: nothing to tell.
        if (await replace(name, read, next, 'cluster-changed', detail === '' ? undefined : event)) return next
      }
      throw new ClusterChanged(name)
    },
    async amend(name, decide) {
      for (let attempt = 0; attempt < MAX_TRIES; attempt += 1) {
        const read = await redis.hget(keys.clusters, name)
        if (read === null) return undefined
        const current = withoutSchema<Cluster>(read)
        const amendment = decide(current)
        if (!amendment) return current
        const { cluster: next, event } = amendment
        const { type, ...told } = event ?? { type: 'cluster-changed' as const, who: THE_SERVICE, detail: '' }
        if (await replace(name, read, next, type, event ? { cluster: name, ...told } : undefined)) return next
      }
      throw new ClusterChanged(name)
    },
  }
}

function changedFields(before: Cluster, after: Cluster): string[] {
  const fields = new Set([...Object.keys(before), ...Object.keys(after)]) as Set<keyof Cluster>
  return [...fields].filter(field => field !== 'version' && !isDeepStrictEqual(before[field], after[field])).sort()
}
