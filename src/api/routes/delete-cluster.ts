/** The end of a cluster: forgotten, its servers left alone; or destroyed, and then forgotten. */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import { Forgotten, farewell } from '../../cluster/forgotten.js'
import { ClusterName } from '../../cluster/model.js'
import { Operation, PlanPreview } from '../../operations/operation.js'
import { clusterSecrets } from '../../store/secrets.js'
import { askerOf } from '../asker.js'
import { exampleForgotten, exampleOperation, examplePlan, exampleStepOperation } from '../examples.js'
import { refuseStale } from '../preconditions.js'
import { ProblemError } from '../problems.js'
import {
  acceptedAs,
  answer,
  answerChange,
  busy,
  ChangeQuery,
  COMMON,
  LOCATION_OF_OPERATION,
  OF_OPERATIONS,
  oneOf,
  PREFERENCE_APPLIED,
  PreferHeader,
  problemResponses,
  sendEither,
} from '../responses.js'
import type { Services } from '../services.js'
import { forgottenText, planText } from '../text.js'
import { ClusterParams, findCluster } from './find-cluster.js'
import { refuseOtherName } from './node-steps.js'

const DeleteQuery = Type.Object(
  {
    ...ChangeQuery.properties,
    destroy: Type.Optional(
      Type.Boolean({ description: 'Stop and wipe its servers before. Without it no host is touched.' }),
    ),
    confirm: Type.Optional({ ...ClusterName, description: 'With `destroy`: the name of the cluster once more.' }),
    leaveUnreachable: Type.Optional(
      Type.Boolean({ description: 'With `destroy`: go on although hosts do not answer, and leave what is on them.' }),
    ),
  },
  { additionalProperties: false },
)

export const deleteClusterRoutes: FastifyPluginAsyncTypebox<{ services: Services }> = async (app, { services }) => {
  app.delete(
    '/v1/clusters/:cluster',
    {
      config: { access: 'admin' },
      schema: {
        operationId: 'deleteCluster',
        tags: ['clusters'],
        summary: 'Forget a cluster, or destroy it',
        description:
          'Forgets the cluster: its record and its secrets go, no host is touched, and the answer says what stays on them. ' +
          'With `destroy=true&confirm=<name>` its servers are stopped and wiped before, standbys first, with every file that this service keeps on the hosts, ' +
          'so that another cluster can be built on them. Only what is beyond doubt this cluster’s is wiped.',
        params: ClusterParams,
        querystring: DeleteQuery,
        headers: PreferHeader,
        response: {
          200: answer(
            'What was forgotten, the plan (dry run of a destruction), or the operation (it succeeded while you waited).',
            oneOf(Forgotten, PlanPreview, Operation),
            {
              headers: {
                location: { ...LOCATION_OF_OPERATION, description: 'Path of the operation, where there is one.' },
                ...PREFERENCE_APPLIED,
              },
              examples: {
                forgotten: { summary: 'Forgotten', value: exampleForgotten },
                plan: { summary: 'Dry run of a destruction: the plan', value: examplePlan },
                succeeded: {
                  summary: 'Destroyed while you waited',
                  value: { ...exampleOperation('succeeded'), type: 'destroy-cluster' },
                },
              },
              text: planText(examplePlan),
            },
          ),
          202: acceptedAs(exampleStepOperation('destroy-cluster')),
          ...problemResponses(
            ...COMMON,
            ...OF_OPERATIONS,
            'not-found',
            'cluster-busy',
            'confirmation-required',
            'inconsistent',
          ),
        },
      },
    },
    async (request, reply) => {
      const cluster = await findCluster(services, request.params.cluster)
      const { destroy = false, dryRun = false, confirm, leaveUnreachable } = request.query
      refuseOtherName(confirm, cluster.name)
      if (destroy) {
        if (confirm === undefined) {
          throw new ProblemError(
            'confirmation-required',
            `Destroying ${cluster.name} removes the data of ${cluster.nodes.map(({ name }) => name).join(', ')} for good. If that is meant, repeat the call with confirm=${cluster.name}.`,
          )
        }
        const input = { confirm, ...(leaveUnreachable === undefined ? {} : { leaveUnreachable }) }
        return answerChange(services, request, reply, { type: 'destroy-cluster', cluster, input })
      }
      for (const [name, value] of Object.entries({ confirm, leaveUnreachable })) {
        if (value === undefined) continue
        const detail = `"${name}" goes with "destroy=true": without it the cluster is only forgotten.`
        throw new ProblemError('inconsistent', detail, { errors: [{ pointer: `/${name}`, detail }] })
      }
      refuseStale(request, cluster)
      if (!dryRun) {
        const held = await services.store.clusters.forget(cluster.name, askerOf(request))
        if (held) throw busy(cluster.name, held.conflict)
        await services.store.secrets.deleteUnder(clusterSecrets(cluster.name))
      } else {
        const active = await services.store.operations.activeOn(cluster.name)
        if (active !== undefined) throw busy(cluster.name, active)
      }
      return sendEither(request, reply, farewell(cluster, !dryRun), forgottenText)
    },
  )
}
