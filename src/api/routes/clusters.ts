import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { type TObject, Type } from 'typebox'
import {
  Cluster,
  ClusterName,
  ClusterSpec,
  describes,
  inconsistencies,
  NodeSpec,
  newCluster,
} from '../../cluster/model.js'
import { ClusterStatus } from '../../cluster/status.js'
import { Operation, PlanPreview } from '../../operations/operation.js'
import { ProblemError } from '../problems.js'
import {
  abortedWith,
  accepted,
  ChangeQuery,
  COMMON,
  json,
  jsonOrText,
  OF_OPERATIONS,
  problemResponses,
  ref,
  startOperation,
  WITH_BODY,
  waitSeconds,
  wantsText,
} from '../responses.js'
import type { Services } from '../services.js'
import { clustersText, planText, statusText } from '../text.js'
import { confirmHostKeys } from './host-keys.js'

const ClusterParams = Type.Object({ cluster: ClusterName }, { additionalProperties: false })

const NewCluster = Type.Object(
  {
    ...ClusterSpec.properties,
    bootstrap: Type.Optional(
      Type.Boolean({ default: false, description: 'Build it now: bare hosts become a running cluster.' }),
    ),
  },
  {
    additionalProperties: false,
    examples: [
      {
        name: 'orders',
        postgresVersion: 15,
        nodes: [
          {
            name: 'pg1',
            host: '192.0.2.11',
            ssh: { user: 'admin', hostKey: 'SHA256:kL4Sd0mNsCXzAVEoGUfOTlZeIkoQbBFNrHqJCrW9yZQ' },
          },
          {
            name: 'pg2',
            host: '192.0.2.12',
            ssh: { user: 'admin', hostKey: 'SHA256:0cJcDkqtXqLLQm4vC5e9j3Z4aV9zW2h5aX8oLwq2YhE' },
          },
        ],
        bootstrap: true,
      },
    ],
  },
)

