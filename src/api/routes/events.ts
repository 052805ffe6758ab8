import { fastifySSE } from '@fastify/sse'
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import { ClusterName } from '../../cluster/model.js'
import { AuditEvent, EVENT_TYPES, EventId } from '../../store/event.js'
import type { EventFilter } from '../../store/events.js'
import { TRAIL_CHANGED } from '../../store/record-event.js'
import { beginStream, idBefore, lastEventId } from '../event-stream.js'
import { exampleAuditEvents } from '../examples.js'
import { Instant, milliseconds } from '../instant.js'
import { ProblemError } from '../problems.js'
import { abortedWith, answer, COMMON, problemResponses, sendEither } from '../responses.js'
import type { Services } from '../services.js'
import { auditEventsPageText, auditEventsText } from '../text.js'

const EventPage = Type.Object(
  {
    items: Type.Array(AuditEvent),
    nextCursor: Type.Optional(
      Type.String({ description: '`cursor` of the next page; absent on the last one, and only there.' }),
    ),
  },
  { additionalProperties: false, title: 'EventPage', description: 'A page of events, newest first.' },
)

/** Makes no sense of what has no end. */
const OF_PAGES = ['until', 'limit', 'cursor'] as const

export const eventRoutes: FastifyPluginAsyncTypebox<{ services: Services }> = async (app, { services }) => {
  const { events } = services.store
  await app.register(fastifySSE, { heartbeatInterval: 15_000 })

  app.get(
    '/v1/events',
    {
      config: { access: 'admin' },
      sse: 'dual',
      // A HEAD would wait for the end of a stream that it does not get.
      exposeHeadRoute: false,
      schema: {
        operationId: 'listEvents',
        tags: ['operations'],
        summary: 'What happened, who asked for it, and how it went',
        description:
          'The audit trail over all clusters, newest first, page by page: operations, changes of what is recorded of a cluster, tokens. ' +
          'A page may be shorter than `limit` and not be the last one: where there is a `nextCursor`, there is more. ' +
          'With `Accept: text/event-stream` it comes live, as server-sent events, oldest first: from `since` on, without it from now on, ' +
          'and from behind `Last-Event-ID` where that is sent. Their names are the types; `data` is an AuditEvent; a comment comes every 15 seconds. ' +
          'The stream has no end of its own.',
        querystring: Type.Object(
          {
            cluster: Type.Optional(Type.String({ ...ClusterName, description: 'Only what is about this cluster.' })),
            type: Type.Optional(Type.Enum([...EVENT_TYPES], { description: 'Only events of this type.' })),
            since: Type.Optional(Instant('Nothing older than that.')),
            until: Type.Optional(Instant('Nothing newer than that. Not for a stream.')),
            limit: Type.Optional(
              Type.Integer({
                minimum: 1,
                maximum: 100,
                default: 20,
                description: 'Length of the page. Not for a stream.',
              }),
            ),
            cursor: Type.Optional(
              Type.String({ ...EventId, description: '`nextCursor` of the page before. Not for a stream.' }),
            ),
          },
          { additionalProperties: false },
        ),
        headers: Type.Object({
          'last-event-id': Type.Optional(
            Type.String({
              pattern: '^$|^\\d{1,15}-\\d{1,10}$',
              description: 'Id of the last event that was seen; for a stream.',
              examples: ['1795338724402-0'],
            }),
          ),
        }),
        response: {
          200: withStream(
            answer('A page of events, or the events live.', EventPage, {
              example: { items: exampleAuditEvents.toReversed(), nextCursor: exampleAuditEvents[0]?.id },
              text: auditEventsText(exampleAuditEvents.toReversed()),
            }),
          ),
          ...problemResponses(...COMMON),
        },
      },
    },
    async (request, reply) => {
      const { limit = 20, cursor, since, until, cluster, type } = request.query
      const filter: EventFilter = {
        ...(cluster === undefined ? {} : { cluster }),
        ...(type === undefined ? {} : { type }),
      }
      if (reply.sse === undefined) {
        const page = await events.list({
          ...filter,
          limit,
          ...(since === undefined ? {} : { since: milliseconds(since) }),
          ...(until === undefined ? {} : { until: milliseconds(until) }),
          ...(cursor === undefined ? {} : { before: cursor }),
        })
        return sendEither(request, reply, page, auditEventsPageText)
      }
      const misplaced = OF_PAGES.filter(name => request.query[name] !== undefined)
      if (misplaced.length > 0)
        throw new ProblemError('bad-request', `A stream of events takes no ${misplaced.join(', no ')}.`, {
          errors: misplaced.map(name => ({ pointer: `/${name}`, detail: 'is for pages, not for a stream' })),
        })
      const gone = abortedWith(reply)
      const from = lastEventId(request) ?? (since === undefined ? await events.newest() : idBefore(milliseconds(since)))
      beginStream(reply)
      await reply.sse.send(follow(from, filter, gone))
    },
  )

  async function* follow(from: string, filter: EventFilter, gone: AbortSignal) {
    let position = from
    while (!gone.aborted) {
      // Listens before it looks: what comes in between is not missed.
      const waiting = services.changes.next(TRAIL_CHANGED, 5000, gone)
      const batch = await events.after(position, filter)
      for (const event of batch.items) yield { id: event.id, event: event.type, data: event }
      position = batch.position
      if (!batch.more) await waiting
    }
  }
}

const withStream = <T extends { content: object }>(described: T) => ({
  ...described,
  content: {
    ...described.content,
    'text/event-stream': {
      schema: Type.String(),
      example: exampleAuditEvents
        .map(event => `id: ${event.id}\nevent: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`)
        .join(''),
    },
  },
})
