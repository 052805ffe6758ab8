/** TLS of a cluster that runs, and the certificate by which its clients verify it. */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import { hasTls, TlsPolicy, tlsProblems } from '../../cluster/tls.js'
import { caOf } from '../../store/authority.js'
import { EXAMPLE_CA } from '../examples.js'
import { ProblemError } from '../problems.js'
import { answerChange, COMMON, NoQuery, problemResponses, textOnly } from '../responses.js'
import type { Services } from '../services.js'
import { changingRoute } from './changing-route.js'
import { ClusterParams, findCluster, refuseUnbuilt } from './find-cluster.js'

const WantedTls = Type.Object(TlsPolicy.properties, {
  additionalProperties: false,
  title: 'WantedTls',
  description: 'TLS as it should be, whole.',
  'x-examples': {
    ownCa: {
      summary: 'Certificates by a CA of the service’s own',
      value: { mode: 'own-ca', names: ['db.example.net'] },
    },
    files: {
      summary: 'Certificates that are on the hosts already',
      value: {
        mode: 'files',
        certificateFile: '/etc/ssl/certs/postgresql.pem',
        keyFile: '/etc/ssl/private/postgresql.key',
        ca: EXAMPLE_CA,
        clients: 'allowed',
      },
    },
    off: { summary: 'No TLS of this service’s any more', value: { mode: 'off' } },
  },
})

export const tlsRoutes: FastifyPluginAsyncTypebox<{ services: Services }> = async (app, { services }) => {
  app.put(
    '/v1/clusters/:cluster/tls',
    changingRoute(
      {
        operationId: 'changeTls',
        tags: ['clusters'],
        summary: 'Switch TLS on, over or off',
        description:
          'Makes the servers of a running cluster speak TLS as described, without a restart: certificates first, proven from every node; then repmgr and ' +
          'the streams, which begin anew one after the other; at last `hostssl` in `pg_hba.conf`. Back, the other way around. Connections that are open stay ' +
          'open: what changes counts for new ones. Every node must answer. The nodes and this service then verify whom they speak to (`verify-full`).',
        params: ClusterParams,
        body: WantedTls,
      },
      ['not-found', 'cluster-not-built', 'cluster-busy', 'inconsistent'],
    ),
    async (request, reply) => {
      const cluster = await findCluster(services, request.params.cluster)
      const tls = request.body
      const errors = tlsProblems(tls, '')
      if (errors.length > 0)
        throw new ProblemError('inconsistent', errors.map(({ detail }) => detail).join(' '), { errors })
      refuseUnbuilt(cluster)
      return answerChange(services, request, reply, { type: 'change-tls', cluster, input: { tls } })
    },
  )

  app.get(
    '/v1/clusters/:cluster/ca.pem',
    {
      config: { access: 'admin' },
      schema: {
        operationId: 'getClusterCa',
        tags: ['clusters'],
        summary: 'Read the certificate of the cluster’s CA',
        description:
          'By which clients verify the servers: keep it in a file, and connect with `sslmode=verify-full sslrootcert=<file>`. It is no secret.',
        params: ClusterParams,
        querystring: NoQuery,
        response: {
          200: textOnly('PEM; one certificate, or several.', EXAMPLE_CA, 'application/x-pem-file'),
          ...problemResponses(...COMMON, 'not-found'),
        },
      },
    },
    async (request, reply) => {
      const cluster = await findCluster(services, request.params.cluster)
      const ca = await caOf(services.store.secrets, cluster)
      if (ca === undefined) {
        const { name } = cluster
        throw new ProblemError(
          'not-found',
          hasTls(cluster)
            ? `The CA of ${name} is made when the cluster is built.`
            : `${name} has no TLS of this service’s. PUT /v1/clusters/${name}/tls switches it on.`,
        )
      }
      return reply.type('application/x-pem-file').send(ca)
    },
  )
}
