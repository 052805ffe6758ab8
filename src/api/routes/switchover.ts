/** The planned exchange of roles. */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import { exampleSwitchover } from '../examples.js'
import { acceptedAs, answerChange } from '../responses.js'
import type { Services } from '../services.js'
import { switchoverOptions } from '../switchover-options.js'
import { bodyMayBeLeftOut, changingRoute } from './changing-route.js'
import { ClusterParams, findBuilt } from './find-cluster.js'

const Switchover = Type.Object(switchoverOptions, {
  additionalProperties: false,
  title: 'Switchover',
  description: 'The body may be left out.',
  'x-examples': {
    plain: { summary: 'To the standby with the highest priority', value: {} },
    named: { summary: 'To a standby of choice', value: { to: 'pg2' } },
  },
})

export const switchoverRoutes: FastifyPluginAsyncTypebox<{ services: Services }> = async (app, { services }) => {
  bodyMayBeLeftOut(app)

  app.post(
    '/v1/clusters/:cluster/switchover',
    changingRoute(
      {
        operationId: 'switchover',
        tags: ['clusters'],
        summary: 'Exchange the roles of the primary and a standby',
        description:
          'First it is seen whether anything would make it slow or fail: long transactions, backups, the archive, lag, settings, slots, disk, logins. ' +
          'Then the primary is stopped, and the standby promoted once it has replayed the last byte: no commit is lost, and writes are refused for less than a second. ' +
          'repmgrd, where it runs, is paused meanwhile. Connections to the old primary are cut. It comes back as a standby, the others follow the new primary, and repmgr’s metadata are put right. ' +
          'Where that is not through in time everything goes back, and the answer says what was in the way: a session, the archiver, a standby that does not take or replay the last WAL.',
        params: ClusterParams,
        body: Switchover,
      },
      ['not-found', 'cluster-not-built', 'cluster-busy'],
      acceptedAs(exampleSwitchover),
    ),
    async (request, reply) => {
      const { body } = request
      const cluster = await findBuilt(services, request.params.cluster, body.to)
      return answerChange(services, request, reply, { type: 'switchover', cluster, input: body })
    },
  )
}
