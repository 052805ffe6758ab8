/** The audit trail as it is read: events with words, filtered, from either end. */
import type { Redis } from 'ioredis'
import type { Operation, OperationFailure, OperationResult } from '../operations/operation.js'
import { type Asker, type AuditEvent, type EventType, THE_SERVICE } from './event.js'
import { keys } from './keys.js'
import type { PlainEvent } from './record-event.js'

export interface EventFilter {
  cluster?: string
  type?: EventType
}

export interface EventPage {
  items: AuditEvent[]
  nextCursor?: string
}

export interface EventStore {
  /**
   * Newest first, from `since` to `until` (milliseconds, both included), older than the event `before`. A page may be
   * shorter than `limit`, or empty, and not be the last one: where little fits the filter, each call looks through a
   * bounded number of events.
   */
  list(filter: EventFilter & { since?: number; until?: number; before?: string; limit: number }): Promise<EventPage>
  /** Those that were written after the event `after`, oldest first; `position` is how far it has looked. */
  after(after: string, filter: EventFilter): Promise<{ items: AuditEvent[]; position: string; more: boolean }>
  /** Id of the newest event there is; `0-0` without one. */
  newest(): Promise<string>
}

const BATCH = 500
/** Events that one call of `list` looks through. */
const MAX_SCANNED = 20_000

export function openEventStore(redis: Redis): EventStore {
  return {
    async list({ since = 0, until, before, limit, ...filter }) {
      const items: AuditEvent[] = []
      let end = until === undefined ? '+' : String(until)
      if (before !== undefined && (until === undefined || Number(before.split('-')[0]) <= until)) end = `(${before}`
      for (let scanned = 0; scanned < MAX_SCANNED; scanned += BATCH) {
        const batch = await redis.xrevrange(keys.trail, end, String(since), 'COUNT', BATCH)
        for (const entry of batch) {
          const event = eventFrom(entry)
          if (!fits(event, filter)) continue
          const last = items.at(-1)
          if (items.length === limit && last) return { items, nextCursor: last.id }
          items.push(event)
        }
        if (batch.length < BATCH) return { items }
        end = `(${batch.at(-1)?.[0]}`
      }
      return { items, nextCursor: end.slice(1) }
    },

    async after(after, filter) {
      const batch = await redis.xrange(keys.trail, `(${after}`, '+', 'COUNT', BATCH)
      return {
        items: batch.map(eventFrom).filter(event => fits(event, filter)),
        position: batch.at(-1)?.[0] ?? after,
        more: batch.length === BATCH,
      }
    },

    async newest() {
      const [entry] = await redis.xrevrange(keys.trail, '+', '-', 'COUNT', 1)
      return entry?.[0] ?? '0-0'
    },
  }
}

const fits = (event: AuditEvent, { cluster, type }: EventFilter) =>
  (cluster === undefined || event.cluster === cluster) && (type === undefined || event.type === type)

function eventFrom([id, list]: [id: string, fields: string[]]): AuditEvent {
  const fields = new Map<string, string>()
  for (let at = 0; at + 1 < list.length; at += 2) fields.set(list[at] ?? '', list[at + 1] ?? '')
  const type = fields.get('type') as EventType
  const at = { id, time: new Date(Number(id.split('-')[0])).toISOString(), type }
  const parse = <T>(name: string) => {
    const text = fields.get(name) ?? ''
    return text === '' ? undefined : (JSON.parse(text) as T)
  }
  const plain = parse<PlainEvent>('data')
  if (plain) {
    const { cluster, who, detail = '' } = plain
    return { ...at, ...(cluster === undefined ? {} : { cluster }), who, summary: ofRecord(type, cluster ?? '', detail) }
  }
  const base = parse<Pick<Operation, 'id' | 'type' | 'cluster' | 'node' | 'requestedBy' | 'forced'>>('base')
  if (!base) return { ...at, who: THE_SERVICE, summary: type }
  // What the record gained later is none of the event: it says how things were.
  const result = type === 'operation-succeeded' ? parse<OperationResult>('result') : undefined
  const ended = type === 'operation-failed' || type === 'operation-cancelled'
  const error = ended ? parse<OperationFailure>('error') : undefined
  const turns = Number(fields.get('turns') ?? 0)
  return {
    ...at,
    cluster: base.cluster,
    ...(base.node === undefined ? {} : { node: base.node }),
    operation: base.id,
    operationType: base.type,
    who: parse<Asker>('who') ?? { name: base.requestedBy },
    summary: ofOperation(type, base, turns, result?.summary ?? error?.detail ?? ''),
    ...(result ? { result } : {}),
    ...(error ? { error } : {}),
  }
}

function ofOperation(
  type: EventType,
  { type: operation, cluster, node, forced }: Pick<Operation, 'type' | 'cluster' | 'node' | 'forced'>,
  turns: number,
  detail: string,
): string {
  const what = `${operation} of ${node === undefined ? cluster : `${node} in ${cluster}`}`
  switch (type) {
    case 'operation-created':
      return `${what} was asked for${forced ? ', by force' : ''}.`
    case 'operation-started':
      return turns > 1 ? `A worker went on with ${what}, turn ${turns}.` : `A worker began ${what}.`
    case 'operation-interrupted':
      return `${what} has lost its worker, and waits for another one.`
    case 'operation-cancel-requested':
      return `${what} is to be cancelled.`
    case 'operation-retried':
      return `${what} is tried again.`
    default:
      return `${what} ${type.replace('operation-', '')}${detail === '' ? '.' : `: ${detail}`}`
  }
}

function ofRecord(type: EventType, cluster: string, detail: string): string {
  switch (type) {
    case 'cluster-described':
      return detail === '' ? `${cluster} was described.` : `${cluster} was ${detail}.`
    case 'cluster-changed':
      return `The record of ${cluster} changed: ${detail}.`
    case 'cluster-forgotten':
      return `${cluster} was forgotten.`
    case 'cluster-paused':
      return `${cluster} is paused ${detail}.`
    case 'cluster-pause-extended':
      return `The pause of ${cluster} goes on ${detail}.`
    case 'cluster-pause-ending':
      return `The pause of ${cluster} ends by itself ${detail}.`
    case 'cluster-pause-expired':
      return `The pause of ${cluster} ran out at ${detail}`
    case 'cluster-resumed':
      return `The pause of ${cluster} was ended${detail}`
    case 'token-created':
      return `The token ${detail} was made.`
    default:
      return detail
  }
}
