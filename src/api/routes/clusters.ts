import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { type Static, Type } from 'typebox'
import { Cluster, ClusterSpec, differences, newCluster, specInconsistencies } from '../../cluster/model.js'
import { ClusterStatus } from '../../cluster/status.js'
import { Operation, PlanPreview } from '../../operations/operation.js'
import { askerOf } from '../asker.js'
import {
  exampleCluster,
  exampleNewCluster,
  exampleOperation,
  examplePlan,
  exampleSpec,
  exampleStatus,
} from '../examples.js'
import { ETAG, refuseStale, tagged } from '../preconditions.js'
import { ProblemError } from '../problems.js'
import {
  abortedWith,
  accepted,
  answer,
  answerChange,
  ChangeQuery,
  COMMON,
  NoQuery,
  OF_OPERATIONS,
  oneOf,
  PREFERENCE_APPLIED,
  PreferHeader,
  problemResponses,
  sendEither,
  WITH_BODY,
  wantsText,
} from '../responses.js'
import type { Services } from '../services.js'
import { statusText } from '../status-text.js'
import { clustersText, clusterText, planText } from '../text.js'
import { ClusterParams, findCluster } from './find-cluster.js'
import { confirmHostKeys } from './host-keys.js'
import { refuseSettings } from './refuse-settings.js'

const NewCluster = Type.Object(
  {
    ...ClusterSpec.properties,
    bootstrap: Type.Optional(
      Type.Boolean({ default: false, description: 'Build it now: bare hosts become a running cluster.' }),
    ),
  },
  {
    additionalProperties: false,
    title: 'NewCluster',
    description: 'A cluster as its owner describes it, and whether to build it.',
    'x-examples': {
      describe: { summary: 'Describe it, build it later', value: exampleSpec },
      build: { summary: 'Describe it and build it', value: { ...exampleSpec, bootstrap: true } },
    },
  },
)

const ClusterList = Type.Object(
  { items: Type.Array(Cluster) },
  { additionalProperties: false, title: 'ClusterList', description: 'All clusters, by name.' },
)

const PLANNED = { summary: 'Dry run: the plan', value: examplePlan }
const SUCCEEDED = { summary: 'It succeeded while you waited', value: exampleOperation('succeeded') }

