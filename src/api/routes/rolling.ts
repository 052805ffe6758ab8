/** From node to node, the primary by an exchange of roles: a restart of the whole cluster, and an upgrade. */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import { type Cluster, NodeName } from '../../cluster/model.js'
import { PackageVersion } from '../../cluster/packages.js'
import { dataNodes } from '../../cluster/topology.js'
import { isMinorOf } from '../../cluster/upgrade.js'
import { exampleRestart, exampleUpgrade } from '../examples.js'
import { ProblemError } from '../problems.js'
import { acceptedAs, answerChange } from '../responses.js'
import type { Services } from '../services.js'
import { switchoverOptions } from '../switchover-options.js'
import { bodyMayBeLeftOut, changingRoute } from './changing-route.js'
import { ClusterParams, findBuilt } from './find-cluster.js'
import { refuseOtherName } from './node-steps.js'

const rollingOptions = {
  ...switchoverOptions,
  switchBack: Type.Optional(
    Type.Boolean({
      default: false,
      description: 'Exchange the roles back in the end: the primary of before is the primary again.',
    }),
  ),
  confirm: Type.Optional({
    ...NodeName,
    description:
      'Name of the node, where there is only one with data: nobody can write while it is started again. Otherwise not needed.',
  }),
}

const Restart = Type.Object(
  {
    ...rollingOptions,
    onlyPending: Type.Optional(
      Type.Boolean({
        default: false,
        description: 'Leave out servers on which no setting waits for a restart.',
      }),
    ),
  },
  {
    additionalProperties: false,
    title: 'RestartCluster',
    description: 'The body may be left out.',
    'x-examples': {
      plain: { summary: 'Every server', value: {} },
      pending: {
        summary: 'Where a setting waits for it, and the same primary in the end',
        value: { onlyPending: true, switchBack: true },
      },
    },
  },
)

const Upgrade = Type.Object(
  {
    ...rollingOptions,
    version: Type.Optional({
      ...PackageVersion,
      description:
        'Exact version of the packages of the server. Default: the one that the cluster is described with, otherwise the newest that the sources of the hosts have.',
      examples: ['15.14-0+deb12u1'],
    }),
    repmgrVersion: Type.Optional({
      ...PackageVersion,
      description: 'Exact version of the packages of repmgr. Default: as for the server.',
      examples: ['5.3.3-2'],
    }),
  },
  {
    additionalProperties: false,
    title: 'UpgradeCluster',
    description: 'The body may be left out.',
    'x-examples': {
      newest: { summary: 'To the newest minor version', value: {} },
      named: { summary: 'To one of choice', value: { version: '15.14-0+deb12u1', switchBack: true } },
    },
  },
)

/** The cluster, with every node that the body names. */
async function namedIn(
  services: Services,
  name: string,
  { to, confirm }: { to?: string; confirm?: string },
): Promise<Cluster> {
  const cluster = await findBuilt(services, name, to)
  const [only, ...others] = dataNodes(cluster.nodes)
  if (only && others.length === 0) refuseOtherName(confirm, only.name)
  return cluster
}

export const rollingRoutes: FastifyPluginAsyncTypebox<{ services: Services }> = async (app, { services }) => {
  bodyMayBeLeftOut(app)

  app.post(
    '/v1/clusters/:cluster/restart',
    changingRoute(
      {
        operationId: 'restartCluster',
        tags: ['clusters'],
        summary: 'Restart every server of a cluster, one after the other',
        description:
          'Standbys first, those that nobody streams from before those that pass on; each streams again before the next is touched. Then a ' +
          'switchover to a standby, by which the old primary is started again as a standby: no commit is lost, and writes are refused for the ' +
          'moment that a switchover takes. With one node only, the server is restarted where it is, which needs `confirm`. ' +
          'Where it fails it stops there; a retry goes on, and nothing is restarted twice.',
        params: ClusterParams,
        body: Restart,
      },
      ['not-found', 'cluster-not-built', 'cluster-busy', 'confirmation-required'],
      acceptedAs(exampleRestart),
    ),
    async (request, reply) => {
      const { body: input } = request
      const cluster = await namedIn(services, request.params.cluster, input)
      return answerChange(services, request, reply, { type: 'restart-cluster', cluster, input })
    },
  )

  app.post(
    '/v1/clusters/:cluster/upgrade',
    changingRoute(
      {
        operationId: 'upgradeCluster',
        tags: ['clusters'],
        summary: 'Bring a cluster to another minor version',
        description:
          'The packages of PostgreSQL and repmgr come to one version on every node, and each server is restarted into it: standbys first, ' +
          'each streaming again before the next, then a switchover, then the old primary while it is stopped. The packages’ own restart of the ' +
          'server is kept from happening, and what is held stays held. Another major version is refused. `?dryRun=true` says from which ' +
          'version to which on each node; where nothing is newer, nothing is done. With one node only, its server is restarted where it is, ' +
          'which needs `confirm`. Where it fails it stops there, with the primary as it was; a retry goes on.',
        params: ClusterParams,
        body: Upgrade,
      },
      ['not-found', 'inconsistent', 'cluster-not-built', 'cluster-busy', 'confirmation-required'],
      acceptedAs(exampleUpgrade),
    ),
    async (request, reply) => {
      const { body: input } = request
      const cluster = await namedIn(services, request.params.cluster, input)
      refuseOtherMajor(cluster, input.version)
      return answerChange(services, request, reply, { type: 'upgrade-cluster', cluster, input })
    },
  )
}

function refuseOtherMajor({ postgresVersion }: Cluster, version: string | undefined): void {
  if (version === undefined || isMinorOf(postgresVersion, version)) return
  const detail = `"${version}" is no version of PostgreSQL ${postgresVersion}: this changes the minor version only.`
  throw new ProblemError('inconsistent', detail, { errors: [{ pointer: '/version', detail }] })
}
