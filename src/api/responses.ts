/** What routes answer with, apart from their own bodies: shared by all of them so that the contract says it once. */
import type { FastifyReply, FastifyRequest } from 'fastify'
import { type TSchema, Type } from 'typebox'
import { isFinal, Operation } from '../operations/operation.js'
import { exampleOperation, exampleProblem } from './examples.js'
import { PROBLEMS, Problem, type ProblemCode, ProblemError, problemOfFailure } from './problems.js'
import type { Services } from './services.js'
import { operationText } from './text.js'

const RETRY_AFTER = { 'retry-after': { type: 'integer', description: 'Seconds until a repetition is worth while.' } }
const CHALLENGE = { 'www-authenticate': { type: 'string', description: 'Always `Bearer realm="understudy"`.' } }

/** The problems that a route may answer with, by status. Every authenticated route also has the common ones. */
export function problemResponses(...codes: ProblemCode[]) {
  const byStatus = new Map<number, ProblemCode[]>()
  for (const code of new Set(codes)) {
    const { status } = PROBLEMS[code]
    byStatus.set(status, [...(byStatus.get(status) ?? []), code])
  }
  return Object.fromEntries([...byStatus].map(([status, kinds]) => [status, problemResponse(kinds)]))
}

function problemResponse(codes: readonly ProblemCode[]) {
  const headers = {
    ...(codes.includes('unauthorized') ? CHALLENGE : {}),
    ...(codes.some(code => 'retryAfter' in PROBLEMS[code]) ? RETRY_AFTER : {}),
  }
  return {
    description: codes.map(code => `${PROBLEMS[code].title} (\`${code}\`).`).join(' '),
    ...(Object.keys(headers).length > 0 ? { headers } : {}),
    content: {
      'application/problem+json': {
        schema: Problem,
        examples: Object.fromEntries(
          codes.map(code => [code, { summary: PROBLEMS[code].title, value: exampleProblem(code) }]),
        ),
      },
    },
  }
}

export const COMMON = [
  'bad-request',
  'unauthorized',
  'internal-error',
  'store-unavailable',
] as const satisfies ProblemCode[]
export const WITH_BODY = [...COMMON, 'payload-too-large', 'unsupported-media-type'] as const satisfies ProblemCode[]
/** How an operation can end while the caller waits for it, or be refused when its plan is made. */
export const OF_OPERATIONS = [
  'operation-refused',
  'data-directory-not-empty',
  'operation-failed',
  'host-unreachable',
  'host-key-mismatch',
  'authentication-failed',
  'sudo-refused',
  'disk-full',
] as const satisfies ProblemCode[]

interface Described {
  /** One example, or several by name. */
  example?: unknown
  examples?: Record<string, { summary: string; value: unknown }>
  headers?: Record<string, unknown>
  /** The same thing for people; given, the route also answers with `text/plain`. */
  text?: string
}

/** A successful answer: JSON, and plain text where there is an example of it. */
export const answer = (description: string, schema: TSchema, { example, examples, headers, text }: Described) => ({
  description,
  ...(headers ? { headers } : {}),
  content: {
    'application/json': {
      schema,
      ...(example === undefined ? {} : { example }),
      ...(examples === undefined ? {} : { examples }),
    },
    ...(text === undefined ? {} : { 'text/plain': { schema: Type.String(), example: text } }),
  },
})

export const textOnly = (description: string, example: string, mediaType = 'text/plain') => ({
  description,
  content: { [mediaType]: { schema: Type.String(), example } },
})

/** One of several things. Each has fields that the others lack, so exactly one fits. */
export const oneOf = (...schemas: TSchema[]) => Type.Unsafe<unknown>({ oneOf: schemas })

export const LOCATION_OF_OPERATION = { type: 'string', description: 'Path of the operation.' }
export const PREFERENCE_APPLIED = {
  'preference-applied': { type: 'string', description: 'The wait that was taken from `Prefer`.' },
}

export const accepted = answer('Accepted: a worker takes it up. Follow `Location`.', Operation, {
  headers: {
    location: LOCATION_OF_OPERATION,
    'retry-after': { type: 'integer', description: 'Seconds until a look is worth while.' },
    ...PREFERENCE_APPLIED,
  },
  example: exampleOperation('queued'),
  text: operationText(exampleOperation('queued')),
})

/** For routes without a query: an unknown parameter is refused there too. */
export const NoQuery = Type.Object({}, { additionalProperties: false })

