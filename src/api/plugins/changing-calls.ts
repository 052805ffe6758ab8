/**
 * What every changing call takes, added here so that no route can forget it: `Idempotency-Key`, and `If-Match` where it is
 * about a cluster. A route is a changing one when its query has a `reference`.
 */
import type { FastifySchema } from 'fastify'
import fp from 'fastify-plugin'
import { Type } from 'typebox'
import { IdempotencyKeyHeader, onceOf } from '../once.js'
import { IfMatchHeader } from '../preconditions.js'
import { answerOperation, refuseReuse } from '../responses.js'
import type { Services } from '../services.js'

type WithProperties = { properties?: Record<string, unknown> }

const queryOf = (schema: FastifySchema | undefined) =>
  (schema?.querystring as WithProperties | undefined)?.properties ?? {}

export const changingCallsPlugin = fp<{ services: Services }>(
  async (app, { services }) => {
    app.addHook('onRoute', route => {
      const query = queryOf(route.schema)
      if (!('reference' in query)) return
      const own = (route.schema?.headers as WithProperties | undefined)?.properties ?? {}
      const headers = Type.Object({
        ...(own as Record<string, never>),
        'idempotency-key': Type.Optional(IdempotencyKeyHeader),
        ...('dryRun' in query ? { 'if-match': Type.Optional(IfMatchHeader) } : {}),
      })
      route.schema = { ...route.schema, headers }
    })

    // Before the route looks at anything: what it finds may well be the work of the first time.
    app.addHook('preHandler', async (request, reply) => {
      if (!('reference' in queryOf(request.routeOptions.schema))) return
      const once = onceOf(request)
      if (!once) return
      const operation = await services.store.once.find(once).catch(error => {
        throw refuseReuse(error)
      })
      if (operation !== undefined && operation !== '' && (await services.store.operations.get(operation)))
        return answerOperation(services, request, reply, operation, { repeated: true })
    })

    // What had no operation is done again where it is asked for again, which changes nothing; but not something else.
    app.addHook('onSend', async (request, reply) => {
      if (!('reference' in queryOf(request.routeOptions.schema)) || reply.statusCode >= 300) return
      const once = onceOf(request)
      if (once) await services.store.once.remember(once)
    })
  },
  { name: 'changing-calls' },
)
