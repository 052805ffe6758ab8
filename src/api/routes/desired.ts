/** A cluster as it should be: put as a whole, and compared with what the hosts have. */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import { compareDesired } from '../../cluster/desired.js'
import { Drift } from '../../cluster/drift.js'
import { ClusterSpec, newCluster, specInconsistencies } from '../../cluster/model.js'
import { askerOf } from '../asker.js'
import { exampleDrift, exampleSpec } from '../examples.js'
import { ProblemError } from '../problems.js'
import { abortedWith, answer, answerChange, COMMON, NoQuery, problemResponses, sendEither } from '../responses.js'
import type { Services } from '../services.js'
import { driftText } from '../text.js'
import { changingRoute } from './changing-route.js'
import { ClusterParams, findCluster } from './find-cluster.js'
import { confirmHostKeys } from './host-keys.js'
import { refuseSettings } from './refuse-settings.js'

const DesiredCluster = Type.Object(ClusterSpec.properties, {
  ...ClusterSpec,
  'x-examples': { whole: { summary: 'The whole cluster, as it is kept in a file', value: exampleSpec } },
})

export const desiredRoutes: FastifyPluginAsyncTypebox<{ services: Services }> = async (app, { services }) => {
  const { store } = services

  app.put(
    '/v1/clusters/:cluster',
    changingRoute(
      {
        operationId: 'applyCluster',
        tags: ['clusters'],
        summary: 'Make a cluster what its description says',
        description:
          'For descriptions that are kept in files: the whole cluster as it should be. One that is not there is described and built; of one that is, ' +
          'what differs is changed, nodes that are new are added, and everything that the service manages on the hosts is put right where somebody ' +
          'changed it. Applied twice, the second time changes nothing. `differences` says where the description differs from the record; with ' +
          '`?dryRun=true` they come with the plan, and nothing is done. Nodes are not removed by leaving them out, and a port, a major version or a ' +
          'host is not changed in place: such a description is refused.',
        params: ClusterParams,
        body: DesiredCluster,
      },
      ['cluster-busy', 'inconsistent', 'setting-refused', 'unchangeable', 'host-key-unconfirmed'],
    ),
    async (request, reply) => {
      const description = request.body
      const errors = specInconsistencies(description)
      if (description.name !== request.params.cluster)
        errors.push({ pointer: '/name', detail: `is not ${request.params.cluster}, which the path names.` })
      if (errors.length > 0)
        throw new ProblemError('inconsistent', errors.map(({ detail }) => detail).join(' '), { errors })
      refuseSettings(description)
      const known = await store.clusters.get(description.name)
      const { differences, refused } = known
        ? compareDesired(description, known)
        : { differences: [{ pointer: '', detail: 'is not there' }], refused: [] }
      if (refused.length > 0) throw unchangeable(description.name, refused)
      const strangers = description.nodes.filter(node => !known?.nodes.some(({ name }) => name === node.name))
      await confirmHostKeys(
        services,
        strangers,
        index => `/nodes/${description.nodes.findIndex(({ name }) => name === strangers[index]?.name)}/ssh/hostKey`,
      )
      const cluster = known ?? newCluster(description, new Date().toISOString())
      // Somebody else may have described it meanwhile: then the operation compares with what is there by then.
      if (!known && !request.query.dryRun) await store.clusters.create(cluster, askerOf(request))
      return answerChange(services, request, reply, {
        type: 'apply-cluster',
        cluster,
        input: { description },
        differences,
      })
    },
  )

  app.get(
    '/v1/clusters/:cluster/drift',
    {
      config: { access: 'admin' },
      schema: {
        operationId: 'getClusterDrift',
        tags: ['clusters'],
        summary: 'Compare the hosts with the record',
        description:
          'Looks at everything that the service manages on each host, and says what is not as the record says: a managed file that somebody edited, ' +
          'a package that was upgraded, a node that is not in `repmgr.nodes`. Changes nothing. A host that does not answer is an item of its own.',
        params: ClusterParams,
        querystring: NoQuery,
        response: {
          200: answer('What differs.', Drift, { example: exampleDrift, text: driftText(exampleDrift) }),
          ...problemResponses(
            ...COMMON,
            'not-found',
            'operation-refused',
            'host-unreachable',
            'host-key-mismatch',
            'authentication-failed',
            'sudo-refused',
          ),
        },
      },
    },
    async (request, reply) => {
      const cluster = await findCluster(services, request.params.cluster)
      return sendEither(request, reply, await services.drift(cluster, abortedWith(reply)), driftText)
    },
  )
}

function unchangeable(cluster: string, errors: { pointer: string; detail: string }[]): ProblemError {
  const places = errors.map(({ pointer, detail }) => `${pointer} ${detail}`).join('; ')
  return new ProblemError(
    'unchangeable',
    `${cluster} cannot be made what this description says: ${places}. Nodes are removed with DELETE /v1/clusters/${cluster}/nodes/{n}; a port, a major version or a host of a node cannot be changed in place.`,
    { errors },
  )
}
