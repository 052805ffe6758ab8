import { fastifySSE } from '@fastify/sse'
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import { ClusterName } from '../../cluster/model.js'
import { isFinal, Operation, OperationId } from '../../operations/operation.js'
import type { OperationEvent } from '../../store/operations.js'
import { ProblemError } from '../problems.js'
import {
  abortedWith,
  awaitOperation,
  COMMON,
  jsonOrText,
  problemResponses,
  ref,
  WaitQuery,
  waitSeconds,
  wantsText,
} from '../responses.js'
import type { Services } from '../services.js'
import { logLine, operationsText, operationText } from '../text.js'

const OperationParams = Type.Object({ id: OperationId }, { additionalProperties: false })
const BATCH = 500
const STREAM_ID = /^\d{1,16}-\d{1,10}$/

export const operationRoutes: FastifyPluginAsyncTypebox<{ services: Services }> = async (app, { services }) => {
  const { operations } = services.store
  await app.register(fastifySSE, { heartbeatInterval: 15_000 })

  const find = async (id: string) => {
    const operation = await operations.get(id)
    if (!operation) throw new ProblemError('not-found', `There is no operation ${id}. GET /v1/operations lists them.`)
    return operation
  }

  app.get(
    '/v1/operations',
    {
      config: { access: 'admin' },
      schema: {
        operationId: 'listOperations',
        tags: ['operations'],
        summary: 'List operations, newest first',
        description: 'What is being done and what was done, newest first, page by page.',
        querystring: Type.Object(
          {
            cluster: Type.Optional(ClusterName),
            limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 100, default: 20 })),
            cursor: Type.Optional(OperationId),
          },
          { additionalProperties: false },
        ),
        response: {
          200: jsonOrText(
            'A page of operations.',
            Type.Object(
              { items: Type.Array(ref(Operation)), nextCursor: Type.Optional(Type.String()) },
              { additionalProperties: false },
            ),
          ),
          ...problemResponses(...COMMON),
        },
      },
    },
    async (request, reply) => {
      const { cluster, limit = 20, cursor } = request.query
      const page = await operations.list({
        limit,
        ...(cluster === undefined ? {} : { cluster }),
        ...(cursor === undefined ? {} : { before: cursor }),
      })
      return wantsText(request)
        ? reply.type('text/plain; charset=utf-8').send(operationsText(page.items))
        : reply.send(page)
    },
  )

  app.get(
    '/v1/operations/:id',
    {
      config: { access: 'admin' },
      schema: {
        operationId: 'getOperation',
        tags: ['operations'],
        summary: 'Read an operation',
        description: 'Always 200 with the record as it is; `?wait=60` holds the answer until it has ended.',
        params: OperationParams,
        querystring: WaitQuery,
        response: { 200: jsonOrText('The operation.', ref(Operation)), ...problemResponses(...COMMON, 'not-found') },
      },
    },
    async (request, reply) => {
      const { id } = await find(request.params.id)
      const operation =
        (await awaitOperation(services, id, waitSeconds(request, request.query), abortedWith(request))) ??
        (await find(id))
      if (!isFinal(operation.state)) reply.header('retry-after', 2)
      return wantsText(request)
        ? reply.type('text/plain; charset=utf-8').send(operationText(operation))
        : reply.send(operation)
    },
  )

  app.get(
    '/v1/operations/:id/events',
    {
      config: { access: 'admin' },
      sse: 'only',
      schema: {
        operationId: 'followOperation',
        tags: ['operations'],
        summary: 'Follow an operation live',
        description:
          'Server-sent events: `state`, `step`, `log` and `progress`, from the beginning or from behind `Last-Event-ID`; `end` closes the stream once the operation has ended.',
        params: OperationParams,
        headers: Type.Object({
          'last-event-id': Type.Optional(Type.String({ description: 'Id of the last event that was seen.' })),
        }),
        response: {
          200: { description: 'The events.', content: { 'text/event-stream': { schema: Type.String() } } },
          ...problemResponses(...COMMON, 'not-found', 'not-acceptable'),
        },
      },
    },
    async (request, reply) => {
      const { id } = await find(request.params.id)
      const last = request.headers['last-event-id'] ?? ''
      if (last !== '' && !STREAM_ID.test(last))
        throw new ProblemError('bad-request', 'Last-Event-ID is not an id of this stream.')
      const gone = abortedWith(request)
      // A proxy that collects the answer would turn live into late.
      reply.header('x-accel-buffering', 'no')
      await reply.sse.send(
        (async function* () {
          for await (const event of eventsOf(id, last === '' ? '0-0' : last, gone))
            yield { id: event.id, event: event.type, data: event.data }
          yield { event: 'end', data: {} }
        })(),
      )
    },
  )

  /** Every event from behind `after` on, waiting for more until the operation has ended. */
  async function* eventsOf(id: string, after: string, gone: AbortSignal): AsyncGenerator<OperationEvent> {
    let position = after
    while (!gone.aborted) {
      // Asked before the events are read: what is final then has all its events behind it.
      const ended = isFinal((await find(id)).state)
      const waiting = services.changes.next(id, 5000, gone)
      const batch = await operations.events(id, position, BATCH)
      yield* batch
      position = batch.at(-1)?.id ?? position
      if (batch.length === BATCH) continue
      if (ended) return
      await waiting
    }
  }

  app.get(
    '/v1/operations/:id/log',
    {
      config: { access: 'admin' },
      schema: {
        operationId: 'getOperationLog',
        tags: ['operations'],
        summary: 'Read an operation’s log as text',
        description:
          'One line for each thing that happened or was printed by a host, without secrets. The last 20 000 are kept.',
        params: OperationParams,
        response: {
          200: { description: 'The log so far.', content: { 'text/plain': { schema: Type.String() } } },
          ...problemResponses(...COMMON, 'not-found'),
        },
      },
    },
    async (request, reply) => {
      const { id } = await find(request.params.id)
      const lines: string[] = []
      for (let position = '0-0'; ; ) {
        const batch = await operations.events(id, position, BATCH)
        for (const event of batch) {
          const line = logLine(event)
          if (line !== undefined) lines.push(line)
        }
        position = batch.at(-1)?.id ?? position
        if (batch.length < BATCH) break
      }
      return reply.type('text/plain; charset=utf-8').send(lines.length > 0 ? `${lines.join('\n')}\n` : '')
    },
  )
}
