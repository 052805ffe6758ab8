/** Manual failover: a standby takes the place of a primary that is lost. */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import { NodeName } from '../../cluster/model.js'
import { examplePromotion } from '../examples.js'
import { onceOf } from '../once.js'
import { abortedWith, acceptedAs, answerChange, refuseReuse } from '../responses.js'
import type { Services } from '../services.js'
import { bodyMayBeLeftOut, changingRoute } from './changing-route.js'
import { ClusterParams, findBuilt } from './find-cluster.js'

const Promote = Type.Object(
  {
    to: Type.Optional({
      ...NodeName,
      description: 'The standby that becomes the primary. Default: the one that has the most WAL.',
    }),
    maxLossBytes: Type.Optional(
      Type.Integer({
        minimum: 0,
        maximum: 1_099_511_627_776,
        default: 16_777_216,
        description:
          'How much WAL may be lost that is known of: what another standby has, and what is on the disk of the old primary where it can be read.',
      }),
    ),
    force: Type.Optional(
      Type.Boolean({
        default: false,
        description:
          'Go on although the primary lives, or a vote or the proof that it is fenced is missing. Without `confirm` the answer says what would be risked, and nothing is done.',
      }),
    ),
    confirm: Type.Optional(
      Type.String({ maxLength: 63, description: 'With `force`: the name of the cluster.', examples: ['orders'] }),
    ),
  },
  {
    additionalProperties: false,
    title: 'Promote',
    description: 'The body may be left out.',
    'x-examples': {
      plain: { summary: 'The standby that has the most', value: {} },
      forced: { summary: 'Although something is missing', value: { force: true, confirm: 'orders' } },
    },
  },
)

export const promoteRoutes: FastifyPluginAsyncTypebox<{ services: Services }> = async (app, { services }) => {
  bodyMayBeLeftOut(app)

  app.post(
    '/v1/clusters/:cluster/promote',
    changingRoute(
      {
        operationId: 'promote',
        tags: ['clusters'],
        summary: 'Promote a standby in place of a primary that is lost',
        description:
          'Refused with 409 while the primary lives: then a switchover loses nothing. It takes the votes of a majority (standbys, witness, store), freezes every standby that votes, ' +
          'fences the old primary (by SSH, or by the hook that is set), promotes the standby that has the most WAL, lets the others follow it, and writes down why. ' +
          'What is missing for that is told at once, and nothing is touched. The old primary comes back with POST …/nodes/{n}/rejoin.',
        params: ClusterParams,
        body: Promote,
      },
      ['not-found', 'cluster-not-built', 'cluster-busy', 'primary-alive', 'promotion-unsafe'],
      acceptedAs(examplePromotion),
    ),
    async (request, reply) => {
      const { body } = request
      const cluster = await findBuilt(services, request.params.cluster, body.to)
      const wanted = { type: 'promote', cluster, input: body } as const
      // Asked now, so that "it lives" is this call's answer and not an operation's; the operation asks again.
      const once = onceOf(request)
      const known = once && (await services.store.once.find(once).catch(error => Promise.reject(refuseReuse(error))))
      const active = await services.store.operations.activeOn(cluster.name)
      if (!request.query.dryRun && known === undefined && active === undefined)
        await services.tryPlan(wanted, abortedWith(reply))
      return answerChange(services, request, reply, wanted)
    },
  )
}
