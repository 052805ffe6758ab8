/** The nodes of a cluster: added, removed, and each step of the work on one of them by itself. */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import { type Cluster, type ClusterNode, NodeSpec, nodePolicyDifferences } from '../../cluster/model.js'
import { isWitness, misplacements } from '../../cluster/topology.js'
import { exampleNode } from '../examples.js'
import { ProblemError } from '../problems.js'
import { answerChange } from '../responses.js'
import type { Services } from '../services.js'
import { changingRoute } from './changing-route.js'
import { ClusterParams, findCluster, refuseUnbuilt } from './find-cluster.js'
import { confirmHostKeys } from './host-keys.js'
import { refuseSettings } from './refuse-settings.js'

const NewNode = Type.Object(NodeSpec.properties, {
  ...NodeSpec,
  'x-examples': {
    standby: { summary: 'A standby', value: exampleNode('pg3') },
    cascading: { summary: 'A standby of a standby', value: { ...exampleNode('pg3'), upstream: 'pg2' } },
    delayed: { summary: 'A standby that is an hour behind', value: { ...exampleNode('pg3'), applyDelayMs: 3_600_000 } },
    witness: { summary: 'A witness', value: { ...exampleNode('pg3'), kind: 'witness' } },
  },
})

export const nodeRoutes: FastifyPluginAsyncTypebox<{ services: Services }> = async (app, { services }) => {
  app.post(
    '/v1/clusters/:cluster/nodes',
    changingRoute(
      {
        operationId: 'addNode',
        tags: ['clusters'],
        summary: 'Add a standby or a witness',
        description:
          'A standby: prepares a bare host, clones the primary (or the `upstream`) onto it, starts it, registers it, and ' +
          'proves that it replicates. A witness (`"kind": "witness"`): makes a server of its own there, and registers it.',
        params: ClusterParams,
        body: NewNode,
      },
      [
        'not-found',
        'cluster-not-built',
        'cluster-busy',
        'node-exists',
        'inconsistent',
        'setting-refused',
        'host-key-unconfirmed',
      ],
    ),
    async (request, reply) => {
      const cluster = await findCluster(services, request.params.cluster)
      const node = request.body
      refuseUnbuilt(cluster)
      const namesake = cluster.nodes.find(({ name }) => name === node.name)
      const others = cluster.nodes.filter(({ name }) => name !== node.name)
      const { hostKey, port = 22, user } = node.ssh
      if (
        namesake &&
        (namesake.host !== node.host ||
          namesake.ssh.port !== port ||
          namesake.ssh.user !== user ||
          (hostKey !== undefined && namesake.ssh.hostKey !== hostKey))
      ) {
        throw new ProblemError(
          'node-exists',
          `${node.name} is a node of ${cluster.name} already: ${namesake.ssh.user}@${namesake.host}, port ${namesake.ssh.port}, host key ${namesake.ssh.hostKey}. Choose another name, or repeat it as it is there.`,
        )
      }
      const neighbour = others.find(({ host }) => host === node.host)
      if (neighbour) {
        const detail = `${node.host} is the host of ${neighbour.name} already; one node a host.`
        throw new ProblemError('inconsistent', detail, { errors: [{ pointer: '/host', detail }] })
      }
      refuseSettings(node)
      if (namesake) refuseOtherOptions(cluster.name, node, namesake)
      else refuseMisplaced(node, cluster)
      await confirmHostKeys(services, [node], () => '/ssh/hostKey')
      const type = isWitness(node) ? 'add-witness' : 'add-standby'
      return answerChange(services, request, reply, { type, cluster, node: node.name, input: { node } })
    },
  )
}

function refuseOtherOptions(cluster: string, node: NodeSpec, known: ClusterNode): void {
  const errors = nodePolicyDifferences(node, known)
  if (errors.length === 0) return
  const places = errors.map(({ pointer, detail }) => `${pointer} ${detail}`).join('; ')
  throw new ProblemError(
    'node-exists',
    `${node.name} is a node of ${cluster} already, with other options: ${places}. PUT /v1/clusters/${cluster} changes them.`,
    { errors },
  )
}

/** What the node says of its place among the others. */
function refuseMisplaced(node: NodeSpec, cluster: Cluster): void {
  const base = `/${cluster.nodes.length}`
  const errors = misplacements([...cluster.nodes, node], '')
    .filter(({ pointer }) => pointer.startsWith(`${base}/`))
    .map(({ pointer, detail }) => ({ pointer: pointer.slice(base.length), detail }))
  if (errors.length > 0)
    throw new ProblemError('inconsistent', errors.map(({ detail }) => detail).join(' '), { errors })
}
