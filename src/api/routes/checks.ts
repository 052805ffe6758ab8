/** Preflight of a cluster. */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Checks } from '../../cluster/checks.js'
import { exampleChecks } from '../examples.js'
import { abortedWith, answer, COMMON, NoQuery, problemResponses, sendEither } from '../responses.js'
import type { Services } from '../services.js'
import { checksText } from '../text.js'
import { ClusterParams, findCluster } from './find-cluster.js'

export const checkRoutes: FastifyPluginAsyncTypebox<{ services: Services }> = async (app, { services }) => {
  app.get(
    '/v1/clusters/:cluster/checks',
    {
      config: { access: 'admin' },
      schema: {
        operationId: 'getClusterChecks',
        tags: ['clusters'],
        summary: 'Try every edge that the cluster needs',
        description:
          'From this service to each host by SSH and to each server as repmgr, sudo command by command; from each host to each other by name, by port, as a PostgreSQL ' +
          'client, as a replication client, and by SSH where the cluster needs that; whether each server that was built runs; versions, free disk against the size ' +
          'to clone, clocks, kernel limits, whether pg_rewind would work, the WAL archive. Changes nothing. What does not answer is an item with its remedy, not an error.',
        params: ClusterParams,
        querystring: NoQuery,
        response: {
          200: answer('Each edge with its verdict.', Checks, {
            example: exampleChecks,
            text: checksText(exampleChecks),
          }),
          ...problemResponses(...COMMON, 'not-found'),
        },
      },
    },
    async (request, reply) => {
      const cluster = await findCluster(services, request.params.cluster)
      return sendEither(request, reply, await services.checks(cluster, abortedWith(reply)), checksText)
    },
  )
}
