/** An operation is called off, or tried again. */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import { Operation, OperationId, type RequestRecord } from '../../operations/operation.js'
import type { AskedFor, RetryOutcome } from '../../store/cancel-retry.js'
import { askerOf } from '../asker.js'
import { exampleCancelled, exampleCancelling, exampleOperation, exampleRetried } from '../examples.js'
import { onceOf } from '../once.js'
import { ProblemError } from '../problems.js'
import {
  acceptedAs,
  answer,
  answerOperation,
  busy,
  COMMON,
  enqueue,
  LOCATION_OF_OPERATION,
  OF_OPERATIONS,
  OperationChangeQuery,
  PREFERENCE_APPLIED,
  PreferHeader,
  problemResponses,
  refuseReuse,
} from '../responses.js'
import type { Services } from '../services.js'
import { operationText } from '../text.js'

const OperationParams = Type.Object({ id: OperationId }, { additionalProperties: false })
const headers = { location: LOCATION_OF_OPERATION, ...PREFERENCE_APPLIED }

export const operationChangeRoutes: FastifyPluginAsyncTypebox<{ services: Services }> = async (app, { services }) => {
  const { operations } = services.store

  app.post(
    '/v1/operations/:id/cancel',
    {
      config: { access: 'admin' },
      schema: {
        operationId: 'cancelOperation',
        tags: ['operations'],
        summary: 'Cancel an operation',
        description:
          'One that no worker has begun is cancelled at once. A running one is stopped by its worker within seconds, at any step: what it runs on the hosts ' +
          'is ended, a clone included; a short command is let come to its end. An interrupted one is ended by the next worker in the same way. What is done ' +
          'stays done, what is half done is marked and taken up or removed by a retry. Cancelling twice changes nothing.',
        params: OperationParams,
        querystring: OperationChangeQuery,
        headers: PreferHeader,
        response: {
          200: answer('It has ended: see `state`. One that was nearly done may have succeeded first.', Operation, {
            headers,
            example: exampleCancelled,
            text: operationText(exampleCancelled),
          }),
          202: { ...acceptedAs(exampleCancelling), description: 'Accepted: a worker ends it. Follow `Location`.' },
          ...problemResponses(...COMMON, 'not-found', 'operation-ended', 'idempotency-key-reused'),
        },
      },
    },
    async (request, reply) => {
      const { id } = request.params
      const outcome = await operations.cancel(id, asked(request), conditionsOf(request)).catch(rethrow)
      if (outcome === undefined) throw unknown(id)
      if (outcome === 'ended') {
        const state = (await operations.get(id))?.state
        const detail = `/v1/operations/${id} has ${state === 'cancelled' ? 'been cancelled' : state} already: there is nothing to cancel.`
        throw new ProblemError('operation-ended', detail, { operation: `/v1/operations/${id}` })
      }
      // One without a worker is not left until somebody looks for such.
      if (outcome === 'asked') await enqueue(services, request, id)
      return answerOperation(services, request, reply, id, { cancelling: true })
    },
  )

  app.post(
    '/v1/operations/:id/retry',
    {
      config: { access: 'admin' },
      schema: {
        operationId: 'retryOperation',
        tags: ['operations'],
        summary: 'Retry an operation',
        description:
          'Queues a failed or cancelled operation again. It goes on from the step that it stopped at: each step looks at the hosts first, and what is done ' +
          'already is not done twice. Its journal goes on too. It takes the cluster again, so another operation must not be changing it. ' +
          'It is refused where the cluster has been changed since, or another cluster has its name now.',
        params: OperationParams,
        querystring: OperationChangeQuery,
        headers: PreferHeader,
        response: {
          200: answer('It succeeded while you waited.', Operation, {
            headers,
            example: exampleOperation('succeeded'),
            text: operationText(exampleOperation('succeeded')),
          }),
          202: { ...acceptedAs(exampleRetried), description: 'Queued again. Follow `Location`.' },
          ...problemResponses(
            ...COMMON,
            ...OF_OPERATIONS,
            'not-found',
            'not-retryable',
            'retry-outdated',
            'cluster-busy',
          ),
        },
      },
    },
    async (request, reply) => {
      const { id } = request.params
      const answered = await operations.retry(id, asked(request), conditionsOf(request)).catch(rethrow)
      if (answered === undefined) throw unknown(id)
      if (answered.outcome === 'conflict') throw busy((await operations.get(id))?.cluster ?? '', answered.operation)
      if (answered.outcome === 'replaced' || answered.outcome === 'overtaken')
        throw outdated(id, (await operations.get(id))?.cluster ?? '', answered)
      if (answered.outcome === 'refused') {
        const { state } = answered
        const detail =
          state === 'succeeded' ? 'has succeeded: there is nothing to retry' : `is ${state}: it has not ended yet`
        throw new ProblemError('not-retryable', `/v1/operations/${id} ${detail}.`, {
          operation: `/v1/operations/${id}`,
        })
      }
      await enqueue(services, request, id)
      return answerOperation(services, request, reply, id)
    },
  )
}

function outdated(id: string, cluster: string, answered: Extract<RetryOutcome, { outcome: 'replaced' | 'overtaken' }>) {
  const path = `/v1/operations/${id}`
  if (answered.outcome === 'replaced')
    return new ProblemError(
      'retry-outdated',
      `${path} was asked for of another cluster, which was forgotten; the one that is named ${cluster} now was described after that. If it is wanted of this one, ask for it anew.`,
      { operation: path },
    )
  const by = answered.operation === undefined ? '' : ` by /v1/operations/${answered.operation}`
  return new ProblemError(
    'retry-outdated',
    `${cluster} has been changed${by} since ${path} ended: to go on with it could undo that. If it is still wanted, ask for it anew.`,
    { operation: answered.operation === undefined ? path : `/v1/operations/${answered.operation}` },
  )
}

const asked = (request: FastifyRequest): RequestRecord => {
  const { reference } = request.query as { reference?: string }
  return {
    at: new Date().toISOString(),
    by: askerOf(request).name,
    ...(reference === undefined ? {} : { reference }),
  }
}

function conditionsOf(request: FastifyRequest): AskedFor {
  const { name: _name, ...requestedFrom } = askerOf(request)
  const once = onceOf(request)
  return { requestedFrom, ...(once ? { once } : {}) }
}

const unknown = (id: string) =>
  new ProblemError('not-found', `There is no operation ${id}. GET /v1/operations lists them.`)

const rethrow = (error: unknown): never => {
  throw refuseReuse(error)
}
