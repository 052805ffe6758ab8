/** Maintenance of a cluster: for a while nothing is done to it that nobody asked for. */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyRequest } from 'fastify'
import { type Static, Type } from 'typebox'
import type { Cluster } from '../../cluster/model.js'
import { DEFAULT_PAUSE_MS, MAX_PAUSE_MS, PauseState, pausedBy, pauseInForce } from '../../cluster/pause.js'
import { pauseCluster, resumeCluster } from '../../store/pauses.js'
import { askerOf } from '../asker.js'
import { examplePause } from '../examples.js'
import { Instant, milliseconds } from '../instant.js'
import { onceOf } from '../once.js'
import { refuseStale } from '../preconditions.js'
import { ProblemError } from '../problems.js'
import {
  answer,
  COMMON,
  problemResponses,
  REPLAYED,
  RecordChangeQuery,
  refuseReuse,
  sendEither,
  WITH_BODY,
} from '../responses.js'
import type { Services } from '../services.js'
import { pauseStateText } from '../text.js'
import { ClusterParams, findCluster } from './find-cluster.js'

const NewPause = Type.Object(
  {
    reason: Type.String({
      minLength: 1,
      maxLength: 500,
      pattern: '^[^\\u0000-\\u001f\\u007f-\\u009f\\u2028\\u2029]*$',
      description: 'Why, for whoever finds the cluster paused. One line.',
      examples: ['new disks in pg1'],
    }),
    until: Type.Optional(Instant('When it ends by itself, at most seven days from now.')),
    forMs: Type.Optional(
      Type.Integer({
        minimum: 1000,
        maximum: MAX_PAUSE_MS,
        description: `The same as a span from now. Without either it is ${DEFAULT_PAUSE_MS}: an hour.`,
      }),
    ),
  },
  {
    additionalProperties: false,
    title: 'NewPause',
    description: 'Why a cluster is to be paused, and for how long.',
    'x-examples': {
      hour: { summary: 'For an hour', value: { reason: 'new disks in pg1' } },
      span: { summary: 'For ten minutes', value: { reason: 'new disks in pg1', forMs: 600_000 } },
      until: { summary: 'Until a time', value: { reason: 'new disks in pg1', until: '2026-11-22T11:20:00Z' } },
    },
  },
)

const REFUSALS = ['not-found', 'idempotency-key-reused', 'precondition-failed'] as const

const PAUSED: PauseState = { cluster: 'orders', paused: true, pause: examplePause }
const NOT_PAUSED: PauseState = { cluster: 'orders', paused: false, pause: null }

