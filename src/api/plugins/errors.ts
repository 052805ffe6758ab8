/** Every error leaves as problem details: the routes' own, the framework's, and what nobody expected. */
import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { OperationError } from '../../operations/errors.js'
import { failureOf } from '../../operations/run-plan.js'
import { asStoreError, StoreUnavailable } from '../../store/redis.js'
import { type Problem, type ProblemCode, ProblemError, problem, problemOfFailure } from '../problems.js'

export const errorsPlugin = fp(
  async app => {
    app.setErrorHandler((error: FastifyError, request, reply) => send(asStoreError(error), request, reply))
    app.setNotFoundHandler((request, reply) => {
      const path = request.url.split('?')[0] ?? ''
      const methods = (['GET', 'POST', 'PUT', 'PATCH', 'DELETE'] as const).filter(
        method => app.findRoute({ url: path, method }) !== null || app.hasRoute({ url: path, method }),
      )
      const found = methods.length > 0
      if (found) reply.header('allow', methods.join(', '))
      return answer(
        request,
        reply,
        found
          ? problem('method-not-allowed', `${path} takes ${methods.join(', ')}, not ${request.method}.`, request.id)
          : problem('not-found', `There is no ${path} in this API. GET /openapi.json lists every path.`, request.id),
      )
    })
  },
  { name: 'errors' },
)

function send(error: unknown, request: FastifyRequest, reply: FastifyReply) {
  if (error instanceof ProblemError) {
    const { errors, operation, retryAfterSeconds } = error.extra
    if (retryAfterSeconds !== undefined) reply.header('retry-after', retryAfterSeconds)
    if (error.code === 'unauthorized') reply.header('www-authenticate', 'Bearer realm="understudy"')
    const extra = { ...(errors ? { errors } : {}), ...(operation === undefined ? {} : { operation }) }
    return answer(request, reply, problem(error.code, error.message, request.id, extra))
  }
  if (error instanceof StoreUnavailable) {
    request.log.warn({ err: error }, 'the store does not answer')
    reply.header('retry-after', 5)
    return answer(
      request,
      reply,
      problem(
        'store-unavailable',
        'Redis does not answer. Nothing was started; repeat the call in a few seconds.',
        request.id,
      ),
    )
  }
  if (error instanceof OperationError) {
    const { code, detail } = problemOfFailure(failureOf(error))
    return answer(request, reply, problem(code, detail, request.id))
  }
  const framework = error as FastifyError
  if (framework.validation) {
    const errors = framework.validation.map(({ instancePath, message = 'is wrong', params }) => ({
      pointer: instancePath,
      detail: describeViolation(message, params),
    }))
    const where = { body: 'The body', querystring: 'The query', params: 'The path', headers: 'The headers' }[
      framework.validationContext ?? 'body'
    ]
    const detail = `${where ?? 'The request'} is not as described: ${errors.map(({ pointer, detail: what }) => `${pointer || '/'} ${what}`).join('; ')}.`
    return answer(request, reply, problem('bad-request', detail, request.id, { errors }))
  }
  const status = framework.statusCode ?? 500
  const code = BY_STATUS[status] ?? (status < 500 ? 'bad-request' : 'internal-error')
  if (code === 'internal-error') {
    request.log.error({ err: error }, 'unexpected error')
    return answer(
      request,
      reply,
      problem(code, `Something unexpected happened; the service’s log has it under request ${request.id}.`, request.id),
    )
  }
  return answer(request, reply, problem(code, framework.message, request.id))
}

const BY_STATUS: Record<number, ProblemCode> = {
  404: 'not-found',
  406: 'not-acceptable',
  413: 'payload-too-large',
  415: 'unsupported-media-type',
  429: 'too-many-requests',
  503: 'store-unavailable',
}

function describeViolation(message: string, params: Record<string, unknown>): string {
  if (typeof params.additionalProperty === 'string')
    return `has an unknown field ${JSON.stringify(params.additionalProperty)}`
  if (Array.isArray(params.allowedValues)) return `must be one of ${params.allowedValues.join(', ')}`
  return message
}

function answer(request: FastifyRequest, reply: FastifyReply, body: Problem) {
  return reply
    .code(body.status)
    .type('application/problem+json')
    .send({ ...body, instance: request.url.split('?')[0] ?? request.url })
}
