/** The contract, made from the routes, and pages to read it. Registered before the routes, so that it sees them all. */
import { isDeepStrictEqual } from 'node:util'
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
          summary: 'Replication clusters of PostgreSQL, built and watched over SSH',
          description: ABOUT,
          license: { name: 'MIT', identifier: 'MIT' },
        } as { title: string; version: string },
        servers: [{ url: '/', description: 'This service' }],
        tags: [
          { name: 'clusters', description: 'Describe, build and look at clusters' },
          { name: 'nodes', description: 'One node at a time, and each step of the work by itself' },
          { name: 'hosts', description: 'What the service needs to log in to hosts' },
          { name: 'operations', description: 'What is being done, was done, and how it went' },
          { name: 'service', description: 'The service itself' },
        ],
        components: {
          securitySchemes: {
            bearer: {
              type: 'http',
              scheme: 'bearer',
              description:
                'A token of this service. The first one is written to the file `admin-token` in the state directory.',
            },
          },
        },
        security: [{ bearer: [] }],
      },
      convertConstToEnum: false,
      transformObject: document => nameSchemas('openapiObject' in document ? document.openapiObject : {}) as never,
    })
    await app.register(swaggerUi, {
      routePrefix: '/docs',
      uiConfig: { persistAuthorization: true, tryItOutEnabled: true },
    })
  },
  { name: 'openapi' },
)

const ABOUT = `Builds PostgreSQL replication clusters on bare hosts over SSH, and keeps watch over them.

- **Long work** is answered with 202, a \`Location\`, and the operation. \`?wait=60\` (or \`Prefer: wait=60\`) holds the answer until it has ended.
- **\`?dryRun=true\`** answers with the plan, every command and file in it, and does nothing.
- **Errors** are problem details (RFC 9457, \`application/problem+json\`): \`type\` says which kind and is a page that explains it, \`detail\` says what to do.
- **Unknown fields and parameters are refused**, so that a misspelt one is never silently ignored.
- **\`Accept: text/plain\`** gives the same thing as aligned text, where an answer offers it.
- **One operation at a time changes a cluster**; another call gets 409 and the path of the one that runs.
- Every call may be repeated: what is done already is not done again.`

type Json = null | boolean | number | string | Json[] | { [key: string]: Json }

/** Where examples stand; what they hold are values, no schemas. */
const VALUES = new Set(['example', 'examples', 'default', 'enum', 'const'])

/**
 * A schema with a title becomes a component under it, and a reference wherever it is used: so that clients that are
 * made from the contract have types with names. Schemas in the code stay whole, and need no registry. The examples of
 * problems, which most operations share, become components too.
 */
export function nameSchemas(document: object): object {
  const components: Record<string, Json> = {}
  const problems: Record<string, Json> = {}
  const walk = (node: Json, key?: string): Json => {
    if (node === null || typeof node !== 'object') return node
    if (Array.isArray(node)) return node.map(item => walk(item))
    const walked: { [key: string]: Json } = {}
    if (key === 'application/problem+json' && isObject(node.examples)) {
      const codes = Object.keys(node.examples)
      Object.assign(problems, node.examples)
      return {
        schema: walk(node.schema ?? {}),
        examples: Object.fromEntries(codes.map(code => [code, { $ref: `#/components/examples/${code}` }])),
      }
    }
    for (const [name, value] of Object.entries(node)) {
      // A property may well be called "default" or "title".
      walked[name] = VALUES.has(name) && key !== 'properties' ? value : walk(value, name)
    }
    const { enum: values, type } = walked
    if (Array.isArray(values) && type === undefined && values.every(value => typeof value === 'string'))
      walked.type = 'string'
    const { title } = walked
    if (typeof title !== 'string' || key === 'properties' || key === 'info') return walked
    const { title: _title, ...schema } = walked
    if (components[title] !== undefined && !isDeepStrictEqual(components[title], schema))
      throw new Error(`two different schemas are called ${title}`)
    components[title] = schema
    return { $ref: `#/components/schemas/${title}` }
  }
  const named = walk(JSON.parse(JSON.stringify(document)) as Json) as { components?: { [key: string]: Json } }
  return {
    ...named,
    components: { ...named.components, schemas: sorted(components), examples: sorted(problems) },
  }
}

const isObject = (value: Json | undefined): value is { [key: string]: Json } =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

const sorted = (entries: Record<string, Json>) =>
  Object.fromEntries(Object.entries(entries).sort(([a], [b]) => (a < b ? -1 : 1)))
