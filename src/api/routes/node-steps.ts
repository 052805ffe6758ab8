/** Each step of building a cluster by itself, on one node. `bootstrap` and `POST …/nodes` do them all, in order. */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import { NodeName } from '../../cluster/model.js'
import type { OperationInputs } from '../../cluster/operation-inputs.js'
import { upstreamObjection } from '../../cluster/topology.js'
import { exampleStepOperation } from '../examples.js'
import { type ProblemCode, ProblemError } from '../problems.js'
import {
  acceptedAs,
  answerChange,
  ChangeQuery,
  OF_OPERATIONS,
  PreferHeader,
  planOrOutcome,
  problemResponses,
  WITH_BODY,
} from '../responses.js'
import type { Services } from '../services.js'
import { bodyMayBeLeftOut } from './changing-route.js'
import { findNode, NodeParams } from './find-cluster.js'

const NodeStep = Type.Object(
  {},
  {
    additionalProperties: false,
    title: 'NodeStep',
    description: 'Nothing more has to be said: the body may be left out.',
    'x-examples': { plain: { summary: 'Nothing to say', value: {} } },
  },
)

const ConfirmedStep = Type.Object(
  { confirm: Type.Optional({ ...NodeName, description: 'The name of the node once more, where harm must be meant.' }) },
  {
    additionalProperties: false,
    title: 'ConfirmedStep',
    description: 'The body may be left out, unless the step asks for a confirmation.',
    'x-examples': {
      plain: { summary: 'Nothing to confirm', value: {} },
      confirmed: { summary: 'It is meant', value: { confirm: 'pg1' } },
    },
  },
)

const FollowStep = Type.Object(
  {
    upstream: Type.Optional({
      ...NodeName,
      description:
        'The node to stream from; it is recorded. With the name of the primary: from the primary, whichever that is. Default: as it is described.',
    }),
  },
  {
    additionalProperties: false,
    title: 'FollowStep',
    description: 'The body may be left out: the node then streams from where its description says.',
    'x-examples': {
      plain: { summary: 'As it is described', value: {} },
      cascading: { summary: 'Below another standby', value: { upstream: 'pg3' } },
    },
  },
)

interface StepRoute {
  verb: string
  summary: string
  description: string
}

const PLAIN = {
  'provision-node': {
    verb: 'provision',
    summary: 'Prepare the host of a node',
    description:
      'From a bare host to a configured server that was never started: packages, server, settings, access, passwords, repmgr.conf. ' +
      'On one that is prepared already, what differs is put right.',
  },
  'register-node': {
    verb: 'register',
    summary: 'Register a node with repmgr',
    description: 'The primary first. A standby is registered once it streams; that is waited for.',
  },
  'unregister-node': {
    verb: 'unregister',
    summary: 'Unregister a standby from repmgr',
    description:
      'Removes its row from repmgr’s metadata. Its server goes on as it was; it may be down. Refused for the primary, and where others follow the node.',
  },
} satisfies { [T in keyof OperationInputs]?: StepRoute }

const CONFIRMED = {
  'clone-node': {
    verb: 'clone',
    summary: 'Clone the primary onto a node',
    description:
      'Copies the primary into the data directory of a prepared node. What is emptied before is only what this service made and nobody used. ' +
      'On a standby that was used, `confirm` with its name is needed: it is stopped, its copy is given up, and a new one is made. ' +
      'Never on the primary, and never over another database.',
  },
  'start-node': {
    verb: 'start',
    summary: 'Start the server of a node',
    description:
      'Waits until it accepts connections. The first node becomes the primary: repmgr’s role and database are made in it. A clone starts as a standby, ' +
      'and is waited for until it streams. `confirm` is needed only to start a primary while another node does not answer and may have become one.',
  },
  'stop-node': {
    verb: 'stop',
    summary: 'Stop the server of a node',
    description:
      'In PostgreSQL’s mode “fast”, with the proof that no process of it is left. The primary needs `confirm`. It stays stopped, whatever a boot of its host or an upgrade of its packages does, until it is started. ' +
      'While a standby is stopped, its slot makes the primary keep WAL for it.',
  },
  'restart-node': {
    verb: 'restart',
    summary: 'Restart the server of a node',
    description:
      'Waits until it accepts connections again, and a standby until it streams. The primary needs `confirm`.',
  },
} satisfies { [T in keyof OperationInputs]?: StepRoute }

