/** Calling an operation off, and having it tried again: each is one script, so that no worker gets in between. */
import type { Redis } from 'ioredis'
import type { OperationFailure, OperationState, RequestRecord } from '../operations/operation.js'
import type { Asker } from './event.js'
import { keys } from './keys.js'
import { KeyReused, ONCE_SCRIPT, type Once, onceArguments } from './once.js'
import { returnIfOutdated } from './outdated.js'
import { recordOperationEvent } from './record-event.js'

export type CancelOutcome =
  /** Nobody had begun it: it is cancelled. */
  | 'cancelled'
  /** Its worker, or the next one, ends it. */
  | 'asked'
  /** Too late. */
  | 'ended'

export type RetryOutcome =
  | { outcome: 'queued' }
  /** The cluster is another operation's. */
  | { outcome: 'conflict'; operation: string }
  /** The cluster has been forgotten, and another one was described under its name. */
  | { outcome: 'replaced' }
  /** The cluster has been changed since it ended; by this later operation, where one has succeeded. */
  | { outcome: 'overtaken'; operation?: string }
  /** It is not one that failed or was cancelled. */
  | { outcome: 'refused'; state: OperationState }

/** How it was asked for. */
export interface AskedFor {
  once?: Once
  /** For the audit trail: more about who asked. */
  requestedFrom?: Omit<Asker, 'name'>
}

export interface CancelRetryStore {
  /** Undefined: there is no such operation. Throws KeyReused. */
  cancel(id: string, request: RequestRecord, asked?: AskedFor): Promise<CancelOutcome | undefined>
  /** Queued again with its journal. Undefined: there is no such operation. Throws KeyReused. */
  retry(id: string, request: RequestRecord, asked?: AskedFor): Promise<RetryOutcome | undefined>
  /** Who wants a running operation to be cancelled, if anybody does. */
  cancelRequest(id: string): Promise<RequestRecord | undefined>
}

/**
 * One that no worker has ever taken has left nothing on any host, and ends here. Every other one is ended by a worker, who
 * looks what still runs on the hosts: also the interrupted one that has no worker now.
 */
const CANCEL = `${ONCE_SCRIPT}
local known = once(KEYS[7], ARGV[2])
if known == 'reused' then return 'reused' end
if known then return 'asked' end
local state = redis.call('hget', KEYS[1], 'state')
if not state then return false end
if state == 'succeeded' or state == 'failed' or state == 'cancelled' then return 'ended' end
remember(KEYS[7], ARGV[2], ARGV[1])
if redis.call('hsetnx', KEYS[1], 'cancelRequest', ARGV[3]) == 0 then return 'asked' end
${recordOperationEvent("'operation-cancel-requested'", { asker: 'ARGV[8]' })}
if state ~= 'queued' or tonumber(redis.call('hget', KEYS[1], 'turns') or '0') > 0 then
  redis.call('xadd', KEYS[5], '*', 'type', 'state', 'data', '{"state":"' .. state .. '",' .. ARGV[7] .. '}')
  redis.call('publish', KEYS[6], ARGV[1])
  return 'asked'
end
redis.call('hset', KEYS[1], 'state', 'cancelled', 'endedAt', ARGV[4], 'error', ARGV[5])
redis.call('del', KEYS[2])
if redis.call('get', KEYS[3]) == ARGV[1] then redis.call('del', KEYS[3]) end
redis.call('srem', KEYS[4], ARGV[1])
redis.call('xadd', KEYS[5], '*', 'type', 'state', 'data', ARGV[6])
redis.call('publish', KEYS[6], ARGV[1])
${recordOperationEvent("'operation-cancelled'", { asker: 'ARGV[8]' })}
return 'cancelled'`

