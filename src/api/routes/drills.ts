/** Rehearsals on the real cluster. */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import { DrillKind, Fault } from '../../cluster/drills.js'
import { NodeName } from '../../cluster/model.js'
import { exampleDrill } from '../examples.js'
import { acceptedAs, answerChange } from '../responses.js'
import type { Services } from '../services.js'
import { bodyMayBeLeftOut, changingRoute } from './changing-route.js'
import { ClusterParams, findBuilt } from './find-cluster.js'

const Drill = Type.Object(
  {
    kind: Type.Optional(DrillKind),
    to: Type.Optional({ ...NodeName, description: 'The standby that takes over. Default: as without a rehearsal.' }),
    fault: Type.Optional(Fault),
    confirm: Type.Optional(
      Type.String({ maxLength: 63, description: 'Of a failover: the name of the cluster.', examples: ['orders'] }),
    ),
  },
  {
    additionalProperties: false,
    title: 'Drill',
    description: 'The body may be left out: a switchover is rehearsed then.',
    'x-examples': {
      switchover: { summary: 'A switchover', value: {} },
      crash: { summary: 'A crash of the primary', value: { kind: 'failover', fault: 'kill', confirm: 'orders' } },
    },
  },
)

export const drillRoutes: FastifyPluginAsyncTypebox<{ services: Services }> = async (app, { services }) => {
  bodyMayBeLeftOut(app)

  app.post(
    '/v1/clusters/:cluster/drills',
    changingRoute(
      {
        operationId: 'drill',
        tags: ['clusters'],
        summary: 'Rehearse a switchover or a failover while a client writes',
        description:
          'Only where the cluster’s policy allows it (`"drills": "allowed"`). A client of the service writes a row every 10 ms into a table of its own in the database repmgr; then the roles are exchanged, ' +
          'or the primary is stopped or killed, a standby promoted in its place by votes and fence as POST …/promote does, and the old primary brought back as a standby. ' +
          'The result says for how many milliseconds writes were refused, how many rows were acknowledged and how many of them are lost; each step has its times. ' +
          'A failover has to be confirmed, and is refused where a standby is missing or the votes would not suffice; where nobody can be promoted after all, the primary is started again while no other node can have become one.',
        params: ClusterParams,
        body: Drill,
      },
      ['not-found', 'cluster-not-built', 'cluster-busy', 'confirmation-required'],
      acceptedAs(exampleDrill),
    ),
    async (request, reply) => {
      const { body } = request
      const cluster = await findBuilt(services, request.params.cluster, body.to)
      return answerChange(services, request, reply, { type: 'drill', cluster, input: body })
    },
  )
}
