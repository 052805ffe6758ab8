/**
 * Every error that the API answers with: problem details (RFC 9457), their `type` a page that this service serves. One
 * table, so that code, status and documentation cannot part.
 */
import { type Static, Type } from 'typebox'
import { type OperationFailure, Outcome } from '../operations/operation.js'

export const Violation = Type.Object(
  {
    pointer: Type.String({
      description: 'JSON pointer to the place in the body; for the query, the path and the headers `/` and the name.',
      examples: ['/nodes/0/ssh/hostKey'],
    }),
    detail: Type.String({ description: 'What is wrong at this place.' }),
  },
  { additionalProperties: false, title: 'Violation', description: 'One place of a request, and what is wrong there.' },
)

export type Violation = Static<typeof Violation>

export const Problem = Type.Object(
  {
    type: Type.String({
      format: 'uri-reference',
      description:
        'Which kind of problem it is: the address of the page that explains it. Decide by this, not by texts.',
      examples: ['/problems/cluster-busy'],
    }),
    title: Type.String({ description: 'The kind of problem in words; the same for all of a kind.' }),
    status: Type.Integer({ description: 'The HTTP status of this answer.' }),
    detail: Type.String({ description: 'What is wrong here, and what to do.' }),
    instance: Type.Optional(Type.String({ description: 'The path of the request that it is about.' })),
    requestId: Type.String({ description: 'Stands in the service’s log too.' }),
    operation: Type.Optional(
      Type.String({
        description: 'Path of the operation that this is about.',
        examples: ['/v1/operations/op_01KAR3QJ7ZC0V7W0M2E9T1X5YB'],
      }),
    ),
    outcome: Type.Optional(Outcome),
    errors: Type.Optional(Type.Array(Violation, { description: 'Each place that is wrong.' })),
  },
  {
    additionalProperties: false,
    title: 'Problem',
    description: 'What went wrong, and what to do: problem details as in RFC 9457.',
  },
)
export type Problem = Static<typeof Problem>

interface ProblemKind {
  status: number
  title: string
  /** The page behind `type`. */
  about: string
  /** For the contract: what an answer of this kind says. */
  example: string
  /** Whether it says in `Retry-After` when to come back. */
  retryAfter?: true
}

