/**
 * The records of the operations, the lease of the worker that runs one, and its journal. Each write of a worker carries
 * its epoch and is refused once a newer one has taken over.
 */
import type { Redis } from 'ioredis'
import { ulid } from 'ulid'
import type { Journal } from '../operations/journal.js'
import type {
  Difference,
  Operation,
  OperationFailure,
  OperationResult,
  OperationState,
  RequestRecord,
  StepRecord,
} from '../operations/operation.js'
import type { Progress } from '../operations/step.js'
import { type CancelRetryStore, openCancelRetryStore } from './cancel-retry.js'
import type { Asker } from './event.js'
import { keys } from './keys.js'
import { KeyReused, ONCE_SCRIPT, type Once, onceArguments } from './once.js'
import { rememberVersion } from './outdated.js'
import { recordOperationEvent } from './record-event.js'
import { SCHEMA_VERSION } from './schema.js'

export interface OperationRequest {
  type: Operation['type']
  cluster: string
  node?: string
  input: unknown
  requestedBy: string
  differences?: Difference[]
  /** For the audit trail: more about who asked. */
  requestedFrom?: Omit<Asker, 'name'>
  reference?: string
  forced?: true
  planId?: string
}

/** Under which conditions an operation is created. */
export interface CreateConditions {
  once?: Once
  /** The version that the cluster's record must still have. */
  clusterVersion?: number
}

/** Thrown when the cluster's record is another one than the caller has seen. Nothing was created. */
export class RecordChanged extends Error {
  constructor(cluster: string) {
    super(`The record of cluster ${cluster} has changed.`)
    this.name = 'RecordChanged'
  }
}

export type OperationEventType = 'state' | 'step' | 'log' | 'progress'

export interface OperationEvent {
  /** Redis stream id, `<ms>-<n>`. */
  id: string
  type: OperationEventType
  data: Record<string, unknown>
}

/** A worker's hold on an operation. */
export interface Turn {
  operationId: string
  worker: string
  epoch: number
}

/** Thrown when this worker's epoch is not the newest any more. */
export class TurnLost extends Error {
  constructor(operationId: string) {
    super(`Another worker has taken over operation ${operationId}.`)
    this.name = 'TurnLost'
  }
}

export interface OperationPage {
  items: Operation[]
  nextCursor?: string
}

export interface OperationStore extends CancelRetryStore {
  /**
   * Records it as queued, unless the cluster has an operation that has not ended: then that one's id. With a key that was
   * used for the same request before: that request's operation, as it is now. Throws KeyReused and RecordChanged.
   */
  create(
    request: OperationRequest,
    conditions?: CreateConditions,
  ): Promise<{ created: Operation; repeated?: true } | { conflict: string }>
  get(id: string): Promise<Operation | undefined>
  input(id: string): Promise<unknown>
  /** `createdAt` of the cluster's record when it was asked for: tells that cluster from another one of the same name. */
  clusterCreatedAt(id: string): Promise<string | undefined>
  list(filter: { cluster?: string; limit: number; before?: string }): Promise<OperationPage>
  activeOn(cluster: string): Promise<string | undefined>
  openIds(): Promise<string[]>

  /** Takes the operation for a worker; undefined where another one has it or it has ended. */
  take(id: string, worker: string, leaseMs: number): Promise<Turn | undefined>
  /** False once another worker has taken over. A lease that merely ran out is taken up again. */
  renew(turn: Turn, leaseMs: number): Promise<boolean>
  hasWorker(id: string): Promise<boolean>
  /** For how long the worker of this epoch still has the operation; 0: it has not. */
  leaseLeftMs(id: string, epoch: number): Promise<number>
  /** For an operation without a worker: says so in its record. False where it has one, or has ended. */
  markInterrupted(id: string): Promise<boolean>
  /** Gives it back unfinished, for another worker. */
  release(turn: Turn): Promise<void>
  finish(turn: Turn, end: { state: OperationState; result?: OperationResult; error?: OperationFailure }): Promise<void>
  /** True for the one caller that may queue it again now. */
  mayRequeue(id: string, withinMs: number): Promise<boolean>

  journal(turn: Turn, onError: (error: unknown) => void): Journal
  /** Events after `after`, at most `count`, oldest first. */
  events(id: string, after: string, count: number): Promise<OperationEvent[]>
}

