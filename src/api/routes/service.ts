/** About the service itself: is it alive, is it ready, what does it offer, what do its errors mean. */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import { PROBLEMS, type ProblemCode, ProblemError } from '../problems.js'
import { answer, problemResponses, textOnly } from '../responses.js'
import type { Services } from '../services.js'

const Health = Type.Object(
  { status: Type.Literal('ok') },
  { additionalProperties: false, title: 'Health', description: 'All is well; anything else is a problem.' },
)
const ok = { status: 'ok' } as const

const Anything = Type.Object({}, { additionalProperties: true })
const Contract = Type.Object(
  { openapi: Type.String(), info: Anything, paths: Anything },
  { additionalProperties: true, title: 'Contract', description: 'A document of OpenAPI 3.1.' },
)

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
        response: {
          200: answer('Alive.', Health, { example: ok }),
          ...problemResponses('bad-request', 'internal-error'),
        },
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
        description: 'Asks the store, because nothing can be done without it.',
        security: [],
        response: {
          200: answer('Ready.', Health, { example: ok }),
          ...problemResponses('bad-request', 'store-unavailable', 'internal-error'),
        },
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
          200: answer('The contract.', Contract, {
            example: { openapi: '3.1.0', info: { title: 'Understudy' }, paths: {} },
          }),
          ...problemResponses('bad-request', 'internal-error'),
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
        params: Type.Object(
          {
            code: Type.String({ maxLength: 64, description: 'The last part of `type`.', examples: ['cluster-busy'] }),
          },
          { additionalProperties: false },
        ),
        response: {
          200: textOnly('What it means and what to do.', pageOf('cluster-busy')),
          ...problemResponses('not-found', 'bad-request', 'internal-error'),
        },
      },
    },
    async (request, reply) => {
      const { code } = request.params
      if (!Object.hasOwn(PROBLEMS, code))
        throw new ProblemError(
          'not-found',
          `There is no problem ${code}. The contract, GET /openapi.json, names all of them.`,
        )
      return reply.type('text/plain; charset=utf-8').send(pageOf(code as ProblemCode))
    },
  )
}

function pageOf(code: ProblemCode): string {
  const { status, title, about, example } = PROBLEMS[code]
  return `${code} (${status}): ${title}\n\n${about}\n\nAn example of its detail:\n  ${example}\n`
}
