/** What routes answer with, apart from their own bodies: shared by all of them so that the contract says it once. */
import type { FastifyReply, FastifyRequest } from 'fastify'
import { type Static, type TSchema, Type } from 'typebox'
import type { WantedOperation } from '../cluster/operation-inputs.js'
import { type Difference, isFinal, Operation, PLAN_ID, PlanPreview, Reference } from '../operations/operation.js'
import { KeyReused } from '../store/once.js'
import { type CreateConditions, RecordChanged } from '../store/operations.js'
import { askerOf } from './asker.js'
import { exampleOperation, examplePlan, exampleProblem } from './examples.js'
import { onceOf } from './once.js'
import { refuseStale, stale } from './preconditions.js'
import { PROBLEMS, Problem, type ProblemCode, ProblemError, problemOfFailure } from './problems.js'
import type { Services } from './services.js'
import { operationText, planText } from './text.js'

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
  'cancelled',
  'idempotency-key-reused',
  'precondition-failed',
  'plan-changed',
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

export const REPLAYED = {
  'idempotent-replayed': { type: 'string', description: '`true` where the Idempotency-Key had been used before.' },
}
export const LOCATION_OF_OPERATION = { type: 'string', description: 'Path of the operation.' }
export const PREFERENCE_APPLIED = {
  'preference-applied': { type: 'string', description: 'The wait that was taken from `Prefer`.' },
}

export const acceptedAs = (example: Operation) =>
  answer('Accepted: a worker takes it up. Follow `Location`.', Operation, {
    headers: {
      location: LOCATION_OF_OPERATION,
      'retry-after': { type: 'integer', description: 'Seconds until a look is worth while.' },
      ...PREFERENCE_APPLIED,
      ...REPLAYED,
    },
    example,
    text: operationText(example),
  })

export const accepted = acceptedAs(exampleOperation('queued'))

/** The 200 of a changing call. */
export const planOrOutcome = answer(
  'The plan (dry run), or the operation (it succeeded while you waited).',
  oneOf(PlanPreview, Operation),
  {
    headers: {
      location: { ...LOCATION_OF_OPERATION, description: 'Path of the operation; not on a dry run.' },
      ...PREFERENCE_APPLIED,
      ...REPLAYED,
    },
    examples: {
      plan: { summary: 'Dry run: the plan', value: examplePlan },
      succeeded: { summary: 'It succeeded while you waited', value: exampleOperation('succeeded') },
    },
    text: planText(examplePlan),
  },
)

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

/** Of every changing call. With the plugin changing-calls it also takes an `Idempotency-Key`. */
const OnOperationQuery = { wait: WaitQuery.properties.wait, reference: Type.Optional(Reference) }
export const OperationChangeQuery = Type.Object(OnOperationQuery, { additionalProperties: false })

/** Of a call that changes the record of a cluster by itself, without an operation. */
export const RecordChangeQuery = Type.Object(
  {
    reference: OnOperationQuery.reference,
    dryRun: Type.Optional(Type.Boolean({ description: 'Answer with what would be so, and do nothing.' })),
  },
  { additionalProperties: false },
)

/** Of a dry run. */
const ExactPlan = Type.String({
  pattern: PLAN_ID,
  description:
    'Do exactly this plan of a dry run, or nothing: the `planId` that it answered with. Where the request or the record of the cluster is another one ' +
    'now, the call is refused; where something has changed on the hosts, the operation ends before its first step. Both are `plan-changed`.',
  examples: ['plan_5f1c0b8d2e7a4496_9c1185a5c5e9fc54612808977ee8f548_x3Qa0-'],
})