export const PROBLEMS = {
  'bad-request': {
    status: 400,
    title: 'The request is not as the API describes it',
    about:
      'Compare it with /docs. `errors` points at each place. Unknown fields are refused, so that a misspelt one is not silently ignored.',
    example: 'The body is not as described: /bootstap is not a field here.',
  },
  unauthorized: {
    status: 401,
    title: 'No valid token',
    about:
      'Send `Authorization: Bearer <token>`. The admin token was written to the file admin-token in the state directory at first start.',
    example: 'Send the header "Authorization: Bearer <token>".',
  },
  'not-found': {
    status: 404,
    title: 'There is no such thing',
    about: 'Look the name up in the list that it belongs to.',
    example: 'There is no cluster orders. GET /v1/clusters lists them.',
  },
  'method-not-allowed': {
    status: 405,
    title: 'This path does not take this method',
    about: 'The Allow header says which it takes.',
    example: '/v1/clusters takes GET, HEAD, POST, not DELETE.',
  },
  'request-timeout': {
    status: 408,
    title: 'The request came too slowly',
    about: 'It was not complete in time, and was given up. Nothing was started.',
    example: 'The request was not complete after 30 seconds.',
  },
  'not-acceptable': {
    status: 406,
    title: 'Not available in this form',
    about: 'The Accept header asks for a media type that this path does not have.',
    example: 'This is a stream of server-sent events: ask for it with "Accept: text/event-stream".',
  },
  'cluster-exists': {
    status: 409,
    title: 'The cluster exists, and is another one',
    about:
      'A cluster is described once; the same description may be repeated. Add nodes with POST /v1/clusters/{c}/nodes.',
    example:
      'orders exists and is described differently: /postgresVersion is 15 there. See GET /v1/clusters/orders. Nodes are added with POST /v1/clusters/orders/nodes.',
  },
  'cluster-busy': {
    status: 409,
    title: 'Another operation is changing this cluster',
    about:
      'One operation at a time changes a cluster. `operation` is the one that runs: wait for it, then repeat the call.',
    example:
      'Operation /v1/operations/op_01KAR3QJ7ZC0V7W0M2E9T1X5YB is changing orders now. Wait for it with GET /v1/operations/op_01KAR3QJ7ZC0V7W0M2E9T1X5YB?wait=60, then repeat the call.',
    retryAfter: true,
  },
  'cluster-not-built': {
    status: 409,
    title: 'The cluster has not been built yet',
    about: 'POST /v1/clusters with "bootstrap": true builds it.',
    example: 'orders has not been built: POST /v1/clusters with its description and "bootstrap": true first.',
  },
  'node-exists': {
    status: 409,
    title: 'The node exists, and is another one',
    about:
      'Names of nodes are unique in a cluster. The same description may be repeated, which takes up an unfinished operation.',
    example:
      'pg3 is a node of orders already: admin@192.0.2.13, port 22, host key SHA256:Zp1yq3m0WqUuG2qk5tS4y7nRr1dXb9c8VfHj6LwTaMs. Choose another name, or repeat it as it is there.',
  },
  unchangeable: {
    status: 409,
    title: 'The cluster cannot be changed into what was described',
    about:
      'Nodes are removed with DELETE …/nodes/{n}, not by leaving them out; a port, a major version or the host of a node is not changed in place. `errors` points at each.',
    example:
      'orders cannot be made what this description says: /port is 5432 there. Nodes are removed with DELETE /v1/clusters/orders/nodes/{n}; a port, a major version or a host of a node cannot be changed in place.',
  },
  'confirmation-required': {
    status: 409,
    title: 'It has to be confirmed',
    about:
      'The call does harm that must be meant: connections are cut, or data are removed. `detail` says which. If that is meant, repeat the call with `confirm` set to the name that it is about. Nothing was done.',
    example:
      'pg1 is the primary: without it nobody can write, and no standby takes over by itself. If that is meant, repeat the call with confirm set to "pg1".',
  },
  'primary-alive': {
    status: 409,
    title: 'The primary lives',
    about:
      'Somebody gets an answer from it: this service, or a standby. While it lives, POST /v1/clusters/{c}/switchover makes another node the primary and loses nothing. `"force": true` stops it. Nothing was done.',
    example:
      'pg1 lives: It answers, and accepts writes. To make another node the primary while it lives, without losing a commit: POST /v1/clusters/orders/switchover. To take its place all the same: "force": true, which stops it.',
  },
  'promotion-unsafe': {
    status: 409,
    title: 'A promotion could make two primaries, or lose too much',
    about:
      '`detail` says what is missing: votes of a majority, a proof that the old primary is stopped, a standby that has the data. Nothing was done. `"force": true` goes on without votes and proof, and says first what that risks.',
    example:
      'pg1 cannot be fenced: its host does not answer by SSH within 6 s, and no fence hook is set. Bring the host of pg1 back, or switch it off for certain; set a fence hook (docs/promote.md) for the next time.',
  },
  cancelled: {
    status: 409,
    title: 'The operation was cancelled',
    about:
      'Somebody called it off: `operation` says who. POST /v1/operations/{id}/retry goes on from the step that it stopped at.',
    example:
      'It was cancelled by admin. Nothing more was started. Retry the operation to go on from the step that it stopped at.',
  },
  'plan-changed': {
    status: 409,
    title: 'The plan is not the one any more that was shown',
    about:
      'The request, the cluster or something on its hosts has changed since the dry run. Nothing was done. Make a new plan, read it, and repeat the call with its planId.',
    example:
      'The plan of bootstrap-cluster of orders is not the one any more that planId stands for: pg1/repmgr-conf now would run (/etc/repmgr.conf is missing or different). Somebody has changed the cluster, its hosts or the request since. Make a new plan with ?dryRun=true, read it, and repeat the call with its planId.',
  },
  'operation-ended': {
    status: 409,
    title: 'The operation has ended',
    about: 'What has ended cannot be cancelled. `operation` says how it ended.',
    example: '/v1/operations/op_01KAR3QJ7ZC0V7W0M2E9T1X5YB has succeeded: there is nothing to cancel.',
  },
  'not-retryable': {
    status: 409,
    title: 'The operation cannot be retried',
    about: 'Only one that failed or was cancelled is tried again. `operation` says how it is.',
    example: '/v1/operations/op_01KAR3QJ7ZC0V7W0M2E9T1X5YB has succeeded: there is nothing to retry.',
  },
  'retry-outdated': {
    status: 409,
    title: 'The operation is out of date',
    about:
      'Since it ended the cluster has been changed by another one, or was forgotten, and another cluster has its name now. `operation` is the later one where it is known. Nothing was done. Read the cluster, and ask anew for what is still wanted.',
    example:
      'orders has been changed by /v1/operations/op_01KAR3QJ7ZC0V7W0M2E9T1X5YB since /v1/operations/op_01KAR2M3V8D4J5N6P7Q8R9S0T1 ended: to go on with it could undo that. If it is still wanted, ask for it anew.',
  },
  'precondition-failed': {
    status: 412,
    title: 'The cluster is another one than If-Match says',
    about:
      'Somebody has changed its record since you read it. Read it again, and repeat the call with the new ETag if it is still wanted.',
    example:
      'orders is not any more as If-Match says. Read GET /v1/clusters/orders again, then repeat the call with its ETag.',
  },
  'payload-too-large': {
    status: 413,
    title: 'The body is too large',
    about: 'No call of this API needs a body as large as that.',
    example: 'The body is larger than 1048576 bytes.',
  },
  'unsupported-media-type': {
    status: 415,
    title: 'The body is not JSON',
    about: 'Send `Content-Type: application/json`.',
    example: 'The body is text/plain. Send JSON, with "Content-Type: application/json".',
  },
  inconsistent: {
    status: 422,
    title: 'The description contradicts itself',
    about: '`errors` points at each contradiction.',
    example: '192.0.2.11 is also the host of nodes[0]; one node a host.',
  },
  'setting-refused': {
    status: 422,
    title: 'A setting of PostgreSQL cannot be had',
    about:
      'PostgreSQL does not know it or does not take its value, or the cluster needs it as it is. `errors` points at each, with the reason in PostgreSQL’s own words. Nothing was written.',
    example:
      'work_mem on pg1: invalid value for parameter "work_mem": "64XB". Valid units for this parameter are "B", "kB", "MB", "GB", and "TB".',
  },
  'host-key-unconfirmed': {
    status: 422,
    title: 'The host keys are not confirmed',
    about:
      'The service logs in only to hosts whose key somebody has confirmed. `errors` has the fingerprint that each host offers: compare it with `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on the host’s console, then repeat the call with it as `ssh.hostKey`.',
    example:
      'pg1 (192.0.2.11) offers ssh-ed25519 SHA256:kL4Sd0mNsCXzAVEoGUfOTlZeIkoQbBFNrHqJCrW9yZQ. Compare it with "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub" on the host’s console, then repeat the call with it as ssh.hostKey.',
  },
  'idempotency-key-reused': {
    status: 422,
    title: 'The Idempotency-Key belongs to another request',
    about:
      'A key stands for one request: the same method, path, query and body, by the same token. Send another request with a key of its own.',
    example:
      'This Idempotency-Key has been used for another request. Send a new request with a new key, and a repetition exactly as the first time.',
  },
  'headers-too-large': {
    status: 431,
    title: 'The headers are too large',
    about: 'No call of this API needs headers or a path as long as that.',
    example: 'The headers are larger than this service reads.',
  },
  'internal-error': {
    status: 500,
    title: 'A fault of the service',
    about: 'The log of the service has the request id and the reason. Please report it.',
    example:
      'Something unexpected happened; the service’s log has it under request 5f0c2c4e-6a51-4b0e-9d2e-0f8f0e6c1c57.',
  },
  'store-unavailable': {
    status: 503,
    title: 'The store does not answer',
    about: 'Redis is away. Running operations wait for it and go on; repeat the call when it is back.',
    example: 'Redis does not answer. Repeat the call in a few seconds: what was accepted already is not done twice.',
    retryAfter: true,
  },

  'operation-failed': {
    status: 502,
    title: 'The operation failed',
    about: '`detail` says what happened and what to do; `operation` has every step and what the host printed.',
    example:
      'apt-get install on 192.0.2.12 ended with exit status 100. Read the output, put right what it names on 192.0.2.12, then retry: what is done already is not done twice.',
  },
  'operation-refused': {
    status: 409,
    title: 'The operation was refused, nothing was touched',
    about: '`detail` says what stands in the way.',
    example:
      'pg1 runs Fedora Linux 41, which cannot be provisioned. Debian and Ubuntu with systemd are supported so far.',
  },
  'host-unreachable': {
    status: 502,
    title: 'A host does not answer',
    about:
      'The service could not open an SSH connection to it. Is it up, is the address right, does a firewall let SSH through?',
    example:
      '192.0.2.12:22 cannot be reached over SSH: no answer within 5000 ms. Check that 192.0.2.12 is up, that sshd listens on port 22, and that no firewall is in between: ssh-keyscan -p 22 192.0.2.12. Then retry.',
  },
  'host-key-mismatch': {
    status: 502,
    title: 'A host shows another key than the pinned one',
    about:
      'Somebody reinstalled it, its address belongs to another host now, or somebody is in between. Compare the fingerprint on the host’s console before you change the pin.',
    example:
      '192.0.2.12:22 shows the host key SHA256:0cJcDkqtXqLLQm4vC5e9j3Z4aV9zW2h5aX8oLwq2YhE (ssh-ed25519), but SHA256:kL4Sd0mNsCXzAVEoGUfOTlZeIkoQbBFNrHqJCrW9yZQ is pinned.',
  },
  'authentication-failed': {
    status: 502,
    title: 'A host does not let the service in',
    about: 'Put the key of GET /v1/ssh-key into authorized_keys of the login user.',
    example:
      '192.0.2.12:22 does not accept our key for the user admin. Put the public key of this service into ~admin/.ssh/authorized_keys on 192.0.2.12.',
  },
  'sudo-refused': {
    status: 502,
    title: 'The login user may not use sudo',
    about: 'It needs sudo without a password: a line like `admin ALL=(ALL) NOPASSWD: ALL` in /etc/sudoers.d.',
    example: 'sudo on 192.0.2.12 refuses the user admin: a password is required.',
  },
  'data-directory-not-empty': {
    status: 409,
    title: 'A data directory holds somebody’s database',
    about:
      'The service overwrites no database that it did not make. Move it away or drop it (`pg_dropcluster`), then repeat the call.',
    example: '/var/lib/postgresql/15/main on pg2 holds something that must not be overwritten: a running server.',
  },
  'disk-full': {
    status: 502,
    title: 'A disk is full',
    about: 'Free space on the host, then repeat the call: it goes on from there.',
    example:
      'No space is left on /var/lib/postgresql of 192.0.2.12. Free some, then repeat the call: it goes on from there.',
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
      outcome?: OperationFailure['outcome']
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
  const fallback = failure.outcome === 'not_started' ? 'operation-refused' : 'operation-failed'
  const code = Object.hasOwn(PROBLEMS, failure.code) ? (failure.code as ProblemCode) : fallback
  return { code, detail: sentences(failure.detail, failure.remedy) }
}

/** Joins what others say into one text: each a sentence with one stop at its end. */
export const sentences = (...parts: string[]) =>
  parts
    .map(part => part.trim())
    .filter(part => part !== '')
    .map(part => (/[.!?…]["”)]?$/.test(part) ? part : `${part}.`))
    .join(' ')
