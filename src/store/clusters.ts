/** The records of the clusters. What they say about roles is nothing: that is read from the servers. */
import type { Redis } from 'ioredis'
import type { Cluster } from '../cluster/model.js'
import { keys } from './keys.js'

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
  /** False where the name is taken. */
  create(cluster: Cluster): Promise<boolean>
  /** Applies `change` to the newest record, again if somebody was faster. Returns the new record. */
  update(name: string, change: (cluster: Cluster) => Cluster): Promise<Cluster>
}

/** Replaces the record only where it is still the version that was read. */
const REPLACE = `
local current = redis.call('hget', KEYS[1], ARGV[1])
if not current or cjson.decode(current).version ~= tonumber(ARGV[2]) then return 0 end
redis.call('hset', KEYS[1], ARGV[1], ARGV[3])
return 1`

/** Of writers side by side one wins each round, so this is also how many may write one record at once. */
const MAX_TRIES = 100

export function openClusterStore(redis: Redis): ClusterStore {
  const get = async (name: string) => {
    const text = await redis.hget(keys.clusters, name)
    return text === null ? undefined : (JSON.parse(text) as Cluster)
  }
  return {
    get,
    async list() {
      const all = await redis.hvals(keys.clusters)
      return all.map(text => JSON.parse(text) as Cluster).sort((a, b) => (a.name < b.name ? -1 : 1))
    },
    async create(cluster) {
      return (await redis.hsetnx(keys.clusters, cluster.name, JSON.stringify(cluster))) === 1
    },
    async update(name, change) {
      for (let attempt = 0; attempt < MAX_TRIES; attempt += 1) {
        const current = await get(name)
        if (!current) throw new ClusterChanged(name)
        const next: Cluster = { ...change(current), version: current.version + 1 }
        const replaced = await redis.eval(
          REPLACE,
          1,
          keys.clusters,
          name,
          String(current.version),
          JSON.stringify(next),
        )
        if (replaced === 1) return next
      }
      throw new ClusterChanged(name)
    },
  }
}
