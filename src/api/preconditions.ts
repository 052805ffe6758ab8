/** `ETag` and `If-Match` (RFC 9110): nobody changes a cluster that he has not seen as it is. */
import { createHash } from 'node:crypto'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import { canonicalJson } from '../canonical-json.js'
import type { Cluster } from '../cluster/model.js'
import type { Pause } from '../cluster/pause.js'
import { ProblemError } from './problems.js'

export const IfMatchHeader = Type.String({
  minLength: 1,
  maxLength: 1000,
  description:
    'The `ETag` of the cluster as you have seen it. The call is refused with 412 where its record has changed since. `*`: whatever it is.',
  examples: ['"2-mibj3yps"'],
})

export const ETAG = { etag: { type: 'string', description: 'Of this version of the record, for `If-Match`.' } }

/**
 * The time of its creation is in it too: a cluster that was forgotten and described again begins at version 1 again. Text and
 * JSON are two representations, which RFC 9110 wants to be told apart. A pause has no version.
 */
const tagOf = ({ version, createdAt, pause }: Cluster) =>
  [version, Date.parse(createdAt).toString(36), ...(pause ? [pausedTag(pause)] : [])].join('-')

const pausedTag = (pause: Pause) => createHash('sha256').update(canonicalJson(pause)).digest('hex').slice(0, 12)

export function tagged(reply: FastifyReply, cluster: Cluster, asText: boolean): void {
  reply.header('etag', `"${tagOf(cluster)}${asText ? '-text' : ''}"`)
}

/** Throws where the request has an `If-Match` that is not of this record. True: it has one, and is. */
export function refuseStale(request: FastifyRequest, cluster: Cluster | undefined): boolean {
  const header = request.headers['if-match']
  if (header === undefined) return false
  // A weak tag never matches here, says RFC 9110.
  const tags = header.split(',').map(tag => tag.trim())
  if (cluster && tags.some(tag => tag === '*' || tag === `"${tagOf(cluster)}"` || tag === `"${tagOf(cluster)}-text"`))
    return true
  throw stale(cluster)
}

export const stale = (cluster: Cluster | undefined) =>
  new ProblemError(
    'precondition-failed',
    cluster
      ? `${cluster.name} is not any more as If-Match says. Read GET /v1/clusters/${cluster.name} again, then repeat the call with its ETag.`
      : 'If-Match asks for a cluster that is there, and it is not.',
  )