export const pauseRoutes: FastifyPluginAsyncTypebox<{ services: Services }> = async (app, { services }) => {
  const { clusters, once } = services.store

  /** Carried out before under the same key: then it is only said how things are. */
  const isRepeated = async (request: FastifyRequest) => {
    const key = onceOf(request)
    if (!key) return false
    const known = await once.find(key).catch(error => {
      throw refuseReuse(error)
    })
    return known !== undefined
  }

  app.post(
    '/v1/clusters/:cluster/pause',
    {
      config: { access: 'admin' },
      schema: {
        operationId: 'pauseCluster',
        tags: ['clusters'],
        summary: 'Pause a cluster for maintenance',
        description:
          'Until the pause ends, this service does nothing to the cluster by itself; operations that people ask for go on. It ends at its time, whoever ' +
          'has forgotten it: the audit trail tells when it begins, when it is about to end and when it has ended. Asked for again, it goes on until the later of ' +
          'both times, with the newer reason: nobody cuts short what another one relies on. To end it, resume the cluster.',
        params: ClusterParams,
        querystring: RecordChangeQuery,
        body: NewPause,
        response: {
          200: answer('It is paused (dry run: it would be).', PauseState, {
            headers: REPLAYED,
            example: PAUSED,
            text: pauseStateText(PAUSED),
          }),
          ...problemResponses(...WITH_BODY, ...REFUSALS, 'inconsistent'),
        },
      },
    },
    async (request, reply) => {
      const { dryRun = false, reference } = request.query
      const cluster = await findCluster(services, request.params.cluster)
      const nowMs = Date.now()
      if (!dryRun && (await isRepeated(request))) {
        reply.header('idempotent-replayed', 'true')
        return sendEither(request, reply, stateOf(cluster, nowMs), pauseStateText)
      }
      const who = askerOf(request)
      const wanted = {
        reason: request.body.reason,
        untilMs: endOf(request.body, nowMs),
        by: who.name,
        ...(reference === undefined ? {} : { reference }),
      }
      const refuse = (newest: Cluster) => void refuseStale(request, newest)
      if (dryRun) {
        refuse(cluster)
        const would = stateOf({ ...cluster, pause: pausedBy(cluster, wanted, nowMs) }, nowMs)
        return sendEither(request, reply, would, pauseStateText)
      }
      const paused = await pauseCluster(clusters, cluster.name, wanted, { who, nowMs, refuse })
      return sendEither(request, reply, stateOf(paused ?? (await gone(cluster)), nowMs), pauseStateText)
    },
  )

  app.post(
    '/v1/clusters/:cluster/resume',
    {
      config: { access: 'admin' },
      schema: {
        operationId: 'resumeCluster',
        tags: ['clusters'],
        summary: 'End the pause of a cluster',
        description:
          'Ends the pause now, whoever asked for it; the audit trail tells who did. A cluster that is not paused stays so.',
        params: ClusterParams,
        querystring: RecordChangeQuery,
        response: {
          200: answer('It is not paused (dry run: it would not be).', PauseState, {
            headers: REPLAYED,
            example: NOT_PAUSED,
            text: pauseStateText(NOT_PAUSED),
          }),
          ...problemResponses(...COMMON, ...REFUSALS),
        },
      },
    },
    async (request, reply) => {
      const { dryRun = false, reference } = request.query
      const cluster = await findCluster(services, request.params.cluster)
      const nowMs = Date.now()
      if (!dryRun && (await isRepeated(request))) {
        reply.header('idempotent-replayed', 'true')
        return sendEither(request, reply, stateOf(cluster, nowMs), pauseStateText)
      }
      const refuse = (newest: Cluster) => void refuseStale(request, newest)
      if (dryRun) {
        refuse(cluster)
        return sendEither(request, reply, { ...NOT_PAUSED, cluster: cluster.name }, pauseStateText)
      }
      const resumed = await resumeCluster(clusters, cluster.name, { who: askerOf(request), nowMs, reference, refuse })
      return sendEither(request, reply, stateOf(resumed ?? (await gone(cluster)), nowMs), pauseStateText)
    },
  )

  /** Forgotten meanwhile: says so. */
  const gone = ({ name }: Cluster) => findCluster(services, name)
}

function stateOf(cluster: Cluster, nowMs: number): PauseState {
  const pause = pauseInForce(cluster, nowMs)
  return { cluster: cluster.name, paused: pause !== undefined, pause: pause ?? null }
}

function endOf({ until, forMs }: Static<typeof NewPause>, nowMs: number): number {
  if (until === undefined) return nowMs + (forMs ?? DEFAULT_PAUSE_MS)
  if (forMs !== undefined) throw wrong('/forMs', 'Say "until" or "forMs", not both.')
  const untilMs = milliseconds(until)
  if (untilMs <= nowMs) throw wrong('/until', `${until} is not in the future.`)
  if (untilMs > nowMs + MAX_PAUSE_MS)
    throw wrong(
      '/until',
      `${until} is more than seven days from now: pause it for less, and again when that is needed.`,
    )
  return untilMs
}

const wrong = (pointer: string, detail: string) =>
  new ProblemError('inconsistent', detail, { errors: [{ pointer, detail }] })
