/** The audit trail, one event: what happened, to what, who asked for it, and how it went. */
import { type Static, Type } from 'typebox'
import { OperationFailure, OperationId, OperationResult, OperationType } from '../operations/operation.js'

export const EVENT_TYPES = [
  'operation-created',
  'operation-started',
  'operation-interrupted',
  'operation-cancel-requested',
  'operation-succeeded',
  'operation-failed',
  'operation-cancelled',
  'operation-retried',
  'cluster-described',
  'cluster-changed',
  'cluster-forgotten',
  'cluster-paused',
  'cluster-pause-extended',
  'cluster-pause-ending',
  'cluster-pause-expired',
  'cluster-resumed',
  'token-created',
  'store-restored',
] as const

export const EventType = Type.Enum([...EVENT_TYPES], {
  title: 'EventType',
  description:
    'operation-started: a worker took it up, the first time or after an interruption. cluster-changed: its record, and not what runs on its hosts. ' +
    'cluster-pause-ending: its pause is about to end by itself. cluster-pause-expired: it has. cluster-resumed: somebody ended it. ' +
    'store-restored: the service’s own state was put back from a backup.',
})
export type EventType = Static<typeof EventType>

/** Who asked for something: a token of the API and where it was used from, or the service itself. */
export const Asker = Type.Object(
  {
    name: Type.String({ description: 'Name of the token; `understudy` is the service itself.' }),
    tokenId: Type.Optional(Type.String({ description: 'Tells tokens of one name apart.' })),
    address: Type.Optional(Type.String({ description: 'Where the request came from, where that is known.' })),
  },
  { additionalProperties: false, title: 'Asker', description: 'Who asked for it.' },
)
export type Asker = Static<typeof Asker>

export const THE_SERVICE: Asker = { name: 'understudy' }

/** The id of an entry in a Redis stream: milliseconds and a number. */
export const EventId = Type.String({
  pattern: '^\\d{1,15}-\\d{1,10}$',
  description: 'Ids grow with time.',
  examples: ['1795338723128-0'],
})

export const AuditEvent = Type.Object(
  {
    id: EventId,
    time: Type.String({ format: 'date-time' }),
    type: EventType,
    cluster: Type.Optional(Type.String({ description: 'Name of the cluster that it is about.' })),
    node: Type.Optional(Type.String({ description: 'Name of the node, where it is about one.' })),
    operation: Type.Optional(OperationId),
    operationType: Type.Optional(OperationType),
    who: Asker,
    summary: Type.String({ description: 'One sentence for people.' }),
    result: Type.Optional(OperationResult),
    error: Type.Optional(OperationFailure),
  },
  {
    additionalProperties: false,
    title: 'AuditEvent',
    description: 'Something that happened, who asked for it, and how it went. What hosts printed is in the operation.',
  },
)
export type AuditEvent = Static<typeof AuditEvent>
