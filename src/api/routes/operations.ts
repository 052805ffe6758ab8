import { Readable } from 'node:stream'
import { fastifySSE } from '@fastify/sse'
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import { ClusterName } from '../../cluster/model.js'
import { isFinal, Operation, OperationId } from '../../operations/operation.js'
import type { OperationEvent } from '../../store/operations.js'
import { beginStream, idBefore, lastEventId } from '../event-stream.js'
import { exampleEvents, exampleOperation } from '../examples.js'
import { Instant, milliseconds } from '../instant.js'
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
      const last = lastEventId(request)
      const gone = abortedWith(reply)
      beginStream(reply)
      await reply.sse.send(
        (async function* () {
          for await (const event of eventsOf(id, last ?? '0-0', gone))
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
          'One line for each thing that happened or was printed by a host, without secrets. The last 20 000 are kept. ' +
          'With `?follow=true` the answer goes on with each new line until the operation has ended.',
        params: OperationParams,
        querystring: Type.Object(
          {
            follow: Type.Optional(
              Type.Boolean({ description: 'Go on until the operation has ended.', default: false }),
            ),
            tail: Type.Optional(
              Type.Integer({ minimum: 0, maximum: 20_000, description: 'Of what is there already, this many lines.' }),
            ),
            since: Type.Optional(Instant('No line that is older than that.')),
          },
          { additionalProperties: false },
        ),
        response: {
          200: textOnly('The log.', exampleEvents.map(logLine).join('\n')),
          ...problemResponses(...COMMON, 'not-found'),
        },
      },
    },
    async (request, reply) => {
      const { id } = await find(request.params.id)
      const { follow = false, tail, since } = request.query
      const from = since === undefined ? '0-0' : idBefore(milliseconds(since))
      reply.type('text/plain; charset=utf-8')
      const { lines, position } = await logSoFar(id, from)
      const begun = `${lines.slice(Math.max(0, lines.length - (tail ?? lines.length))).join('')}`
      // A HEAD would wait for the end of an answer that it does not get.
      if (!follow || request.method === 'HEAD') return reply.send(begun)
      const gone = abortedWith(reply)
      reply.header('x-accel-buffering', 'no')
      const text = Readable.from(
        (async function* () {
          yield begun
          for await (const event of eventsOf(id, position, gone)) yield lineOf(event)
        })(),
      )
      // To the contract, and to the types that are made from it, it is a text all the same.
      return reply.send(text as unknown as string)
    },
  )

  async function logSoFar(id: string, after: string): Promise<{ lines: string[]; position: string }> {
    const lines: string[] = []
    for (let position = after; ; ) {
      const batch = await operations.events(id, position, BATCH)
      lines.push(...batch.map(lineOf).filter(line => line !== ''))
      position = batch.at(-1)?.id ?? position
      if (batch.length < BATCH) return { lines, position }
    }
  }
}

const lineOf = (event: OperationEvent) => {
  const line = logLine(event)
  return line === undefined ? '' : `${line}\n`
}