/** About 20 000 lines and step changes are kept of one operation. */
const MAX_EVENTS = 20_000
/** Characters. With the number above it bounds what one operation takes of the store. */
const MAX_LINE = 2000
const PROGRESS_INTERVAL_MS = 1000

const CREATE = `${ONCE_SCRIPT}
local known = once(KEYS[8], ARGV[5])
if known == 'reused' then return {'reused'} end
if known and known ~= '' then return {'repeated', known} end
local cluster = redis.call('hget', KEYS[9], ARGV[7])
if ARGV[6] ~= '' then
  if not cluster or cjson.decode(cluster).version ~= tonumber(ARGV[6]) then return {'changed'} end
end
local active = redis.call('get', KEYS[1])
if active then return {'conflict', active} end
remember(KEYS[8], ARGV[5], ARGV[1])
redis.call('set', KEYS[1], ARGV[1])
redis.call('hset', KEYS[2], 'base', ARGV[2], 'input', ARGV[3], 'state', 'queued', 'epoch', '0', 'turns', '0', 'origin', ARGV[4],
  'schema', '${SCHEMA_VERSION}')
if cluster then redis.call('hset', KEYS[2], 'clusterCreatedAt', cjson.decode(cluster).createdAt or '') end
${rememberVersion('KEYS[2]', 'KEYS[9]', 'ARGV[7]')}
redis.call('zadd', KEYS[3], 0, ARGV[1])
redis.call('zadd', KEYS[4], 0, ARGV[1])
redis.call('sadd', KEYS[5], ARGV[1])
redis.call('xadd', KEYS[6], '*', 'type', 'state', 'data', '{"state":"queued"}')
redis.call('publish', KEYS[7], ARGV[1])
${recordOperationEvent("'operation-created'", { record: 'KEYS[2]' })}
return {'created'}`

const TAKE = `
local state = redis.call('hget', KEYS[1], 'state')
if not state or state == 'succeeded' or state == 'failed' or state == 'cancelled' then return false end
if redis.call('exists', KEYS[2]) == 1 then return false end
local time = redis.call('time')
local epoch = math.floor(tonumber(time[1]) * 1000 + tonumber(time[2]) / 1000)
local last = tonumber(redis.call('get', KEYS[3]) or '0')
if epoch <= last then epoch = last + 1 end
local text = string.format('%.0f', epoch)
redis.call('set', KEYS[3], text)
redis.call('set', KEYS[2], ARGV[1], 'px', ARGV[2])
redis.call('hset', KEYS[1], 'epoch', text, 'state', 'running')
redis.call('hsetnx', KEYS[1], 'startedAt', ARGV[3])
redis.call('hincrby', KEYS[1], 'turns', 1)
redis.call('xadd', KEYS[4], 'maxlen', '~', ARGV[5], '*', 'type', 'state', 'data', '{"state":"running"}')
redis.call('publish', KEYS[5], ARGV[4])
${recordOperationEvent("'operation-started'")}
return text`

/** A worker that was taken for dead and is not, takes its operation up again where no other one has. */
const RENEW = `
if redis.call('hget', KEYS[1], 'epoch') ~= ARGV[2] then return 0 end
local state = redis.call('hget', KEYS[1], 'state')
if state ~= 'running' and state ~= 'interrupted' then return 0 end
local holder = redis.call('get', KEYS[2])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('set', KEYS[2], ARGV[1], 'px', ARGV[3])
if state == 'interrupted' then
  redis.call('hset', KEYS[1], 'state', 'running')
  redis.call('xadd', KEYS[3], '*', 'type', 'state', 'data', '{"state":"running"}')
  redis.call('publish', KEYS[4], ARGV[4])
  ${recordOperationEvent("'operation-started'")}
end
return 1`

const MARK_INTERRUPTED = `
if redis.call('hget', KEYS[1], 'state') ~= 'running' then return 0 end
if redis.call('exists', KEYS[2]) == 1 then return 0 end
redis.call('hset', KEYS[1], 'state', 'interrupted')
redis.call('xadd', KEYS[3], '*', 'type', 'state', 'data', '{"state":"interrupted"}')
redis.call('publish', KEYS[4], ARGV[1])
${recordOperationEvent("'operation-interrupted'")}
return 1`