export const WaitQuery = Type.Object(
  {
    wait: Type.Optional(
      Type.Integer({
        minimum: 0,
        maximum: 60,
        description: 'Hold the answer until the operation has ended, this many seconds at most.',
      }),
    ),
  },
  { additionalProperties: false },
)

export const ChangeQuery = Type.Object(
  {
    wait: WaitQuery.properties.wait,
    dryRun: Type.Optional(
      Type.Boolean({ description: 'Answer with the plan, every command and file in it, and do nothing.' }),
    ),
  },
  { additionalProperties: false },
)

export const PreferHeader = Type.Object({
  prefer: Type.Optional(
    Type.String({ description: '`wait=<seconds>`: the same as `?wait=`, as RFC 7240 says it.', examples: ['wait=30'] }),
  ),
})

/** JSON unless the caller asks for plain text before it. */
export function wantsText(request: FastifyRequest): boolean {
  return request.type(['application/json', 'text/plain']) === 'text/plain'
}

/** Sends a thing as JSON, or as text to who asked for text. */
export function sendEither<T>(request: FastifyRequest, reply: FastifyReply, body: T, text: (body: T) => string) {
  reply.header('vary', 'accept')
  return wantsText(request) ? reply.type('text/plain; charset=utf-8').send(text(body)) : reply.send(body)
}

/** Seconds to wait, from `?wait=` or from `Prefer: wait=` (RFC 7240), which is confirmed as that RFC asks for. */
export function waitSeconds(request: FastifyRequest, reply: FastifyReply, query: { wait?: number }): number {
  if (query.wait !== undefined) return query.wait
  const { prefer } = request.headers
  const asked = /(?:^|[,;\s])wait\s*=\s*"?(\d{1,9})"?(?:$|[,;\s])/i.exec(
    Array.isArray(prefer) ? prefer.join(',') : (prefer ?? ''),
  )?.[1]
  if (asked === undefined) return 0
  const seconds = Math.min(60, Number(asked))
  reply.header('preference-applied', `wait=${seconds}`)
  return seconds
}

/** The operation as it is once it has ended, or after `seconds`, or when the caller has gone. */
export async function awaitOperation(
  services: Services,
  id: string,
  seconds: number,
  signal: AbortSignal,
): Promise<Operation | undefined> {
  const deadline = performance.now() + seconds * 1000
  for (;;) {
    const operation = await services.store.operations.get(id)
    const left = deadline - performance.now()
    if (!operation || isFinal(operation.state) || left <= 0 || signal.aborted) return operation
    // A notice can be lost with its connection, so look again every few seconds in any case.
    await services.changes.next(id, Math.min(left, 3000), signal)
  }
}

/** Queues an operation and answers: 202, or what it ended with if the caller waits. */
export async function startOperation(
  services: Services,
  request: FastifyRequest,
  reply: FastifyReply,
  wanted: { type: Operation['type']; cluster: string; node?: string; input: unknown; wait: number },
) {
  const { wait, ...rest } = wanted
  const outcome = await services.store.operations.create({ ...rest, requestedBy: request.principal?.name ?? 'unknown' })
  if ('conflict' in outcome) {
    const operation = `/v1/operations/${outcome.conflict}`
    throw new ProblemError(
      'cluster-busy',
      `Operation ${operation} is changing ${wanted.cluster} now. Wait for it with GET ${operation}?wait=60, then repeat the call.`,
      {
        operation,
        retryAfterSeconds: 10,
      },
    )
  }
  const { created } = outcome
  try {
    await services.enqueue(created.id)
  } catch (error) {
    // It is recorded: a worker finds it without the queue's help. To say "failed" now would be wrong.
    request.log.warn({ err: error, operation: created.id }, 'not queued yet; a worker will find it')
  }
  reply.header('location', `/v1/operations/${created.id}`)
  const operation = wait > 0 ? await awaitOperation(services, created.id, wait, abortedWith(reply)) : created
  if (operation?.error) {
    const { code, detail } = problemOfFailure(operation.error)
    throw new ProblemError(code, detail, { operation: `/v1/operations/${created.id}` })
  }
  if (operation?.state === 'succeeded') return sendEither(request, reply.code(200), operation, operationText)
  return sendEither(request, reply.code(202).header('retry-after', 2), operation ?? created, operationText)
}

/** Aborted when the caller hangs up, so that nothing goes on for nobody. */
export function abortedWith(reply: FastifyReply): AbortSignal {
  const controller = new AbortController()
  // Of the answer and not of the socket, which serves many requests one after the other and would collect listeners.
  reply.raw.once('close', () => {
    if (!reply.raw.writableFinished) controller.abort(new Error('the caller has gone'))
  })
  return controller.signal
}
