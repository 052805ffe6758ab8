/** Who a request comes from, as the audit trail keeps it. */
import type { FastifyRequest } from 'fastify'
import type { Asker } from '../store/event.js'

export function askerOf({ principal, ip }: FastifyRequest): Asker {
  return {
    name: principal?.name ?? 'unknown',
    ...(principal ? { tokenId: principal.tokenId } : {}),
    // A Unix socket has none.
    ...(ip === undefined || ip === '' ? {} : { address: ip }),
  }
}
