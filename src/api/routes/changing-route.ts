/** What every call has in common that changes a cluster by an operation: who may, what its query says, how it is answered. */
import type { FastifyInstance } from 'fastify'
import type { TSchema } from 'typebox'
import type { ProblemCode } from '../problems.js'
import {
  accepted,
  ChangeQuery,
  COMMON,
  OF_OPERATIONS,
  PreferHeader,
  planOrOutcome,
  problemResponses,
  WITH_BODY,
} from '../responses.js'

/** No body is the same as an empty one, in every route of this plugin. */
export function bodyMayBeLeftOut(app: Pick<FastifyInstance, 'addHook'>): void {
  app.addHook('preValidation', async request => {
    request.body ??= {}
  })
}

interface About {
  operationId: string
  tags: string[]
  summary: string
  description: string
  params: TSchema
  body?: TSchema
}

/**
 * Options of such a route. `problems`: what it may answer with beside what every changing call may. `answer`: its 202. With
 * the plugin changing-calls it also takes an `Idempotency-Key` and an `If-Match`.
 */
export const changingRoute = <A extends About>(
  about: A,
  problems: readonly ProblemCode[],
  answer: typeof accepted = accepted,
) => ({
  config: { access: 'admin' as const },
  schema: {
    ...about,
    querystring: ChangeQuery,
    headers: PreferHeader,
    response: {
      200: planOrOutcome,
      202: answer,
      ...problemResponses(...(about.body === undefined ? COMMON : WITH_BODY), ...OF_OPERATIONS, ...problems),
    },
  },
})
