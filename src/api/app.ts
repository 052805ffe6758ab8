/** The whole application as one function. It never listens: `main.ts` does, and tests inject. */
import accepts from '@fastify/accepts'
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import Fastify, { type FastifyInstance, type FastifyServerOptions } from 'fastify'
import { authenticationPlugin } from './plugins/authentication.js'
import { changingCallsPlugin } from './plugins/changing-calls.js'
import { answerBrokenRequest, errorsPlugin, sendProblem } from './plugins/errors.js'
import { openapiPlugin } from './plugins/openapi.js'
import { accessRoutes } from './routes/access.js'
import { adoptionRoutes } from './routes/adoption.js'
import { archiveRoutes } from './routes/archive.js'
import { checkRoutes } from './routes/checks.js'
import { clusterRoutes } from './routes/clusters.js'
import { deleteClusterRoutes } from './routes/delete-cluster.js'
import { desiredRoutes } from './routes/desired.js'
import { drillRoutes } from './routes/drills.js'
import { eventRoutes } from './routes/events.js'
import { hostKeyRoutes } from './routes/host-keys.js'
import { nodeStepRoutes } from './routes/node-steps.js'
import { nodeRoutes } from './routes/nodes.js'
import { oneNodeRoutes } from './routes/one-node.js'
import { operationChangeRoutes } from './routes/operation-changes.js'
import { operationRoutes } from './routes/operations.js'
import { pauseRoutes } from './routes/pause.js'
import { promoteRoutes } from './routes/promote.js'
import { readinessRoutes } from './routes/readiness.js'
import { rejoinRoutes } from './routes/rejoin.js'
import { rollingRoutes } from './routes/rolling.js'
import { serviceRoutes } from './routes/service.js'
import { settingsRoutes } from './routes/settings.js'
import { switchoverRoutes } from './routes/switchover.js'
import { tlsRoutes } from './routes/tls.js'
import { upkeepRoutes } from './routes/upkeep.js'
import type { Services } from './services.js'
import { validatorCompiler } from './validation.js'

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
    frameworkErrors: (error, request, reply) => void sendProblem(error, request, reply),
    clientErrorHandler: answerBrokenRequest,
  }).withTypeProvider<TypeBoxTypeProvider>()

  app.setValidatorCompiler(validatorCompiler())
  // What a route sends is what it says: nothing is dropped on the way out, and the contract test checks it.
  // The last line ends, for people at a terminal.
  app.setSerializerCompiler(() => data => `${JSON.stringify(data)}\n`)

  // JSON only: Fastify would also take a body of plain text.
  app.removeContentTypeParser('text/plain')

  await app.register(accepts)
  await app.register(errorsPlugin)
  await app.register(authenticationPlugin, { tokens: services.store.tokens })
  await app.register(changingCallsPlugin, { services })
  await app.register(openapiPlugin)
  await app.register(checkRoutes, { services })
  await app.register(archiveRoutes, { services })
  await app.register(clusterRoutes, { services })
  await app.register(adoptionRoutes, { services })
  await app.register(desiredRoutes, { services })
  await app.register(eventRoutes, { services })
  await app.register(accessRoutes, { services })
  await app.register(hostKeyRoutes, { services })
  await app.register(nodeRoutes, { services })
  await app.register(nodeStepRoutes, { services })
  await app.register(oneNodeRoutes, { services })
  await app.register(deleteClusterRoutes, { services })
  await app.register(operationRoutes, { services })
  await app.register(operationChangeRoutes, { services })
  await app.register(rejoinRoutes, { services })
  await app.register(settingsRoutes, { services })
  await app.register(tlsRoutes, { services })
  await app.register(serviceRoutes, { services })
  await app.register(upkeepRoutes, { services })
  await app.register(pauseRoutes, { services })
  await app.register(readinessRoutes, { services })
  await app.register(switchoverRoutes, { services })
  await app.register(rollingRoutes, { services })
  await app.register(promoteRoutes, { services })
  await app.register(drillRoutes, { services })
  return app as unknown as FastifyInstance
}
