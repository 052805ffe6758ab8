/** What routes answer with, apart from their own bodies: shared by all of them so that the contract says it once. */
import type { FastifyReply, FastifyRequest } from 'fastify'
import { type Static, type TSchema, Type } from 'typebox'
import { isFinal, type Operation } from '../operations/operation.js'
import { PROBLEMS, type ProblemCode, ProblemError, problemOfFailure } from './problems.js'
import type { Services } from './services.js'

/** A schema that is registered once and shows up as a component of the contract. */
export const ref = <S extends TSchema & { $id?: string }>(schema: S) =>
  Type.Unsafe<Static<S>>({ $ref: `${schema.$id}#` })

const problemContent = { 'application/problem+json': { schema: { $ref: 'Problem#' } } }

/** The problems that a route may answer with, by status. Every authenticated route also has the common ones. */
export function problemResponses(...codes: ProblemCode[]) {
  const byStatus: Record<number, { description: string; content: typeof problemContent }> = {}
  for (const code of codes) {
    const { status, title } = PROBLEMS[code]
    const earlier = byStatus[status]
    byStatus[status] = { description: earlier ? `${earlier.description}; ${title}` : title, content: problemContent }
  }
  return byStatus
}

export const COMMON = [
  'bad-request',
  'unauthorized',
  'internal-error',
  'store-unavailable',
] as const satisfies ProblemCode[]
export const WITH_BODY = [...COMMON, 'payload-too-large', 'unsupported-media-type'] as const satisfies ProblemCode[]
/** How an operation can end while the caller waits for it, or be refused when its plan is made. */
export const OF_OPERATIONS = ['operation-failed', 'operation-refused'] as const satisfies ProblemCode[]

export const json = (description: string, schema: TSchema, headers?: Record<string, unknown>) => ({
  description,
  ...(headers ? { headers } : {}),
  content: { 'application/json': { schema } },
})

export const jsonOrText = (description: string, schema: TSchema) => ({
  description,
  content: { 'application/json': { schema }, 'text/plain': { schema: Type.String() } },
})

export const accepted = {
  description: 'Accepted: a worker takes it up. Follow `Location`.',
  headers: {
    location: { description: 'The operation.', schema: { type: 'string' } },
    'retry-after': { description: 'Seconds until a look is worth while.', schema: { type: 'integer' } },
  },
  content: { 'application/json': { schema: { $ref: 'Operation#' } } },
}

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

/** JSON unless the caller asks for plain text before it. */
export function wantsText(request: FastifyRequest): boolean {
  return request.type(['application/json', 'text/plain']) === 'text/plain'
}

/** Seconds to wait, from `?wait=` or from `Prefer: wait=` (RFC 7240). */
export function waitSeconds(request: FastifyRequest, query: { wait?: number }): number {
  if (query.wait !== undefined) return query.wait
  const prefer = request.headers.prefer
  const asked = /(?:^|[,;\s])wait\s*=\s*"?(\d{1,4})"?/i.exec(
    Array.isArray(prefer) ? prefer.join(',') : (prefer ?? ''),
  )?.[1]
  return asked === undefined ? 0 : Math.min(60, Number(asked))
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
  const operation = wait > 0 ? await awaitOperation(services, created.id, wait, abortedWith(request)) : created
  if (operation?.state === 'succeeded') return reply.code(200).send(operation)
  if (operation?.error) {
    const { code, detail } = problemOfFailure(operation.error)
    throw new ProblemError(code, detail, { operation: `/v1/operations/${created.id}` })
  }
  return reply
    .code(202)
    .header('retry-after', 2)
    .send(operation ?? created)
}

/** Aborted when the caller hangs up, so that nothing goes on for nobody. */
export function abortedWith(request: FastifyRequest): AbortSignal {
  const controller = new AbortController()
  request.raw.socket.once('close', () => controller.abort(new Error('the caller has gone')))
  return controller.signal
}
