/** Every error leaves as problem details: the routes' own, the framework's, and what nobody expected. */
import type { Socket } from 'node:net'
import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { OperationError } from '../../operations/errors.js'
import { failureOf } from '../../operations/run-plan.js'
import { asStoreError, StoreUnavailable } from '../../store/redis.js'
import {
  type Problem,
  type ProblemCode,
  ProblemError,
  problem,
  problemOfFailure,
  sentences,
  type Violation,
} from '../problems.js'

/** A body that is wrong in more places than that is explained by the first of them. */
const MAX_VIOLATIONS = 20
/** What somebody sent is shown back to them up to this length. */
const MAX_QUOTED = 80

export const errorsPlugin = fp(
  async app => {
    const routes: { method: string; segments: string[] }[] = []
    app.addHook('onRoute', ({ method, url }) => {
      for (const one of [method].flat()) routes.push({ method: one, segments: url.split('/') })
    })
    app.setErrorHandler((error: FastifyError, request, reply) => sendProblem(asStoreError(error), request, reply))
    app.setNotFoundHandler((request, reply) => {
      const path = pathOf(request)
      const segments = path.split('/')
      const methods = [
        ...new Set(routes.filter(route => fits(route.segments, segments)).map(({ method }) => method)),
      ].sort()
      if (methods.length === 0 || methods.includes(request.method)) {
        const detail = `There is no ${quoted(path)} in this API. GET /openapi.json lists every path.`
        return send(request, reply, problem('not-found', detail, request.id))
      }
      reply.header('allow', methods.join(', '))
      const detail = `${quoted(path)} takes ${methods.join(', ')}, not ${request.method}.`
      return send(request, reply, problem('method-not-allowed', detail, request.id))
    })
  },
  { name: 'errors' },
)

export function sendProblem(error: unknown, request: FastifyRequest, reply: FastifyReply) {
  if (error instanceof ProblemError) {
    const { retryAfterSeconds, ...extra } = error.extra
    if (retryAfterSeconds !== undefined) reply.header('retry-after', retryAfterSeconds)
    if (error.code === 'unauthorized') reply.header('www-authenticate', 'Bearer realm="understudy"')
    return send(request, reply, problem(error.code, error.message, request.id, extra))
  }
  if (error instanceof StoreUnavailable) {
    request.log.warn({ err: error }, 'the store does not answer')
    reply.header('retry-after', 5)
    const detail =
      'Redis does not answer. Repeat the call in a few seconds: what was accepted already is not done twice.'
    return send(request, reply, problem('store-unavailable', detail, request.id))
  }
  if (error instanceof OperationError) {
    const failure = failureOf(error)
    const { code, detail } = problemOfFailure(failure)
    return send(request, reply, problem(code, detail, request.id, { outcome: failure.outcome }))
  }
  const framework = error as FastifyError
  if (framework.validation) return send(request, reply, violated(framework, request.id))
  const status = framework.statusCode ?? 500
  const code = BY_STATUS[status] ?? (status < 500 ? 'bad-request' : 'internal-error')
  if (code === 'internal-error') {
    request.log.error({ err: error }, 'unexpected error')
    const detail = `Something unexpected happened; the service’s log has it under request ${request.id}.`
    return send(request, reply, problem(code, detail, request.id))
  }
  return send(request, reply, problem(code, inOurWords(framework, request), request.id))
}