const FOLLOW: StepRoute = {
  verb: 'follow',
  summary: 'Let a running standby stream from another node',
  description:
    'Without a restart: a slot is made on the new upstream, the standby is told, and once it is seen to stream from there the slot on the old one is dropped and ' +
    'repmgr’s metadata are put right. Where nothing comes within a minute the standby goes back to where it was. Refused where it would be stranded: ' +
    'an upstream that is away or receives nothing itself, a circle, another timeline history, WAL that is not there any more.',
}

const entriesOf = <T extends object>(steps: T) => Object.entries(steps) as [keyof T, StepRoute][]

export const nodeStepRoutes: FastifyPluginAsyncTypebox<{ services: Services }> = async (app, { services }) => {
  bodyMayBeLeftOut(app)

  const schemaOf = (
    type: keyof typeof PLAIN | keyof typeof CONFIRMED | 'follow-node',
    { verb, summary, description }: StepRoute,
    ...more: ProblemCode[]
  ) => ({
    operationId: `${verb}Node`,
    tags: ['nodes'],
    summary,
    description,
    params: NodeParams,
    querystring: ChangeQuery,
    headers: PreferHeader,
    response: {
      200: planOrOutcome,
      202: acceptedAs(exampleStepOperation(type)),
      ...problemResponses(
        ...WITH_BODY,
        ...OF_OPERATIONS,
        'not-found',
        'cluster-busy',
        'confirmation-required',
        ...more,
      ),
    },
  })

  for (const [type, step] of entriesOf(PLAIN)) {
    app.post(
      `/v1/clusters/:cluster/nodes/:node/${step.verb}`,
      { config: { access: 'admin' }, schema: { ...schemaOf(type, step), body: NodeStep } },
      async (request, reply) => {
        const { cluster, node } = await findNode(services, request.params)
        const input = { node: node.name }
        return answerChange(services, request, reply, { type, cluster, node: node.name, input })
      },
    )
  }

  for (const [type, step] of entriesOf(CONFIRMED)) {
    app.post(
      `/v1/clusters/:cluster/nodes/:node/${step.verb}`,
      { config: { access: 'admin' }, schema: { ...schemaOf(type, step), body: ConfirmedStep } },
      async (request, reply) => {
        const { cluster, node } = await findNode(services, request.params)
        const { confirm } = request.body
        refuseOtherName(confirm, node.name)
        const input = { node: node.name, ...(confirm === undefined ? {} : { confirm }) }
        return answerChange(services, request, reply, { type, cluster, node: node.name, input })
      },
    )
  }

  app.post(
    '/v1/clusters/:cluster/nodes/:node/follow',
    {
      config: { access: 'admin' },
      schema: {
        ...schemaOf('follow-node', FOLLOW, 'inconsistent'),
        body: FollowStep,
      },
    },
    async (request, reply) => {
      const { cluster, node } = await findNode(services, request.params)
      const { upstream } = request.body
      const byName = new Map(cluster.nodes.map(one => [one.name, one]))
      const detail = upstream === undefined ? undefined : upstreamObjection(node, upstream, byName)
      if (detail !== undefined)
        throw new ProblemError('inconsistent', detail, { errors: [{ pointer: '/upstream', detail }] })
      const input = { node: node.name, ...(upstream === undefined ? {} : { upstream }) }
      return answerChange(services, request, reply, { type: 'follow-node', cluster, node: node.name, input })
    },
  )
}

/** A confirmation that names something else is worse than none. */
export function refuseOtherName(confirm: string | undefined, name: string): void {
  if (confirm === undefined || confirm === name) return
  throw new ProblemError(
    'confirmation-required',
    `The call is about ${name}, and confirms ${confirm}. Look again at what is meant; nothing was done.`,
  )
}