export const clusterRoutes: FastifyPluginAsyncTypebox<{ services: Services }> = async (app, { services }) => {
  const { store } = services

  const find = (name: string) => findCluster(services, name)

  app.post(
    '/v1/clusters',
    {
      config: { access: 'admin' },
      schema: {
        operationId: 'createCluster',
        tags: ['clusters'],
        summary: 'Describe a cluster, and build it',
        description:
          'Describes a cluster. With `"bootstrap": true` it is built: packages, configuration, primary, standbys, and a proof that they ' +
          'replicate. The same call may be repeated: what is done already is not done again. With `?dryRun=true` nothing is written anywhere, ' +
          'and the answer is the plan.',
        body: NewCluster,
        querystring: ChangeQuery,
        headers: PreferHeader,
        response: {
          200: answer(
            'The plan (dry run), the operation (it succeeded while you waited), or the cluster (it was described before).',
            oneOf(PlanPreview, Operation, Cluster),
            {
              headers: {
                location: { type: 'string', description: 'Path of the operation or of the cluster; not on a dry run.' },
                ...PREFERENCE_APPLIED,
              },
              examples: {
                plan: PLANNED,
                succeeded: SUCCEEDED,
                known: { summary: 'It was described before', value: exampleCluster },
              },
              text: planText(examplePlan),
            },
          ),
          201: answer('Described, not built.', Cluster, {
            headers: { location: { type: 'string', description: 'Path of the cluster.' } },
            example: exampleNewCluster,
            text: clusterText(exampleNewCluster),
          }),
          202: accepted,
          ...problemResponses(
            ...WITH_BODY,
            ...OF_OPERATIONS,
            'cluster-exists',
            'cluster-busy',
            'inconsistent',
            'setting-refused',
            'host-key-unconfirmed',
          ),
        },
      },
    },
    async (request, reply) => {
      const { bootstrap = false, ...spec } = request.body
      const { dryRun = false } = request.query
      const errors = specInconsistencies(spec)
      if (errors.length > 0)
        throw new ProblemError('inconsistent', errors.map(({ detail }) => detail).join(' '), { errors })
      refuseSettings(spec)
      const existing = await store.clusters.get(spec.name)
      refuseStale(request, existing)
      if (existing) refuseAnother(spec, existing)
      await confirmHostKeys(services, spec.nodes, index => `/nodes/${index}/ssh/hostKey`)
      const described = existing ?? newCluster(spec, new Date().toISOString())
      const build = { type: 'bootstrap-cluster', cluster: described, input: {} } as const
      if (dryRun) return answerChange(services, request, reply, build)
      const isNew = !existing && (await store.clusters.create(described, askerOf(request)))
      // Somebody else may have described it meanwhile.
      if (!isNew) refuseAnother(spec, await find(spec.name))
      if (bootstrap) return answerChange(services, request, reply, build)
      const cluster = isNew ? described : await find(spec.name)
      reply.code(isNew ? 201 : 200).header('location', `/v1/clusters/${spec.name}`)
      return sendEither(request, reply, cluster, clusterText)
    },
  )

  app.get(
    '/v1/clusters',
    {
      config: { access: 'admin' },
      schema: {
        operationId: 'listClusters',
        tags: ['clusters'],
        summary: 'List the clusters',
        description:
          'All clusters by name, as they were described. Who is primary is in the status, which is read from the servers.',
        querystring: NoQuery,
        response: {
          200: answer('The clusters.', ClusterList, {
            example: { items: [exampleCluster] },
            text: clustersText([exampleCluster]),
          }),
          ...problemResponses(...COMMON),
        },
      },
    },
    async (request, reply) => {
      const items = await store.clusters.list()
      return sendEither(request, reply, { items }, list => clustersText(list.items))
    },
  )

  app.get(
    '/v1/clusters/:cluster',
    {
      config: { access: 'admin' },
      schema: {
        operationId: 'getCluster',
        tags: ['clusters'],
        summary: 'Read a cluster’s description',
        description: 'The record of one cluster: its nodes, how to reach them, when it was built.',
        params: ClusterParams,
        querystring: NoQuery,
        response: {
          200: answer('The cluster.', Cluster, {
            headers: ETAG,
            example: exampleCluster,
            text: clusterText(exampleCluster),
          }),
          ...problemResponses(...COMMON, 'not-found'),
        },
      },
    },
    async (request, reply) => {
      const cluster = await find(request.params.cluster)
      tagged(reply, cluster, wantsText(request))
      return sendEither(request, reply, cluster, clusterText)
    },
  )

  app.get(
    '/v1/clusters/:cluster/status',
    {
      config: { access: 'admin' },
      schema: {
        operationId: 'getClusterStatus',
        tags: ['clusters'],
        summary: 'Ask the servers how they are',
        description:
          'Asks every node just now, side by side, with one time limit for the whole answer of each: one that hangs costs the answer nothing but its own row. ' +
          'The diagnosis says what the answers mean together, and on which facts it rests.',
        params: ClusterParams,
        querystring: NoQuery,
        response: {
          200: answer('As the servers answered.', ClusterStatus, {
            example: exampleStatus,
            text: statusText(exampleStatus),
          }),
          ...problemResponses(...COMMON, 'not-found'),
        },
      },
    },
    async (request, reply) => {
      const status = await services.observe(await find(request.params.cluster), abortedWith(reply))
      return sendEither(request, reply, status, statusText)
    },
  )
}

function refuseAnother(spec: Static<typeof ClusterSpec>, known: Static<typeof Cluster>): void {
  const errors = differences(spec, known)
  if (errors.length === 0) return
  const places = errors.map(({ pointer, detail }) => `${pointer} ${detail}`).join('; ')
  throw new ProblemError(
    'cluster-exists',
    `${spec.name} exists and is described differently: ${places}. See GET /v1/clusters/${spec.name}. Nodes are added with POST /v1/clusters/${spec.name}/nodes.`,
    { errors },
  )
}