/** Of a call that changes a cluster. With the plugin changing-calls it also takes an `If-Match`. */
export const ChangeQuery = Type.Object(
  {
    ...OnOperationQuery,
    planId: Type.Optional(ExactPlan),
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

/** With what is kept and shown of it: the node that it is about, and what the caller's description changes. */
type Wanted = WantedOperation & { node?: string; differences?: Difference[] }

/**
 * What a changing call does: on a dry run it answers with the plan, otherwise it queues the operation and answers with
 * 202, or with what it ended with if the caller waits.
 */
export async function answerChange(services: Services, request: FastifyRequest, reply: FastifyReply, wanted: Wanted) {
  const query = request.query as Static<typeof ChangeQuery>
  const { node, differences, ...operation } = wanted
  const record = await services.store.clusters.get(operation.cluster.name)
  const asSeen = refuseStale(request, record)
  if (query.dryRun) {
    const plan = await services.preview(operation, abortedWith(reply))
    return sendEither(request, reply, differences === undefined ? plan : { ...plan, differences }, planText)
  }
  if (query.planId !== undefined) services.refuseOtherSubject(query.planId, operation)
  const once = onceOf(request)
  return startOperation(services, request, reply, wanted, {
    ...(once ? { once } : {}),
    ...(asSeen && record ? { clusterVersion: record.version } : {}),
  })
}

async function startOperation(
  services: Services,
  request: FastifyRequest,
  reply: FastifyReply,
  wanted: Wanted,
  conditions: CreateConditions,
) {
  const cluster = wanted.cluster.name
  const { reference, planId } = request.query as Static<typeof ChangeQuery>
  const { name, ...requestedFrom } = askerOf(request)
  const outcome = await services.store.operations
    .create(
      {
        type: wanted.type,
        cluster,
        input: wanted.input,
        requestedBy: name,
        requestedFrom,
        ...(wanted.node === undefined ? {} : { node: wanted.node }),
        ...(wanted.differences === undefined ? {} : { differences: wanted.differences }),
        ...(reference === undefined ? {} : { reference }),
        ...(planId === undefined ? {} : { planId }),
        ...(wanted.type === 'promote' && wanted.input.force ? { forced: true as const } : {}),
      },
      conditions,
    )
    .catch(async error => {
      if (error instanceof RecordChanged) throw stale(await services.store.clusters.get(cluster))
      throw refuseReuse(error)
    })
  if ('conflict' in outcome) throw busy(cluster, outcome.conflict)
  const { created, repeated } = outcome
  if (!repeated) await enqueue(services, request, created.id)
  return answerOperation(services, request, reply, created.id, { repeated })
}

/** A repetition with its key is no error; with the key of another request it is. */
export function refuseReuse(error: unknown): unknown {
  if (!(error instanceof KeyReused)) return error
  return new ProblemError(
    'idempotency-key-reused',
    'This Idempotency-Key has been used for another request. Send a new request with a new key, and a repetition exactly as the first time.',
  )
}

export function busy(cluster: string, id: string): ProblemError {
  const operation = `/v1/operations/${id}`
  return new ProblemError(
    'cluster-busy',
    `Operation ${operation} is changing ${cluster} now. Wait for it with GET ${operation}?wait=60, then repeat the call.`,
    { operation, retryAfterSeconds: 10 },
  )
}

export async function enqueue(services: Services, request: FastifyRequest, id: string): Promise<void> {
  try {
    await services.enqueue(id)
  } catch (error) {
    // It is recorded: a worker finds it without the queue's help. To say "failed" now would be wrong.
    request.log.warn({ err: error, operation: id }, 'not queued yet; a worker will find it')
  }
}

/**
 * Answers with an operation that was asked for: 202, or what it ended with where the caller waits, or where it is an
 * answer that was given before.
 */
export async function answerOperation(
  services: Services,
  request: FastifyRequest,
  reply: FastifyReply,
  id: string,
  { repeated = false, cancelling = false }: { repeated?: boolean | undefined; cancelling?: boolean } = {},
) {
  const path = `/v1/operations/${id}`
  reply.header('location', path)
  if (repeated) reply.header('idempotent-replayed', 'true')
  const wait = waitSeconds(request, reply, request.query as { wait?: number })
  const operation = await awaitOperation(services, id, wait, abortedWith(reply))
  if (!operation) throw new ProblemError('not-found', `${path} is not kept any more.`)
  if (!isFinal(operation.state))
    return sendEither(request, reply.code(202).header('retry-after', 2), operation, operationText)
  if (operation.error && !cancelling) {
    const { code, detail } = problemOfFailure(operation.error)
    throw new ProblemError(code, detail, { operation: path, outcome: operation.error.outcome })
  }
  return sendEither(request, reply.code(200), operation, operationText)
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