/** Its earlier end stays in its events. */
const RETRY = `${ONCE_SCRIPT}
local known = once(KEYS[6], ARGV[2])
if known == 'reused' then return {'reused'} end
if known then return {'queued'} end
local state = redis.call('hget', KEYS[1], 'state')
if not state then return false end
if state ~= 'failed' and state ~= 'cancelled' then return {'refused', state} end
local active = redis.call('get', KEYS[2])
if active and active ~= ARGV[1] then return {'conflict', active} end
${returnIfOutdated('KEYS[1]', {
  id: 'ARGV[1]',
  clusters: 'KEYS[7]',
  cluster: 'ARGV[6]',
  operationsOf: 'KEYS[8]',
  keyPrefix: `'${keys.operation('')}'`,
})}
remember(KEYS[6], ARGV[2], ARGV[1])
redis.call('set', KEYS[2], ARGV[1])
redis.call('sadd', KEYS[3], ARGV[1])
redis.call('hdel', KEYS[1], 'endedAt', 'error', 'result', 'cancelRequest')
redis.call('hset', KEYS[1], 'state', 'queued', 'epoch', '0', 'lastRetry', ARGV[3])
redis.call('hincrby', KEYS[1], 'retries', 1)
redis.call('xadd', KEYS[4], '*', 'type', 'state', 'data', ARGV[4])
redis.call('publish', KEYS[5], ARGV[1])
${recordOperationEvent("'operation-retried'", { asker: 'ARGV[5]' })}
return {'queued'}`

const NOT_BEGUN: Omit<OperationFailure, 'detail'> = {
  code: 'cancelled',
  outcome: 'not_started',
  remedy: 'Nothing was touched. Retry the operation if it is wanted after all.',
}

export function openCancelRetryStore(redis: Redis): CancelRetryStore {
  const clusterOf = async (id: string) => {
    const base = await redis.hget(keys.operation(id), 'base')
    return base === null ? undefined : (JSON.parse(base) as { cluster: string }).cluster
  }
  return {
    async cancel(id, request, { once, requestedFrom } = {}) {
      const cluster = await clusterOf(id)
      if (cluster === undefined) return undefined
      const { onceKey, fingerprint } = onceArguments(once)
      const error: OperationFailure = {
        ...NOT_BEGUN,
        detail: `It was cancelled by ${request.by} before a worker had begun it.`,
      }
      const outcome = await redis.eval(
        CANCEL,
        7,
        keys.operation(id),
        keys.lease(id),
        keys.activeOperation(cluster),
        keys.openOperations,
        keys.events(id),
        keys.changed,
        onceKey,
        id,
        fingerprint,
        JSON.stringify(request),
        request.at,
        JSON.stringify(error),
        JSON.stringify({ state: 'cancelled', error }),
        JSON.stringify({ cancelRequest: request }).slice(1, -1),
        JSON.stringify({ name: request.by, ...requestedFrom } satisfies Asker),
      )
      if (outcome === 'reused') throw new KeyReused()
      return (outcome as CancelOutcome | null) ?? undefined
    },

    async retry(id, request, { once, requestedFrom } = {}) {
      const cluster = await clusterOf(id)
      if (cluster === undefined) return undefined
      const { onceKey, fingerprint } = onceArguments(once)
      const answer = (await redis.eval(
        RETRY,
        8,
        keys.operation(id),
        keys.activeOperation(cluster),
        keys.openOperations,
        keys.events(id),
        keys.changed,
        onceKey,
        keys.clusters,
        keys.operationsOf(cluster),
        id,
        fingerprint,
        JSON.stringify(request),
        JSON.stringify({ state: 'queued', retry: request }),
        JSON.stringify({ name: request.by, ...requestedFrom } satisfies Asker),
        cluster,
      )) as [string, string?] | null
      switch (answer?.[0]) {
        case undefined:
          return undefined
        case 'reused':
          throw new KeyReused()
        case 'conflict':
          return { outcome: 'conflict', operation: String(answer?.[1]) }
        case 'replaced':
          return { outcome: 'replaced' }
        case 'overtaken':
          return { outcome: 'overtaken', ...(answer?.[1] ? { operation: answer[1] } : {}) }
        case 'refused':
          return { outcome: 'refused', state: answer?.[1] as OperationState }
        default:
          return { outcome: 'queued' }
      }
    },

    async cancelRequest(id) {
      const text = await redis.hget(keys.operation(id), 'cancelRequest')
      return text === null ? undefined : (JSON.parse(text) as RequestRecord)
    },
  }
}
