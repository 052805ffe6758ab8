/** What all streams of server-sent events have in common. */
import type { FastifyReply, FastifyRequest } from 'fastify'
import { ProblemError } from './problems.js'

const STREAM_ID = /^\d{1,15}-\d{1,10}$/

/** The id that a reader goes on from; undefined at its first visit. */
export function lastEventId(request: FastifyRequest): string | undefined {
  const last = String(request.headers['last-event-id'] ?? '')
  if (last === '') return undefined
  if (!STREAM_ID.test(last))
    throw new ProblemError('bad-request', 'Last-Event-ID is not the id of an event, such as 1795338724402-0.', {
      errors: [{ pointer: '/last-event-id', detail: 'must be the id of an event that was seen' }],
    })
  return last
}

/** Now and not with the first event: who resumes where nothing happens must see that it is connected. */
export function beginStream(reply: FastifyReply): void {
  // A proxy that collects the answer would turn live into late.
  reply.header('x-accel-buffering', 'no')
  reply.sse.sendHeaders()
  reply.raw.flushHeaders()
}

/** The largest id before a time: what is read from behind it begins at that time. */
export const idBefore = (ms: number) => (ms === 0 ? '0-0' : `${ms - 1}-9999999999`)
