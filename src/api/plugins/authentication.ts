/** Bearer tokens. A route says who may call it; one that does not say it stops the start. */
import fp from 'fastify-plugin'
import type { Principal, TokenStore } from '../../store/tokens.js'
import { ProblemError } from '../problems.js'

declare module 'fastify' {
  interface FastifyContextConfig {
    /** `public`: anyone. `admin`: a valid token. */
    access?: 'public' | 'admin'
  }
  interface FastifyRequest {
    /** Who calls; the name goes into the operation's record. */
    principal: Principal | null
  }
}

export const authenticationPlugin = fp<{ tokens: TokenStore }>(
  async (app, { tokens }) => {
    app.decorateRequest('principal', null)
    app.addHook('onRoute', route => {
      // Pages of a plugin, static: they call the API with the token that their reader enters.
      if (route.url === '/docs' || route.url.startsWith('/docs/')) route.config = { ...route.config, access: 'public' }
      if (route.config?.access === undefined)
        throw new Error(`${String(route.method)} ${route.url} does not say who may call it`)
    })
    app.addHook('onRequest', async request => {
      if (request.routeOptions.config.access === 'public' || request.is404) return
      const token = /^bearer +(\S+)$/i.exec(request.headers.authorization ?? '')?.[1]
      if (token === undefined) {
        throw new ProblemError('unauthorized', 'Send the header "Authorization: Bearer <token>".')
      }
      const principal = await tokens.verify(token)
      if (!principal) throw new ProblemError('unauthorized', 'This token is not known here.')
      request.principal = principal
    })
  },
  { name: 'authentication' },
)