/** The epoch goes too: a renewal that is still under way must not bring the lease back. */
const RELEASE = `
if redis.call('hget', KEYS[1], 'epoch') ~= ARGV[2] then return 0 end
redis.call('del', KEYS[2])
redis.call('hset', KEYS[1], 'state', 'interrupted', 'epoch', '0')
redis.call('xadd', KEYS[3], '*', 'type', 'state', 'data', '{"state":"interrupted"}')
redis.call('publish', KEYS[4], ARGV[1])
${recordOperationEvent("'operation-interrupted'")}
return 1`

/** Fields and an event, only for the worker with the newest epoch. ARGV: epoch, id, type, data, then field, value … */
const WRITE = `
if redis.call('hget', KEYS[1], 'epoch') ~= ARGV[1] then return 0 end
for i = 5, #ARGV, 2 do redis.call('hset', KEYS[2], ARGV[i], ARGV[i + 1]) end
if ARGV[3] ~= '' then
  redis.call('xadd', KEYS[3], 'maxlen', '~', '${MAX_EVENTS}', '*', 'type', ARGV[3], 'data', ARGV[4])
  redis.call('publish', KEYS[4], ARGV[2])
end
return 1`

const FINISH = `
if redis.call('hget', KEYS[1], 'epoch') ~= ARGV[1] then return 0 end
for i = 5, #ARGV, 2 do redis.call('hset', KEYS[1], ARGV[i], ARGV[i + 1]) end
${rememberVersion('KEYS[1]', 'KEYS[7]', 'ARGV[4]')}
redis.call('del', KEYS[2])
if redis.call('get', KEYS[3]) == ARGV[2] then redis.call('del', KEYS[3]) end
redis.call('srem', KEYS[4], ARGV[2])
redis.call('xadd', KEYS[5], '*', 'type', 'state', 'data', ARGV[3])
redis.call('publish', KEYS[6], ARGV[2])
${recordOperationEvent("'operation-' .. redis.call('hget', KEYS[1], 'state')")}
return 1`

