/**
 * How scripts add to the audit trail: in the same script, and so at the same moment, as the change that they tell of. The
 * trail holds the facts as they are in the records; words are made of them when it is read (`events.ts`).
 */
import type { Asker, EventType } from './event.js'
import { keys } from './keys.js'

/** What waits for events listens for, on the channel on which others listen for an operation's id. */
export const TRAIL_CHANGED = 'events'

/** Every script may touch these two beside its own keys: all share one hash tag. */
const ADD = `redis.call('publish', '${keys.changed}', '${TRAIL_CHANGED}') redis.call('xadd', '${keys.trail}', '*', 'v', '1'`

/**
 * Lua. Adds an event about an operation: call it when its record is as it is to be told. All are Lua expressions: `type`
 * an EventType; `record` the record's key; `asker` the JSON of an Asker, without which it is who created the operation.
 */
export const recordOperationEvent = (type: string, { record = 'KEYS[1]', asker = 'about[2]' } = {}) => `
do
  local about = redis.call('hmget', ${record}, 'base', 'origin', 'result', 'error', 'turns')
  local base = cjson.decode(about[1] or '{}')
  base = { id = base.id, type = base.type, cluster = base.cluster, node = base.node, requestedBy = base.requestedBy, forced = base.forced }
  local failed = about[4] and cjson.decode(about[4])
  if failed then failed.output = nil end
  ${ADD}, 'type', ${type}, 'base', cjson.encode(base), 'who', ${asker} or '', 'turns', about[5] or '0',
    'result', about[3] or '', 'error', failed and cjson.encode(failed) or '')
end`

/** Lua. Adds an event that is about no operation; `data` is a Lua expression: the JSON of a `PlainEvent`. */
export const recordPlainEvent = (type: EventType, data: string) => recordEventOfType(`'${type}'`, data)

/** The same where the script is told which type: `type` is a Lua expression, too. */
export const recordEventOfType = (type: string, data: string) => `${ADD}, 'type', ${type}, 'data', ${data})`

export interface PlainEvent {
  cluster?: string
  who: Asker
  /** What is special about it, for the summary. */
  detail?: string
}
