/** If the primary died now. */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Readiness } from '../../cluster/readiness.js'
import { exampleReadiness } from '../examples.js'
import { abortedWith, answer, COMMON, NoQuery, problemResponses, sendEither } from '../responses.js'
import type { Services } from '../services.js'
import { readinessText } from '../text.js'
import { ClusterParams, findCluster, refuseUnbuilt } from './find-cluster.js'

export const readinessRoutes: FastifyPluginAsyncTypebox<{ services: Services }> = async (app, { services }) => {
  app.get(
    '/v1/clusters/:cluster/readiness',
    {
      config: { access: 'admin' },
      schema: {
        operationId: 'getReadiness',
        tags: ['clusters'],
        summary: 'See who would have to take over if the primary died now',
        description:
          'Asks every node just now: who has the most WAL and could be promoted, why not each of the others, how many bytes would be lost, whether the old primary ' +
          'could be kept from writing, and what stands in the way, each with its remedy. Changes nothing, and promotes nobody.',
        params: ClusterParams,
        querystring: NoQuery,
        response: {
          200: answer('Who would take over, and what stands in the way.', Readiness, {
            example: exampleReadiness,
            text: readinessText(exampleReadiness),
          }),
          ...problemResponses(...COMMON, 'not-found', 'cluster-not-built'),
        },
      },
    },
    async (request, reply) => {
      const cluster = await findCluster(services, request.params.cluster)
      refuseUnbuilt(cluster)
      return sendEither(request, reply, await services.readiness(cluster, abortedWith(reply)), readinessText)
    },
  )
}