export function openOperationStore(redis: Redis, now: () => string = () => new Date().toISOString()): OperationStore {
  const get = async (id: string): Promise<Operation | undefined> => {
    const [fields, steps] = await Promise.all([redis.hgetall(keys.operation(id)), redis.hgetall(keys.steps(id))])
    return fields.base === undefined ? undefined : assemble(fields, steps)
  }

  const write = async (
    turn: Turn,
    target: string,
    event: { type: OperationEventType; data: unknown } | undefined,
    fields: string[],
  ) => {
    const { operationId: id, epoch } = turn
    const written = await redis.eval(
      WRITE,
      4,
      keys.operation(id),
      target,
      keys.events(id),
      keys.changed,
      String(epoch),
      id,
      event?.type ?? '',
      event ? JSON.stringify(event.data) : '',
      ...fields,
    )
    if (written !== 1) throw new TurnLost(id)
  }

  return {
    ...openCancelRetryStore(redis),
    get,

    async create(request, conditions = {}) {
      const { input, requestedFrom, ...asked } = request
      const { cluster } = asked
      const { once, clusterVersion } = conditions
      const id = `op_${ulid()}`
      const base = { id, ...asked, createdAt: now() }
      const { onceKey, fingerprint } = onceArguments(once)
      const [outcome, other = ''] = (await redis.eval(
        CREATE,
        9,
        keys.activeOperation(cluster),
        keys.operation(id),
        keys.operations,
        keys.operationsOf(cluster),
        keys.openOperations,
        keys.events(id),
        keys.changed,
        onceKey,
        keys.clusters,
        id,
        JSON.stringify(base),
        JSON.stringify(input ?? null),
        JSON.stringify({ name: asked.requestedBy, ...requestedFrom } satisfies Asker),
        fingerprint,
        clusterVersion === undefined ? '' : String(clusterVersion),
        cluster,
      )) as [string, string?]
      if (outcome === 'reused') throw new KeyReused()
      if (outcome === 'changed') throw new RecordChanged(cluster)
      if (outcome === 'conflict') return { conflict: other }
      if (outcome === 'repeated') {
        const earlier = await get(other)
        if (earlier) return { created: earlier, repeated: true }
        // Its operation was so long ago that it is not kept any more.
        await redis.del(onceKey)
        return this.create(request, conditions)
      }
      return { created: { ...base, state: 'queued', turns: 0, steps: [] } }
    },

    async input(id) {
      return JSON.parse((await redis.hget(keys.operation(id), 'input')) ?? 'null')
    },

    async clusterCreatedAt(id) {
      return (await redis.hget(keys.operation(id), 'clusterCreatedAt')) || undefined
    },

    async list({ cluster, limit, before }) {
      const set = cluster === undefined ? keys.operations : keys.operationsOf(cluster)
      // All scores are equal and the ids begin with their time: lexical order is the order of creation.
      const ids = await redis.zrange(
        set,
        before === undefined ? '+' : `(${before}`,
        '-',
        'BYLEX',
        'REV',
        'LIMIT',
        0,
        limit + 1,
      )
      const items = await Promise.all(ids.slice(0, limit).map(get))
      const last = ids[limit - 1]
      return {
        items: items.filter(item => item !== undefined),
        ...(ids.length > limit && last !== undefined ? { nextCursor: last } : {}),
      }
    },

    async activeOn(cluster) {
      return (await redis.get(keys.activeOperation(cluster))) ?? undefined
    },

    openIds: () => redis.smembers(keys.openOperations),

    async take(id, worker, leaseMs) {
      const operation = await get(id)
      if (!operation) return undefined
      const epoch = await redis.eval(
        TAKE,
        5,
        keys.operation(id),
        keys.lease(id),
        keys.clusterEpoch(operation.cluster),
        keys.events(id),
        keys.changed,
        worker,
        String(leaseMs),
        now(),
        id,
        String(MAX_EVENTS),
      )
      return typeof epoch === 'string' ? { operationId: id, worker, epoch: Number(epoch) } : undefined
    },

    async renew({ operationId: id, worker, epoch }, leaseMs) {
      const kept = await redis.eval(
        RENEW,
        4,
        keys.operation(id),
        keys.lease(id),
        keys.events(id),
        keys.changed,
        worker,
        String(epoch),
        String(leaseMs),
        id,
      )
      return kept === 1
    },

    hasWorker: async id => (await redis.exists(keys.lease(id))) === 1,

    async leaseLeftMs(id, epoch) {
      const [now, left] = await Promise.all([redis.hget(keys.operation(id), 'epoch'), redis.pttl(keys.lease(id))])
      return now === String(epoch) ? Math.max(0, left) : 0
    },

    async markInterrupted(id) {
      const marked = await redis.eval(
        MARK_INTERRUPTED,
        4,
        keys.operation(id),
        keys.lease(id),
        keys.events(id),
        keys.changed,
        id,
      )
      return marked === 1
    },

    async release({ operationId: id, epoch }) {
      await redis.eval(RELEASE, 4, keys.operation(id), keys.lease(id), keys.events(id), keys.changed, id, String(epoch))
    },

    async finish({ operationId: id, epoch }, { state, result, error }) {
      const operation = await get(id)
      if (!operation) throw new TurnLost(id)
      const fields = ['state', state, 'endedAt', now()]
      if (result) fields.push('result', JSON.stringify(result))
      if (error) fields.push('error', JSON.stringify(error))
      const finished = await redis.eval(
        FINISH,
        7,
        keys.operation(id),
        keys.lease(id),
        keys.activeOperation(operation.cluster),
        keys.openOperations,
        keys.events(id),
        keys.changed,
        keys.clusters,
        String(epoch),
        id,
        JSON.stringify({ state, ...(result ? { result } : {}), ...(error ? { error } : {}) }),
        operation.cluster,
        ...fields,
      )
      if (finished !== 1) throw new TurnLost(id)
    },

    async mayRequeue(id, withinMs) {
      return (await redis.set(keys.requeued(id), '1', 'PX', withinMs, 'NX')) === 'OK'
    },

    journal(turn, onError) {
      const { operationId: id } = turn
      const lastProgress = new Map<string, number>()
      return {
        async planned(steps) {
          const [known, earlier] = await Promise.all([
            redis.hgetall(keys.steps(id)),
            redis.hget(keys.operation(id), 'order'),
          ])
          const fields = steps.flatMap(step => (known[step.id] === undefined ? [step.id, JSON.stringify(step)] : []))
          await write(turn, keys.steps(id), undefined, fields)
          // What an earlier turn did, and this turn has not to do any more, stays in the record.
          const ids = new Set(steps.map(step => step.id))
          const done = (JSON.parse(earlier ?? '[]') as string[]).filter(
            old =>
              !ids.has(old) && known[old] !== undefined && (JSON.parse(known[old]) as StepRecord).state !== 'pending',
          )
          await write(turn, keys.operation(id), undefined, ['order', JSON.stringify([...done, ...ids])])
        },
        async read(stepId) {
          const text = await redis.hget(keys.steps(id), stepId)
          return text === null ? undefined : (JSON.parse(text) as StepRecord)
        },
        step: record =>
          write(turn, keys.steps(id), { type: 'step', data: record }, [
            record.id,
            JSON.stringify(record),
            // The last progress may have come too soon after the one before it to be written by itself.
            ...(record.progress === undefined ? [] : [progressField(record.id), JSON.stringify(record.progress)]),
          ]),
        log(step, text) {
          // Many long lines would be many megabytes; the end of what failed is in the error.
          const line = text.length > MAX_LINE ? `${text.slice(0, MAX_LINE)} [… line cut]` : text
          write(turn, keys.steps(id), { type: 'log', data: { step, line } }, []).catch(onError)
        },
        progress(step: string, progress: Progress) {
          const at = Date.now()
          if (at - (lastProgress.get(step) ?? 0) < PROGRESS_INTERVAL_MS) return
          lastProgress.set(step, at)
          const event = { type: 'progress', data: { step, ...progress } } as const
          write(turn, keys.steps(id), event, [progressField(step), JSON.stringify(progress)]).catch(onError)
        },
      }
    },

    async events(id, after, count) {
      const entries = await redis.xrange(keys.events(id), `(${after}`, '+', 'COUNT', count)
      return entries.map(([eventId, fields]) => {
        const type = fields[fields.indexOf('type') + 1] as OperationEventType
        return { id: eventId, type, data: JSON.parse(fields[fields.indexOf('data') + 1] ?? '{}') }
      })
    },
  }
}

