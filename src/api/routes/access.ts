/** Who may come in over the network. */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import { Access, accessProblems, insidersOf } from '../../cluster/access.js'
import { exampleAccess } from '../examples.js'
import { ProblemError } from '../problems.js'
import { answerChange } from '../responses.js'
import type { Services } from '../services.js'
import { changingRoute } from './changing-route.js'
import { ClusterParams, findCluster, refuseUnbuilt } from './find-cluster.js'

const AccessList = Type.Object(
  { access: Access },
  {
    additionalProperties: false,
    title: 'AccessList',
    description: 'Everybody who may come in besides the nodes and this service.',
    'x-examples': { applications: { summary: 'An application, and a backup host', value: { access: exampleAccess } } },
  },
)

export const accessRoutes: FastifyPluginAsyncTypebox<{ services: Services }> = async (app, { services }) => {
  app.put(
    '/v1/clusters/:cluster/access',
    changingRoute(
      {
        operationId: 'changeAccess',
        tags: ['clusters'],
        summary: 'Change who may come in',
        description:
          'Replaces the list of those who may come in over the network, in the managed block of every node’s `pg_hba.conf`, one node after the other ' +
          'and the primary last. A running server is asked whether it accepts the file; after the reload it is seen that the service and the nodes ' +
          'still come in, as clients and for replication. Where either fails the old file is back, in force. Nobody is disconnected: the rules count ' +
          'for new connections. A list that would keep a node or this service out is refused.',
        params: ClusterParams,
        body: AccessList,
      },
      ['not-found', 'cluster-not-built', 'cluster-busy', 'inconsistent'],
    ),
    async (request, reply) => {
      const cluster = await findCluster(services, request.params.cluster)
      const { access } = request.body
      refuseUnbuilt(cluster)
      const errors = accessProblems(access, insidersOf(cluster.nodes, cluster.controllers ?? []))
      if (errors.length > 0)
        throw new ProblemError('inconsistent', errors.map(({ detail }) => detail).join(' '), { errors })
      return answerChange(services, request, reply, { type: 'change-access', cluster, input: { access } })
    },
  )
}
