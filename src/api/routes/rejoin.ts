/** Bringing a node back: an old primary after a failover, a standby that went astray or fell behind. */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import { NodeName } from '../../cluster/model.js'
import { RebuildMethod } from '../../cluster/rejoin.js'
import { exampleStepOperation } from '../examples.js'
import { acceptedAs, answerChange } from '../responses.js'
import type { Services } from '../services.js'
import { bodyMayBeLeftOut, changingRoute } from './changing-route.js'
import { findNode, NodeParams } from './find-cluster.js'
import { refuseOtherName } from './node-steps.js'

const options = {
  confirm: Type.Optional({
    ...NodeName,
    description: 'The name of the node once more, where commits would be lost or a copy is given up.',
  }),
  keepOldData: Type.Optional(
    Type.Boolean({
      default: false,
      description:
        'Where it has to be cloned anew: its data directory is moved to `/var/lib/postgresql/understudy-kept/` on its host, and not emptied. That takes as much room again.',
    }),
  ),
}

const Rejoin = Type.Object(options, {
  additionalProperties: false,
  title: 'Rejoin',
  description: 'The body may be left out, unless something would be lost.',
  'x-examples': {
    plain: { summary: 'Where nothing would be lost', value: {} },
    confirmed: { summary: 'What it alone has may be thrown away', value: { confirm: 'pg1' } },
  },
})

const Rebuild = Type.Object(
  { method: Type.Optional(RebuildMethod), ...options },
  {
    additionalProperties: false,
    title: 'Rebuild',
    description: 'The body may be left out, unless something would be lost.',
    'x-examples': {
      plain: { summary: 'The first method that is possible', value: {} },
      clone: {
        summary: 'A new clone, and the old data kept',
        value: { method: 'clone', confirm: 'pg1', keepOldData: true },
      },
    },
  },
)

const COMMON =
  'The primary is the node that accepts writes on the newest timeline; it is refused where that is not beyond doubt. ' +
  'What the node wrote and the primary does not have is measured first, and its WAL kept on the node’s host: where commits would be lost, ' +
  '`confirm` with the name of the node is needed, and the refusal says how many. '

const REFUSALS = ['not-found', 'cluster-busy', 'confirmation-required'] as const

export const rejoinRoutes: FastifyPluginAsyncTypebox<{ services: Services }> = async (app, { services }) => {
  bodyMayBeLeftOut(app)

  app.post(
    '/v1/clusters/:cluster/nodes/:node/rejoin',
    changingRoute(
      {
        tags: ['nodes'],
        params: NodeParams,
        operationId: 'rejoinNode',
        summary: 'Make an old primary a standby again',
        description: `For a node that comes back after another one was promoted, and for a standby whose history went another way. ${COMMON}It follows as it is where its history is a part of the primary’s, is rewound by pg_rewind where not, and is cloned anew where that is impossible. One that streams already is left alone.`,
        body: Rejoin,
      },
      REFUSALS,
      acceptedAs(exampleStepOperation('rejoin-node')),
    ),
    async (request, reply) => {
      const { cluster, node } = await findNode(services, request.params)
      refuseOtherName(request.body.confirm, node.name)
      const input = { node: node.name, ...request.body }
      return answerChange(services, request, reply, { type: 'rejoin-node', cluster, node: node.name, input })
    },
  )

  app.post(
    '/v1/clusters/:cluster/nodes/:node/rebuild',
    changingRoute(
      {
        tags: ['nodes'],
        params: NodeParams,
        operationId: 'rebuildNode',
        summary: 'Make a node a standby again, by a method of choice',
        description: `As a rejoin, with the method that is asked for; \`clone\` also replaces the copy of a standby that streams. ${COMMON}`,
        body: Rebuild,
      },
      REFUSALS,
      acceptedAs(exampleStepOperation('rebuild-node')),
    ),
    async (request, reply) => {
      const { cluster, node } = await findNode(services, request.params)
      refuseOtherName(request.body.confirm, node.name)
      const input = { node: node.name, ...request.body }
      return answerChange(services, request, reply, { type: 'rebuild-node', cluster, node: node.name, input })
    },
  )
}