/** Progress has a field of its own: written in between, it must not bring back an older state of its step. */
const progressField = (step: string) => `~progress ${step}`

function stepFrom(steps: Record<string, string>, id: string): StepRecord[] {
  if (steps[id] === undefined) return []
  const record = JSON.parse(steps[id]) as StepRecord
  const written = steps[progressField(id)]
  if (written === undefined) return [record]
  const progress = JSON.parse(written) as Progress
  // What has ended has no time left, and how fast it was says less than how long it took.
  const { rateBytesPerSecond: _rate, remainingSeconds: _remaining, ...reached } = progress
  return [{ ...record, progress: record.state === 'running' ? progress : reached }]
}

function assemble(fields: Record<string, string>, steps: Record<string, string>): Operation {
  const order = JSON.parse(fields.order ?? '[]') as string[]
  return {
    ...(JSON.parse(fields.base ?? '{}') as Pick<Operation, 'id' | 'type' | 'cluster' | 'requestedBy' | 'createdAt'>),
    state: fields.state as OperationState,
    turns: Number(fields.turns ?? 0),
    ...(fields.startedAt === undefined ? {} : { startedAt: fields.startedAt }),
    ...(fields.endedAt === undefined ? {} : { endedAt: fields.endedAt }),
    ...(fields.cancelRequest === undefined ? {} : { cancelRequest: JSON.parse(fields.cancelRequest) as RequestRecord }),
    ...(fields.lastRetry === undefined
      ? {}
      : { retries: Number(fields.retries), lastRetry: JSON.parse(fields.lastRetry) as RequestRecord }),
    steps: order.flatMap(id => stepFrom(steps, id)),
    ...(fields.result === undefined ? {} : { result: JSON.parse(fields.result) as OperationResult }),
    ...(fields.error === undefined ? {} : { error: JSON.parse(fields.error) as OperationFailure }),
  }
}
