/** The whole application as one function. It never listens: `main.ts` does, and tests inject. */
import accepts from '@fastify/accepts'
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import { Ajv } from 'ajv'
import addFormats from 'ajv-formats'
import Fastify, { type FastifyInstance, type FastifyServerOptions } from 'fastify'
import { Cluster } from '../cluster/model.js'
import { ClusterStatus } from '../cluster/status.js'
import { Operation, PlanPreview } from '../operations/operation.js'
import { authenticationPlugin } from './plugins/authentication.js'
import { errorsPlugin } from './plugins/errors.js'
import { openapiPlugin } from './plugins/openapi.js'
import { Problem } from './problems.js'
import { clusterRoutes } from './routes/clusters.js'
import { hostKeyRoutes } from './routes/host-keys.js'
import { operationRoutes } from './routes/operations.js'
import { serviceRoutes } from './routes/service.js'
import type { Services } from './services.js'

export interface AppOptions {
  services: Services
  loggerInstance?: FastifyServerOptions['loggerInstance']
  bodyLimitBytes?: number
}

export async function buildApp({
  services,
  loggerInstance,
  bodyLimitBytes = 1_048_576,
}: AppOptions): Promise<FastifyInstance> {
  const app = Fastify({
    ...(loggerInstance ? { loggerInstance } : {}),
    bodyLimit: bodyLimitBytes,
    // Slow senders are cut off; `?wait=` concerns the answer, not the request.
    requestTimeout: 30_000,
    connectionTimeout: 0,
    genReqId: () => crypto.randomUUID(),
    routerOptions: { ignoreTrailingSlash: false },
    // On a stop, followers of events are let go instead of holding it up.
    forceCloseConnections: true,
  }).withTypeProvider<TypeBoxTypeProvider>()

  // Fastify's own Ajv drops unknown fields and turns "true" into true: a misspelt dryRun would be a real run. Only what
  // comes from a URL is text and has to be converted.
  const strict = withFormats(
    new Ajv({ allErrors: true, removeAdditional: false, coerceTypes: false, useDefaults: false, strict: false }),
  )
  const converting = withFormats(
    new Ajv({ allErrors: true, removeAdditional: false, coerceTypes: true, useDefaults: false, strict: false }),
  )
  const shared = [Problem, Cluster, ClusterStatus, Operation, PlanPreview]
  for (const schema of shared) app.addSchema(schema)
  app.setValidatorCompiler(({ schema, httpPart }) =>
    (httpPart === 'body' ? strict : converting).compile(schema as object),
  )
  // What a route sends is what it says: nothing is dropped on the way out, and the contract test checks it.
  app.setSerializerCompiler(() => data => JSON.stringify(data))

  await app.register(accepts)
  await app.register(errorsPlugin)
  await app.register(authenticationPlugin, { tokens: services.store.tokens })
  await app.register(openapiPlugin)
  await app.register(clusterRoutes, { services })
  await app.register(hostKeyRoutes, { services })
  await app.register(operationRoutes, { services })
  await app.register(serviceRoutes, { services })
  return app as unknown as FastifyInstance
}

function withFormats(ajv: Ajv): Ajv {
  addFormats.default(ajv)
  return ajv
}
