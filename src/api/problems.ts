/**
 * Every error that the API answers with: problem details (RFC 9457), their `type` a page that this service serves. One
 * table, so that code, status and documentation cannot part.
 */
import { type Static, Type } from 'typebox'
import type { OperationFailure } from '../operations/operation.js'

export const Problem = Type.Object(
  {
    type: Type.String({ format: 'uri-reference', examples: ['/problems/cluster-busy'] }),
    title: Type.String(),
    status: Type.Integer(),
    detail: Type.String({ description: 'What is wrong here, and what to do.' }),
    instance: Type.Optional(Type.String({ description: 'The request that it is about.' })),
    requestId: Type.String({ description: 'Stands in the service’s log too.' }),
    operation: Type.Optional(Type.String({ description: 'Where the operation is that this is about.' })),
    errors: Type.Optional(
      Type.Array(
        Type.Object(
          { pointer: Type.String({ description: 'JSON pointer into the body.' }), detail: Type.String() },
          { additionalProperties: false },
        ),
      ),
    ),
  },
  { additionalProperties: false, $id: 'Problem', title: 'What went wrong, and what to do' },
)
export type Problem = Static<typeof Problem>

interface ProblemKind {
  status: number
  title: string
  /** The page behind `type`. */
  about: string
}

export const PROBLEMS = {
  'bad-request': {
    status: 400,
    title: 'The request is not as the API describes it',
    about:
      'Compare it with /docs. `errors` points at each place. Unknown fields are refused, so that a misspelt one is not silently ignored.',
  },
  unauthorized: {
    status: 401,
    title: 'No valid token',
    about:
      'Send `Authorization: Bearer <token>`. The admin token was written to the file admin-token in the state directory at first start.',
  },
  'not-found': {
    status: 404,
    title: 'There is no such thing',
    about: 'Look the name up in the list that it belongs to.',
  },
  'method-not-allowed': {
    status: 405,
    title: 'This path does not take this method',
    about: 'The Allow header says which it takes.',
  },
  'not-acceptable': {
    status: 406,
    title: 'Not available in this form',
    about: 'The Accept header asks for a media type that this path does not have.',
  },
  'cluster-exists': {
    status: 409,
    title: 'The cluster exists, and is another one',
    about:
      'A cluster is described once; the same description may be repeated. Add nodes with POST /v1/clusters/{c}/nodes.',
  },
  'cluster-busy': {
    status: 409,
    title: 'Another operation is changing this cluster',
    about:
      'One operation at a time changes a cluster. `operation` is the one that runs: wait for it, then repeat the call.',
  },
  'cluster-not-built': {
    status: 409,
    title: 'The cluster has not been built yet',
    about: 'POST /v1/clusters with "bootstrap": true builds it.',
  },
  'node-exists': {
    status: 409,
    title: 'The node exists, and is another one',
    about:
      'Names of nodes are unique in a cluster. The same description may be repeated, which takes up an unfinished operation.',
  },
  'payload-too-large': {
    status: 413,
    title: 'The body is too large',
    about: 'No call of this API needs a body as large as that.',
  },
  'unsupported-media-type': {
    status: 415,
    title: 'The body is not JSON',
    about: 'Send `Content-Type: application/json`.',
  },
  inconsistent: {
    status: 422,
    title: 'The description contradicts itself',
    about: '`errors` points at each contradiction.',
  },
  'host-key-unconfirmed': {
    status: 422,
    title: 'The host keys are not confirmed',
    about:
      'The service logs in only to hosts whose key somebody has confirmed. `errors` has the fingerprint that each host offers: compare it with `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on the host’s console, then repeat the call with it as `ssh.hostKey`.',
  },
  'too-many-requests': { status: 429, title: 'Too many requests', about: 'Wait for as long as Retry-After says.' },
  'internal-error': {
    status: 500,
    title: 'A fault of the service',
    about: 'The log of the service has the request id and the reason. Please report it.',
  },
  'store-unavailable': {
    status: 503,
    title: 'The store does not answer',
    about: 'Redis is away. Running operations wait for it and go on; repeat the call when it is back.',
  },

  'operation-failed': {
    status: 502,
    title: 'The operation failed',
    about: '`detail` says at what and what to do; `operation` has every step.',
  },
  'operation-refused': {
    status: 409,
    title: 'The operation was refused, nothing was touched',
    about: '`detail` says what stands in the way.',
  },
  'host-unreachable': {
    status: 502,
    title: 'A host does not answer',
    about:
      'The service could not open an SSH connection to it. Is it up, is the address right, does a firewall let SSH through?',
  },
  'host-key-mismatch': {
    status: 502,
    title: 'A host shows another key than the pinned one',
    about:
      'Somebody reinstalled it, its address belongs to another host now, or somebody is in between. Compare the fingerprint on the host’s console before you change the pin.',
  },
  'authentication-failed': {
    status: 502,
    title: 'A host does not let the service in',
    about: 'Put the key of GET /v1/ssh-key into authorized_keys of the login user.',
  },
  'sudo-refused': {
    status: 502,
    title: 'The login user may not use sudo',
    about: 'It needs sudo without a password: a line like `admin ALL=(ALL) NOPASSWD: ALL` in /etc/sudoers.d.',
  },
  'data-directory-not-empty': {
    status: 409,
    title: 'A data directory holds somebody’s database',
    about:
      'The service overwrites no database that it did not make. Move it away or drop it (`pg_dropcluster`), then repeat the call.',
  },
  'disk-full': {
    status: 502,
    title: 'A disk is full',
    about: 'Free space on the host, then repeat the call: it goes on from there.',
  },
} as const satisfies Record<string, ProblemKind>
export type ProblemCode = keyof typeof PROBLEMS

/** Thrown by a route; the error handler makes the answer of it. */
export class ProblemError extends Error {
  constructor(
    readonly code: ProblemCode,
    detail: string,
    readonly extra: {
      errors?: { pointer: string; detail: string }[]
      operation?: string
      retryAfterSeconds?: number
    } = {},
  ) {
    super(detail)
    this.name = 'ProblemError'
  }
}

export function problem(code: ProblemCode, detail: string, requestId: string, extra: Partial<Problem> = {}): Problem {
  const { status, title } = PROBLEMS[code]
  return { type: `/problems/${code}`, title, status, detail, requestId, ...extra }
}

/** The answer for an operation that ended badly while the caller waited, or that would be refused. */
export function problemOfFailure(failure: OperationFailure): { code: ProblemCode; detail: string } {
  const known = failure.code in PROBLEMS
  const fallback = failure.outcome === 'not_started' ? 'operation-refused' : 'operation-failed'
  return { code: known ? (failure.code as ProblemCode) : fallback, detail: `${failure.detail} ${failure.remedy}` }
}
