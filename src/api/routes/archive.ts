/** The WAL archive of a cluster that runs: put as a whole, like a description. */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import { ArchivePolicy, archiveContradictions } from '../../cluster/archive.js'
import { ProblemError } from '../problems.js'
import { answerChange } from '../responses.js'
import type { Services } from '../services.js'
import { changingRoute } from './changing-route.js'
import { ClusterParams, findCluster, refuseUnbuilt } from './find-cluster.js'

const WantedArchive = Type.Object(
  {
    ...ArchivePolicy.properties,
    restart: Type.Optional(
      Type.Boolean({
        default: false,
        description: 'Restart servers where the archive cannot work without it. Otherwise such a call is refused.',
      }),
    ),
  },
  {
    additionalProperties: false,
    title: 'WantedArchive',
    description: 'The archive as it should be, and whether servers may be restarted for it.',
    'x-examples': {
      ship: { summary: 'To every node, for three days', value: { mode: 'ship', retention: { hours: 72 } } },
      command: {
        summary: 'Commands of your own',
        value: {
          mode: 'command',
          command: 'pgbackrest --stanza=orders archive-push %p',
          restoreCommand: 'pgbackrest --stanza=orders archive-get %f "%p"',
        },
      },
      none: { summary: 'No archive any more', value: { mode: 'none' } },
    },
  },
)

export const archiveRoutes: FastifyPluginAsyncTypebox<{ services: Services }> = async (app, { services }) => {
  app.put(
    '/v1/clusters/:cluster/archive',
    changingRoute(
      {
        operationId: 'changeArchive',
        tags: ['clusters'],
        summary: 'Change the WAL archive',
        description:
          'Makes a running cluster archive its WAL as described, and proves it: a segment is finished, archived, and read back on every standby. ' +
          'Other settings and servers stay as they are; `GET …/status` says how the archive is doing. What was archived before stays where it is.',
        params: ClusterParams,
        body: WantedArchive,
      },
      ['not-found', 'cluster-not-built', 'cluster-busy', 'inconsistent'],
    ),
    async (request, reply) => {
      const cluster = await findCluster(services, request.params.cluster)
      const { restart = false, ...archive } = request.body
      const errors = archiveContradictions(archive, '')
      if (errors.length > 0)
        throw new ProblemError('inconsistent', errors.map(({ detail }) => detail).join(' '), { errors })
      refuseUnbuilt(cluster)
      return answerChange(services, request, reply, { type: 'change-archive', cluster, input: { archive, restart } })
    },
  )
}
