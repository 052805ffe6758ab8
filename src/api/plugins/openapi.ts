/** The contract, made from the routes, and pages to read it. Registered before the routes, so that it sees them all. */
import swagger from '@fastify/swagger'
import swaggerUi from '@fastify/swagger-ui'
import fp from 'fastify-plugin'

export const openapiPlugin = fp(
  async app => {
    await app.register(swagger, {
      openapi: {
        openapi: '3.1.0',
        info: {
          title: 'Understudy',
          version: '0.1.0',
          description: 'Builds PostgreSQL replication clusters on bare hosts over SSH, and keeps watch over them.',
          license: { name: 'MIT', identifier: 'MIT' },
        },
        servers: [{ url: '/', description: 'This service' }],
        tags: [
          { name: 'clusters', description: 'Describe, build and look at clusters' },
          { name: 'hosts', description: 'What the service needs to log in to hosts' },
          { name: 'operations', description: 'What is being done, was done, and how it went' },
          { name: 'service', description: 'The service itself' },
        ],
        components: {
          securitySchemes: { bearer: { type: 'http', scheme: 'bearer', description: 'A token of this service.' } },
        },
        security: [{ bearer: [] }],
      },
      convertConstToEnum: false,
      refResolver: {
        buildLocalReference: (json, _base, _fragment, index) =>
          typeof json.$id === 'string' ? json.$id : `schema-${index}`,
      },
    })
    await app.register(swaggerUi, {
      routePrefix: '/docs',
      uiConfig: { persistAuthorization: true, tryItOutEnabled: true },
    })
  },
  { name: 'openapi' },
)
