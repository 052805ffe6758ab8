import { fastifySSE } from '@fastify/sse'
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import { ClusterName } from '../../cluster/model.js'
import { isFinal, Operation, OperationId } from '../../operations/operation.js'
import type { OperationEvent } from '../../store/operations.js'
import { exampleEvents, exampleOperation } from '../examples.js'
import { ProblemError } from '../problems.js'
import {
  abortedWith,
  answer,
  awaitOperation,
  COMMON,
  NoQuery,
  PREFERENCE_APPLIED,
  PreferHeader,
  problemResponses,
  sendEither,
  textOnly,
  WaitQuery,
  waitSeconds,
} from '../responses.js'
import type { Services } from '../services.js'
import { eventsText, logLine, operationsPageText, operationsText, operationText } from '../text.js'

const OperationParams = Type.Object({ id: OperationId }, { additionalProperties: false })
const OperationPage = Type.Object(
  {
    items: Type.Array(Operation),
    nextCursor: Type.Optional(Type.String({ description: '`cursor` of the next page; absent on the last one.' })),
  },
  { additionalProperties: false, title: 'OperationPage', description: 'A page of operations, newest first.' },
)

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
            cluster: Type.Optional(Type.String({ ...ClusterName, description: 'Only of this cluster.' })),
            limit: Type.Optional(
              Type.Integer({ minimum: 1, maximum: 100, default: 20, description: 'Length of the page.' }),
            ),
            cursor: Type.Optional(Type.String({ ...OperationId, description: '`nextCursor` of the page before.' })),
          },
          { additionalProperties: false },
        ),
        response: {
          200: answer('A page of operations.', OperationPage, {
            example: { items: [exampleOperation('running')], nextCursor: exampleOperation('running').id },
            text: operationsText([exampleOperation('running')]),
          }),
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
      return sendEither(request, reply, page, operationsPageText)
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
        description:
          'Always 200 with the record as it is, even of a failed operation: `state` says how it is. `?wait=60` holds the answer until it has ended.',
        params: OperationParams,
        querystring: WaitQuery,
        headers: PreferHeader,
        response: {
          200: answer('The operation.', Operation, {
            headers: {
              'retry-after': {
                type: 'integer',
                description: 'Seconds until a look is worth while; not once it has ended.',
              },
              ...PREFERENCE_APPLIED,
            },
            examples: {
              running: { summary: 'It runs', value: exampleOperation('running') },
              succeeded: { summary: 'It succeeded', value: exampleOperation('succeeded') },
              failed: { summary: 'It failed', value: exampleOperation('failed') },
            },
            text: operationText(exampleOperation('running')),
          }),
          ...problemResponses(...COMMON, 'not-found'),
        },
      },
    },
    async (request, reply) => {
      const { id } = await find(request.params.id)
      const operation =
        (await awaitOperation(services, id, waitSeconds(request, reply, request.query), abortedWith(reply))) ??
        (await find(id))
      if (!isFinal(operation.state)) reply.header('retry-after', 2)
      return sendEither(request, reply, operation, operationText)
    },
  )

  app.get(
    '/v1/operations/:id/events',
    {
      config: { access: 'admin' },
      // In place of the plugin's own answer, which is no problem.
      preHandler: async request => {
        if (request.type(['text/event-stream']) === false)
          throw new ProblemError(
            'not-acceptable',
            'This is a stream of server-sent events: ask for it with "Accept: text/event-stream".',
          )
      },
      sse: 'only',
      // A HEAD would wait for the end of a stream that it does not get.
      exposeHeadRoute: false,
      schema: {
        operationId: 'followOperation',
        tags: ['operations'],
        summary: 'Follow an operation live',
        description:
          'Server-sent events: `state`, `step`, `log` and `progress`, from the beginning or from behind `Last-Event-ID`. Once the operation has ended, ' +
          'the last event is `end`, and the stream closes; a stream that closes without it was cut off: come back with `Last-Event-ID`. ' +
          '`data` is JSON: of `state` the state, with the result or the error; of `step` a Step; of `log` a step’s id and a line; of `progress` a step’s id and a StepProgress. ' +
          'A comment comes every 15 seconds, so that nothing in between takes the connection for dead.',
        params: OperationParams,
        querystring: NoQuery,
        headers: Type.Object({
          'last-event-id': Type.Optional(
            Type.String({ description: 'Id of the last event that was seen.', examples: ['1795338724402-0'] }),
          ),
        }),
        response: {
          200: textOnly('The events.', eventsText(exampleEvents), 'text/event-stream'),
          ...problemResponses(...COMMON, 'not-found', 'not-acceptable'),
        },
      },
    },
    async (request, reply) => {
      const { id } = await find(request.params.id)
      const last = String(request.headers['last-event-id'] ?? '')
      if (last !== '' && !STREAM_ID.test(last))
        throw new ProblemError('bad-request', 'Last-Event-ID is not the id of an event, such as 1795338724402-0.', {
          errors: [{ pointer: '/last-event-id', detail: 'must be the id of an event that was seen' }],
        })
      const gone = abortedWith(reply)
      // A proxy that collects the answer would turn live into late.
      reply.header('x-accel-buffering', 'no')
      // Now and not with the first event: who resumes where nothing happens must see that it is connected.
      reply.sse.sendHeaders()
      reply.raw.flushHeaders()
      await reply.sse.send(
        (async function* () {
          for await (const event of eventsOf(id, last === '' ? '0-0' : last, gone))
            yield { id: event.id, event: event.type, data: event.data }
          yield { event: 'end', data: { state: (await find(id)).state } }
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
        querystring: NoQuery,
        response: {
          200: textOnly('The log so far.', exampleEvents.map(logLine).join('\n')),
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
