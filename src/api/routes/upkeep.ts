/** What is done to a running cluster as a whole, and takes no description. */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { answerChange } from '../responses.js'
import type { Services } from '../services.js'
import { changingRoute } from './changing-route.js'
import { ClusterParams, findCluster, refuseUnbuilt } from './find-cluster.js'

const CALLS = [
  {
    type: 'verify-replication',
    operationId: 'verifyReplication',
    summary: 'Prove that the cluster replicates',
    description:
      'Makes a role, a table and a row on the primary, waits until each standby has replayed them, reads them there, and sees that each standby refuses a ' +
      'write with the server’s own error; the time that each took is in the step’s note. Then they are removed again.',
  },
  {
    type: 'rotate-credentials',
    operationId: 'rotateCredentials',
    summary: 'Change the password of the role repmgr',
    description:
      'A new password is made here, sent to the primary as a SCRAM verifier, and written to the pass file of each node. Connections and streams that are ' +
      'open stay open. Every node must answer, because one that was left out could not come back by itself.',
  },
] as const

export const upkeepRoutes: FastifyPluginAsyncTypebox<{ services: Services }> = async (app, { services }) => {
  for (const { type, ...about } of CALLS) {
    app.post(
      `/v1/clusters/:cluster/${type}`,
      changingRoute(
        {
          ...about,
          tags: ['clusters'],
          params: ClusterParams,
        },
        ['not-found', 'cluster-not-built', 'cluster-busy'],
      ),
      async (request, reply) => {
        const cluster = await findCluster(services, request.params.cluster)
        refuseUnbuilt(cluster)
        return answerChange(services, request, reply, { type, cluster, input: {} })
      },
    )
  }
}
