/** The contract as the routes give it, made without Redis, hosts or a port. */
import { buildApp } from '../src/api/app.js'
import type { Services } from '../src/api/services.js'

/** Stands for every service and every member of one. Routes are only declared, so none of them is ever called. */
const nobody: unknown = new Proxy(() => undefined, {
  get: () => nobody,
  apply() {
    throw new Error('a service was called while the contract was made')
  },
})

export async function contractDocument(): Promise<Record<string, unknown>> {
  const app = await buildApp({ services: nobody as Services })
  try {
    await app.ready()
    return app.swagger() as unknown as Record<string, unknown>
  } finally {
    await app.close()
  }
}

/** As it is committed: the order is that of the routes, so that a change of one is a change of a few lines. */
export const asText = (document: Record<string, unknown>) => `${JSON.stringify(document, null, 2)}\n`
