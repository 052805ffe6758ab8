/** One node of a cluster: what it is, how it is, and its removal. */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import { NodeName } from '../../cluster/model.js'
import { NodeDetail } from '../../cluster/node-detail.js'
import { exampleNodeDetail, exampleStepOperation } from '../examples.js'
import { ProblemError } from '../problems.js'
import {
  abortedWith,
  acceptedAs,
  answer,
  answerChange,
  ChangeQuery,
  COMMON,
  NoQuery,
  OF_OPERATIONS,
  PreferHeader,
  planOrOutcome,
  problemResponses,
  sendEither,
} from '../responses.js'
import type { Services } from '../services.js'
import { nodeText } from '../status-text.js'
import { findNode, NodeParams } from './find-cluster.js'
import { refuseOtherName } from './node-steps.js'

const RemoveQuery = Type.Object(
  {
    ...ChangeQuery.properties,
    wipe: Type.Optional(
      Type.Boolean({ description: 'Also remove its data and everything that this service keeps on its host.' }),
    ),
    confirm: Type.Optional({ ...NodeName, description: 'With `wipe`: the name of the node once more.' }),
  },
  { additionalProperties: false },
)

export const oneNodeRoutes: FastifyPluginAsyncTypebox<{ services: Services }> = async (app, { services }) => {
  app.get(
    '/v1/clusters/:cluster/nodes/:node',
    {
      config: { access: 'admin' },
      schema: {
        operationId: 'getNode',
        tags: ['nodes'],
        summary: 'Read one node',
        description: 'What was described of it, and what its server answers just now, as in the status of the cluster.',
        params: NodeParams,
        querystring: NoQuery,
        response: {
          200: answer('The node.', NodeDetail, { example: exampleNodeDetail, text: nodeText(exampleNodeDetail) }),
          ...problemResponses(...COMMON, 'not-found'),
        },
      },
    },
    async (request, reply) => {
      const { cluster, node } = await findNode(services, request.params)
      const { nodes, observedAt } = await services.observe(cluster, abortedWith(reply))
      const status = nodes.find(({ name }) => name === node.name)
      if (!status) throw new TypeError(`the status has no row of ${node.name}`)
      return sendEither(request, reply, { cluster: cluster.name, record: node, status, observedAt }, nodeText)
    },
  )

  app.delete(
    '/v1/clusters/:cluster/nodes/:node',
    {
      config: { access: 'admin' },
      schema: {
        operationId: 'removeNode',
        tags: ['nodes'],
        summary: 'Remove a standby',
        description:
          'Takes a standby out of the cluster: its registration, its slot, its place in the access rules and pass files of the others. Its server is stopped, ' +
          'and its data stay unless `wipe=true&confirm=<name>` is given. Its host may be dead: the journal says what stays there. ' +
          'Never the primary; not while other standbys follow the node.',
        params: NodeParams,
        querystring: RemoveQuery,
        headers: PreferHeader,
        response: {
          200: planOrOutcome,
          202: acceptedAs(exampleStepOperation('remove-node')),
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
      const { cluster, node } = await findNode(services, request.params)
      const { wipe = false, confirm } = request.query
      refuseOtherName(confirm, node.name)
      if (wipe && confirm === undefined) {
        throw new ProblemError(
          'confirmation-required',
          `Wiping removes the data of ${node.name} for good. If that is meant, repeat the call with confirm=${node.name}.`,
        )
      }
      if (confirm !== undefined && !wipe) {
        const detail = '"confirm" goes with "wipe=true": without it nothing is removed that needs it.'
        throw new ProblemError('inconsistent', detail, { errors: [{ pointer: '/confirm', detail }] })
      }
      const input = { node: node.name, ...(wipe ? { wipe } : {}), ...(confirm === undefined ? {} : { confirm }) }
      return answerChange(services, request, reply, { type: 'remove-node', cluster, node: node.name, input })
    },
  )
}
