/** Settings of PostgreSQL: what the servers run with, and changing them while they run. */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import { SettingsChange } from '../../cluster/settings-change.js'
import { SettingsReport } from '../../cluster/settings-report.js'
import { exampleSettings } from '../examples.js'
import { ProblemError } from '../problems.js'
import { abortedWith, answer, answerChange, COMMON, NoQuery, problemResponses, sendEither } from '../responses.js'
import type { Services } from '../services.js'
import { settingsText } from '../settings-text.js'
import { changingRoute } from './changing-route.js'
import { ClusterParams, findCluster, refuseUnbuilt } from './find-cluster.js'
import { refuseSettings } from './refuse-settings.js'

const Change = Type.Object(SettingsChange.properties, {
  ...SettingsChange,
  'x-examples': {
    reload: {
      summary: 'Settings that a reload changes',
      value: { settings: { work_mem: '64MB', log_lock_waits: null } },
    },
    restart: {
      summary: 'One that needs a restart, and one for a single node',
      value: {
        settings: { max_connections: 300 },
        nodes: { pg2: { max_parallel_workers_per_gather: 8 } },
        restart: 'when-needed',
      },
    },
  },
})

export const settingsRoutes: FastifyPluginAsyncTypebox<{ services: Services }> = async (app, { services }) => {
  app.get(
    '/v1/clusters/:cluster/settings',
    {
      config: { access: 'admin' },
      schema: {
        operationId: 'getClusterSettings',
        tags: ['clusters'],
        summary: 'Ask the servers what they run with',
        description:
          'Each setting that this service manages, on each node: what is in effect by the server’s own word, what is wanted, what is ' +
          'computed from the hardware and why, what somebody asked for instead, whether it waits for a restart, and whether a file that is ' +
          'read later sets it again. Changes nothing.',
        params: ClusterParams,
        querystring: NoQuery,
        response: {
          200: answer('What they run with.', SettingsReport, {
            example: exampleSettings,
            text: settingsText(exampleSettings),
          }),
          ...problemResponses(
            ...COMMON,
            'not-found',
            'operation-refused',
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
      const cluster = await findCluster(services, request.params.cluster)
      return sendEither(request, reply, await services.settings(cluster, abortedWith(reply)), settingsText)
    },
  )

  app.patch(
    '/v1/clusters/:cluster/settings',
    changingRoute(
      {
        operationId: 'changeClusterSettings',
        tags: ['clusters'],
        summary: 'Change settings of PostgreSQL',
        description:
          'Settings for the whole cluster or for single nodes, beside those that are computed. Every name and value is put before the ' +
          'PostgreSQL of each host before anything is written: a wrong one is refused in its own words. Servers reload; what needs a ' +
          'restart waits for one, or with `"restart": "when-needed"` gets one, standbys first and the primary last. Of what a standby must ' +
          'not have less than its primary, the order is kept whichever way it changes. In the end each server is asked.',
        params: ClusterParams,
        body: Change,
      },
      ['not-found', 'cluster-not-built', 'cluster-busy', 'inconsistent', 'setting-refused'],
    ),
    async (request, reply) => {
      const cluster = await findCluster(services, request.params.cluster)
      const input = request.body
      refuseUnbuilt(cluster)
      const strangers = Object.keys(input.nodes ?? {}).filter(name => !cluster.nodes.some(node => node.name === name))
      if (strangers.length > 0) {
        const errors = strangers.map(name => ({
          pointer: `/nodes/${name}`,
          detail: `${cluster.name} has no node ${name}.`,
        }))
        throw new ProblemError('inconsistent', errors.map(({ detail }) => detail).join(' '), { errors })
      }
      refuseSettings(input.settings === undefined ? {} : { settings: input.settings })
      for (const settings of Object.values(input.nodes ?? {})) refuseSettings({ settings })
      const wanted = { type: 'change-settings', cluster, input } as const
      // Asked now, so that a wrong one is this call's answer and not an operation's; the operation asks again.
      if (!request.query.dryRun) await services.tryPlan(wanted, abortedWith(reply))
      return answerChange(services, request, reply, wanted)
    },
  )
}