/** For what is no HTTP at all, or too slow: there is no request and no reply yet, only a connection. */
export function answerBrokenRequest(error: Error & { code?: string }, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy()
    return
  }
  const [code, line, detail] = BROKEN[error.code ?? ''] ?? [
    'bad-request',
    '400 Bad Request',
    'This is not a request of HTTP/1.1 that can be read.',
  ]
  const body = JSON.stringify(problem(code, detail, crypto.randomUUID()))
  socket.end(
    `HTTP/1.1 ${line}\r\nContent-Type: application/problem+json\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  )
}

const BROKEN: Record<string, [ProblemCode, string, string]> = {
  HPE_HEADER_OVERFLOW: [
    'headers-too-large',
    '431 Request Header Fields Too Large',
    'The path and the headers together are larger than 16 kB.',
  ],
  ERR_HTTP_REQUEST_TIMEOUT: [
    'request-timeout',
    '408 Request Timeout',
    'The request was not complete in time. Nothing was started.',
  ],
}

const BY_STATUS: Record<number, ProblemCode> = {
  404: 'not-found',
  406: 'not-acceptable',
  408: 'request-timeout',
  413: 'payload-too-large',
  415: 'unsupported-media-type',
  431: 'headers-too-large',
  503: 'store-unavailable',
}

/** The framework's own errors, told to somebody who does not know the framework. */
function inOurWords({ code, message }: FastifyError, request: FastifyRequest): string {
  switch (code) {
    case 'FST_ERR_CTP_BODY_TOO_LARGE':
      return `The body is larger than the ${request.routeOptions.bodyLimit} bytes that are read. No call needs that much.`
    case 'FST_ERR_CTP_INVALID_MEDIA_TYPE': {
      const type = request.headers['content-type']
      return `The body is ${type === undefined ? 'of no declared type' : quoted(type)}. Send JSON, with "Content-Type: application/json".`
    }
    case 'FST_ERR_CTP_EMPTY_JSON_BODY':
      return 'The body is empty. Send JSON, or leave Content-Type out.'
    case 'FST_ERR_CTP_INVALID_JSON_BODY':
      return 'The body is not JSON. Look for a missing quote, comma or bracket.'
    case 'FST_ERR_MAX_PARAM_LENGTH':
      return `${quoted(pathOf(request))} has a part that is longer than any name.`
    case 'FST_ERR_BAD_URL':
      return `${quoted(pathOf(request))} is not a path: a % in it is not followed by two hexadecimal digits of UTF-8.`
    default:
      return sentences(message)
  }
}

interface AjvError {
  keyword: string
  instancePath: string
  message?: string
  params: Record<string, unknown>
  /** There because Ajv is told to be verbose. */
  parentSchema?: { description?: string }
}

function violated({ validation = [], validationContext }: FastifyError, requestId: string): Problem {
  const found = validation as AjvError[]
  const errors = found.slice(0, MAX_VIOLATIONS).map(violationOf)
  const where =
    { body: 'The body', querystring: 'The query', params: 'The path', headers: 'The headers' }[
      validationContext ?? 'body'
    ] ?? 'The request'
  const more = found.length > errors.length ? [`and ${found.length - errors.length} more`] : []
  const places = errors.map(({ pointer, detail }) => (pointer === '' ? `it ${detail}` : `${pointer} ${detail}`))
  return problem('bad-request', `${where} is not as described: ${[...places, ...more].join('; ')}.`, requestId, {
    errors,
  })
}

function violationOf({ keyword, instancePath, message = 'is wrong', params, parentSchema }: AjvError): Violation {
  const at = (name: string) => `${instancePath}/${quoted(name.replaceAll('~', '~0').replaceAll('/', '~1'))}`
  switch (keyword) {
    case 'additionalProperties':
      return { pointer: at(String(params.additionalProperty)), detail: 'is not a field here' }
    case 'required':
      return { pointer: at(String(params.missingProperty)), detail: 'is missing' }
    case 'enum':
      return { pointer: instancePath, detail: `must be one of ${(params.allowedValues as unknown[]).join(', ')}` }
    case 'pattern': {
      const rule = parentSchema?.description
      return {
        pointer: instancePath,
        detail: `must match ${params.pattern}${rule === undefined ? '' : ` (${rule.replace(/\.$/, '')})`}`,
      }
    }
    default:
      return { pointer: instancePath, detail: message }
  }
}

const quoted = (text: string) => (text.length > MAX_QUOTED ? `${text.slice(0, MAX_QUOTED)}…` : text)

const pathOf = (request: FastifyRequest) => request.url.split('?')[0] ?? request.url

/** Whether a path could be one of a route, `:name` standing for anything and `*` for the rest. */
function fits(route: readonly string[], path: readonly string[]): boolean {
  if (route.at(-1) === '*')
    return path.length >= route.length && route.slice(0, -1).every((part, at) => part === path[at])
  return (
    route.length === path.length &&
    route.every((part, at) => (part.startsWith(':') ? path[at] !== '' : part === path[at]))
  )
}

function send(request: FastifyRequest, reply: FastifyReply, body: Problem) {
  // A stream under way cannot become an error any more: it is cut off, and its reader comes back with Last-Event-ID.
  return reply
    .code(body.status)
    .type('application/problem+json')
    .send({ ...body, instance: pathOf(request) })
}