export const clusterRoutes: FastifyPluginAsyncTypebox<{ services: Services }> = async (app, { services }) => {
  const { store } = services

  const find = async (name: string) => {
    const cluster = await store.clusters.get(name)
    if (!cluster) throw new ProblemError('not-found', `There is no cluster ${name}. GET /v1/clusters lists them.`)
    return cluster
  }

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
        response: {
          200: {
            description:
              'The plan (dry run), the operation (it succeeded while you waited), or the cluster (it was described before).',
            content: {
              'application/json': { schema: Type.Union([ref(PlanPreview), ref(Operation), ref(Cluster)]) },
              'text/plain': { schema: Type.String() },
            },
          },
          201: json('Described, not built.', ref(Cluster), {
            location: { description: 'The cluster.', schema: { type: 'string' } },
          }),
          202: accepted,
          ...problemResponses(
            ...WITH_BODY,
            ...OF_OPERATIONS,
            'cluster-exists',
            'cluster-busy',
            'inconsistent',
            'host-key-unconfirmed',
            'host-unreachable',
          ),
        },
      },
    },
    async (request, reply) => {
      const { bootstrap = false, ...spec } = request.body
      const { dryRun = false } = request.query
      const errors = inconsistencies(spec.nodes)
      if (errors.length > 0)
        throw new ProblemError('inconsistent', errors.map(({ detail }) => detail).join(' '), { errors })
      const existing = await store.clusters.get(spec.name)
      await confirmHostKeys(services, spec.nodes, index => `/nodes/${index}/ssh/hostKey`)
      if (existing && !describes(spec, existing)) {
        throw new ProblemError(
          'cluster-exists',
          `${spec.name} exists and is described differently: GET /v1/clusters/${spec.name} shows how. Nodes are added with POST /v1/clusters/${spec.name}/nodes.`,
        )
      }
      const described = existing ?? newCluster(spec, new Date().toISOString())
      if (dryRun) {
        const plan = await services.preview({ type: 'bootstrap-cluster', cluster: described }, abortedWith(request))
        return wantsText(request) ? reply.type('text/plain; charset=utf-8').send(planText(plan)) : reply.send(plan)
      }
      const isNew = !existing && (await store.clusters.create(described))
      if (!isNew && !describes(spec, await find(spec.name))) {
        throw new ProblemError(
          'cluster-exists',
          `Somebody described ${spec.name} differently at this very moment: GET /v1/clusters/${spec.name} shows how.`,
        )
      }
      if (bootstrap) {
        return startOperation(services, request, reply, {
          type: 'bootstrap-cluster',
          cluster: spec.name,
          input: {},
          wait: waitSeconds(request, request.query),
        })
      }
      return reply
        .code(isNew ? 201 : 200)
        .header('location', `/v1/clusters/${spec.name}`)
        .send(isNew ? described : await find(spec.name))
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
        response: {
          200: jsonOrText(
            'The clusters.',
            Type.Object({ items: Type.Array(ref(Cluster)) }, { additionalProperties: false }),
          ),
          ...problemResponses(...COMMON),
        },
      },
    },
    async (request, reply) => {
      const items = await store.clusters.list()
      return wantsText(request)
        ? reply.type('text/plain; charset=utf-8').send(clustersText(items))
        : reply.send({ items })
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
        description: 'The record of one cluster.',
        params: ClusterParams,
        response: { 200: json('The cluster.', ref(Cluster)), ...problemResponses(...COMMON, 'not-found') },
      },
    },
    async (request, reply) => reply.send(await find(request.params.cluster)),
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
          'Asks every node just now, side by side, with a time limit each: one that hangs costs the answer nothing but its own row.',
        params: ClusterParams,
        response: {
          200: jsonOrText('As the servers answered.', ref(ClusterStatus)),
          ...problemResponses(...COMMON, 'not-found'),
        },
      },
    },
    async (request, reply) => {
      const status = await services.observe(await find(request.params.cluster), abortedWith(request))
      return wantsText(request) ? reply.type('text/plain; charset=utf-8').send(statusText(status)) : reply.send(status)
    },
  )

  app.post(
    '/v1/clusters/:cluster/nodes',
    {
      config: { access: 'admin' },
      schema: {
        operationId: 'addStandby',
        tags: ['clusters'],
        summary: 'Add a standby',
        description:
          'Prepares a bare host, clones the primary onto it, starts it, registers it, and proves that it replicates.',
        params: ClusterParams,
        body: NodeSpec as TObject<typeof NodeSpec.properties>,
        querystring: ChangeQuery,
        response: {
          200: {
            description: 'The plan (dry run), or the operation (it succeeded while you waited).',
            content: {
              'application/json': { schema: Type.Union([ref(PlanPreview), ref(Operation)]) },
              'text/plain': { schema: Type.String() },
            },
          },
          202: accepted,
          ...problemResponses(
            ...WITH_BODY,
            ...OF_OPERATIONS,
            'not-found',
            'cluster-not-built',
            'cluster-busy',
            'node-exists',
            'inconsistent',
            'host-key-unconfirmed',
            'host-unreachable',
          ),
        },
      },
    },
    async (request, reply) => {
      const cluster = await find(request.params.cluster)
      const node = request.body
      if (cluster.builtAt === undefined) {
        throw new ProblemError(
          'cluster-not-built',
          `${cluster.name} has not been built: POST /v1/clusters with its description and "bootstrap": true first.`,
        )
      }
      const namesake = cluster.nodes.find(({ name }) => name === node.name)
      const others = cluster.nodes.filter(({ name }) => name !== node.name)
      const errors = inconsistencies([...others, node]).map(({ detail }) => ({ pointer: '/host', detail }))
      if (errors.length > 0)
        throw new ProblemError('inconsistent', errors.map(({ detail }) => detail).join(' '), { errors })
      await confirmHostKeys(services, [node], () => '/ssh/hostKey')
      const { hostKey, port = 22, user } = node.ssh
      if (
        namesake &&
        (namesake.host !== node.host ||
          namesake.ssh.hostKey !== hostKey ||
          namesake.ssh.port !== port ||
          namesake.ssh.user !== user)
      ) {
        throw new ProblemError(
          'node-exists',
          `${node.name} is a node of ${cluster.name} already, on ${namesake.host}. Choose another name.`,
        )
      }
      if (request.query.dryRun) {
        const plan = await services.preview({ type: 'add-standby', cluster, node }, abortedWith(request))
        return wantsText(request) ? reply.type('text/plain; charset=utf-8').send(planText(plan)) : reply.send(plan)
      }
      return startOperation(services, request, reply, {
        type: 'add-standby',
        cluster: cluster.name,
        node: node.name,
        input: { node },
        wait: waitSeconds(request, request.query),
      })
    },
  )
}
