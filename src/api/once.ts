/**
 * `Idempotency-Key`, as draft-ietf-httpapi-idempotency-key-header-07 has it: a request that is sent again with its key is
 * not carried out again. Departures: a key may also stand without its quotes, for that is how most clients send it; and a
 * request that comes while the first one runs is answered with its operation and not with 409.
 */
import { createHash, createHmac } from 'node:crypto'
import type { FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import { canonicalJson } from '../canonical-json.js'
import type { Once } from '../store/once.js'

/** A structured field's string (RFC 8941), or the same without quotes, backslashes and blanks. */
export const IdempotencyKeyHeader = Type.String({
  pattern: '^("([ !#-\\[\\]-~]|\\\\["\\\\]){1,255}"|[!#-\\[\\]-~]{1,255})$',
  description:
    'A name that you give this request, such as a UUID, in quotes: sent again with it, the request is answered with the operation of the first time, ' +
    'and nothing is done twice. With another request it is refused. Kept for seven days, apart for each token. A dry run does not use it up.',
  examples: ['"8e03978e-40d5-43e8-bc93-6894a57f9324"'],
})

const keyOf = (header: string) => (header.startsWith('"') ? header.slice(1, -1).replaceAll(/\\(["\\])/g, '$1') : header)

/**
 * What the request's key stands for, undefined where it has none. The fingerprint is of everything that says what is to
 * be done; how long the caller waits is not part of it. It is keyed with the key, so that the store tells nobody what was asked for.
 */
export function onceOf(request: FastifyRequest): Once | undefined {
  const header = request.headers['idempotency-key']
  const query = request.query as Record<string, unknown>
  if (header === undefined || query.dryRun === true) return undefined
  const key = keyOf(String(header))
  const { wait: _wait, dryRun: _dryRun, ...asked } = query
  const path = request.url.split('?')[0]
  const what = canonicalJson([request.method, path, asked, request.body ?? null])
  return {
    key: createHash('sha256').update(`${request.principal?.tokenId}\n${key}`).digest('hex'),
    fingerprint: createHmac('sha256', key).update(what).digest('hex'),
  }
}
