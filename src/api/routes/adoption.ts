/** Clusters that somebody else built. */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import { Adoption, AdoptionRequest, adoptedCluster, withLogins } from '../../cluster/adoption.js'
import { Reference } from '../../operations/operation.js'
import { askerOf } from '../asker.js'
import { exampleAdoption, exampleNode } from '../examples.js'
import { onceOf } from '../once.js'
import { ProblemError, sentences } from '../problems.js'
import { abortedWith, answer, problemResponses, REPLAYED, sendEither, WITH_BODY } from '../responses.js'
import type { Services } from '../services.js'
import { adoptionText } from '../text.js'
import { confirmHostKeys } from './host-keys.js'

const ForeignClusterBody = Type.Object(AdoptionRequest.properties, {
  ...AdoptionRequest,
  'x-examples': {
    first: {
      summary: 'One node is enough to begin with',
      value: { name: 'orders', node: { host: exampleNode('pg1').host, ssh: exampleNode('pg1').ssh } },
    },
  },
})

const AdoptionQuery = Type.Object({ reference: Type.Optional(Reference) }, { additionalProperties: false })

const SAY_IN_NODES =
  'Say it of each node in "nodes", with its name of repmgr.nodes, and its "host" where this service does not reach it by the one in its conninfo.'

export const adoptionRoutes: FastifyPluginAsyncTypebox<{ services: Services }> = async (app, { services }) => {
  const { store } = services

  app.post(
    '/v1/clusters/adopt',
    {
      config: { access: 'admin' },
      schema: {
        operationId: 'adoptCluster',
        tags: ['clusters'],
        summary: 'Take over a repmgr cluster that is there already',
        description:
          'Given one node, reads `repmgr.nodes` and records the cluster as it is. Changes nothing on the hosts. Asks for what is missing: the answer ' +
          'names every host key that nobody has confirmed. The first operation then marks the servers and brings what the service manages into place; ' +
          '`PUT /v1/clusters/{c}?dryRun=true` shows it beforehand.',
        body: ForeignClusterBody,
        querystring: AdoptionQuery,
        response: {
          201: answer('Recorded.', Adoption, {
            headers: { location: { type: 'string', description: 'Path of the cluster.' }, ...REPLAYED },
            example: exampleAdoption,
            text: adoptionText(exampleAdoption),
          }),
          ...problemResponses(
            ...WITH_BODY,
            'cluster-exists',
            'idempotency-key-reused',
            'inconsistent',
            'host-key-unconfirmed',
            'operation-refused',
            'data-directory-not-empty',
            'operation-failed',
            'host-unreachable',
            'host-key-mismatch',
            'authentication-failed',
            'sudo-refused',
          ),
        },
      },
    },
    async (request, reply) => {
      const { name, node, nodes: logins = [], repmgrPassword } = request.body
      const { reference } = request.query
      const signal = abortedWith(reply)
      const known = await store.clusters.get(name)
      const once = onceOf(request)
      // Answered before with 201, or the key would not be known: then this record is what it made.
      if (known && once && (await store.once.find(once)) !== undefined) {
        const adoption = await services.adoptedBefore(known, signal)
        reply.code(201).header('location', `/v1/clusters/${name}`).header('idempotent-replayed', 'true')
        return sendEither(request, reply, adoption, adoptionText)
      }
      await refuseKnown(name)
      await confirmHostKeys(services, [{ name: 'the given node', ...node }], () => '/node/ssh/hostKey')
      const foreign = await services.readForeign(request.body, signal)
      const errors = logins.flatMap((login, index) =>
        foreign.nodes.some(row => row.name === login.name)
          ? []
          : [{ pointer: `/nodes/${index}/name`, detail: `repmgr.nodes has no node ${login.name}.` }],
      )
      if (errors.length > 0)
        throw new ProblemError('inconsistent', errors.map(({ detail }) => detail).join(' '), { errors })
      const found = withLogins(foreign, request.body)
      const unconfirmed = found.filter(({ ssh }) => ssh.hostKey === undefined)
      await confirmHostKeys(services, unconfirmed, index => {
        const at = logins.findIndex(login => login.name === unconfirmed[index]?.name)
        return at < 0 ? '/nodes' : `/nodes/${at}/ssh/hostKey`
      }).catch(error => {
        if (!(error instanceof ProblemError)) throw error
        const { code, message, extra } = error
        throw new ProblemError(code, sentences(message, SAY_IN_NODES), extra)
      })
      const cluster = adoptedCluster(name, foreign, found, new Date().toISOString())
      const asked = { by: askerOf(request), ...(reference === undefined ? {} : { reference }) }
      const adoption = await services.adopt(cluster, repmgrPassword, asked, signal)
      if (!adoption) await refuseKnown(name)
      if (!adoption) throw new ProblemError('cluster-exists', `${name} was described by somebody else just now.`)
      reply.code(201).header('location', `/v1/clusters/${name}`)
      return sendEither(request, reply, adoption, adoptionText)
    },
  )

  const refuseKnown = async (name: string) => {
    if (await store.clusters.get(name))
      throw new ProblemError(
        'cluster-exists',
        `There is a cluster ${name} already: GET /v1/clusters/${name}. Adopt under another name, or DELETE that one first.`,
      )
  }
}
