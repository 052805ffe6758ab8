/** About the service itself: is it alive, is it ready, what does it offer, what do its errors mean. */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import { PROBLEMS, type ProblemCode, ProblemError } from '../problems.js'
import { json, problemResponses } from '../responses.js'
import type { Services } from '../services.js'

const Health = Type.Object({ status: Type.Literal('ok') }, { additionalProperties: false })

export const serviceRoutes: FastifyPluginAsyncTypebox<{ services: Services }> = async (app, { services }) => {
  app.get(
    '/healthz',
    {
      config: { access: 'public' },
      schema: {
        operationId: 'health',
        tags: ['service'],
        summary: 'Is the process alive?',
        description: 'Answers as long as the process does; asks nobody else.',
        security: [],
        response: { 200: json('Alive.', Health), ...problemResponses('internal-error') },
      },
    },
    async (_request, reply) => reply.send({ status: 'ok' }),
  )

  app.get(
    '/readyz',
    {
      config: { access: 'public' },
      schema: {
        operationId: 'readiness',
        tags: ['service'],
        summary: 'Can it take requests?',
        description: 'Asks the store.',
        security: [],
        response: { 200: json('Ready.', Health), ...problemResponses('store-unavailable', 'internal-error') },
      },
    },
    async (_request, reply) => {
      await services.store.ping()
      return reply.send({ status: 'ok' })
    },
  )

  app.get(
    '/openapi.json',
    {
      config: { access: 'public' },
      schema: {
        operationId: 'contract',
        tags: ['service'],
        summary: 'This contract',
        description: 'OpenAPI 3.1, made from the routes that answer.',
        security: [],
        response: {
          200: json('The contract.', Type.Object({}, { additionalProperties: true })),
          ...problemResponses('internal-error'),
        },
      },
    },
    async (_request, reply) => reply.send(app.swagger() as Record<string, unknown>),
  )

  app.get(
    '/problems/:code',
    {
      config: { access: 'public' },
      schema: {
        operationId: 'explainProblem',
        tags: ['service'],
        summary: 'What an error means',
        description: 'The page behind the `type` of a problem.',
        security: [],
        params: Type.Object({ code: Type.String({ maxLength: 64 }) }, { additionalProperties: false }),
        response: {
          200: { description: 'What it means and what to do.', content: { 'text/plain': { schema: Type.String() } } },
          ...problemResponses('not-found', 'bad-request', 'internal-error'),
        },
      },
    },
    async (request, reply) => {
      const { code } = request.params
      if (!Object.hasOwn(PROBLEMS, code)) throw new ProblemError('not-found', `There is no problem ${code}.`)
      const { status, title, about } = PROBLEMS[code as ProblemCode]
      return reply.type('text/plain; charset=utf-8').send(`${code} (${status}): ${title}\n\n${about}\n`)
    },
  )
}
