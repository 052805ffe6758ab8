/** What the answers of all nodes mean together: a code for programs, the same for people, and what it rests on. Pure. */
import { type Static, Type } from 'typebox'
import { Evidence } from './evidence.js'
import type { Cluster } from './model.js'
import type { NodeStatus } from './status.js'
import { diagnoseWithoutPrimary } from './without-primary.js'

export const Diagnosis = Type.Object(
  {
    code: Type.Enum(
      [
        'healthy',
        'not_built',
        'slot_lost',
        'standby_diverged',
        'standby_down',
        'standby_detached',
        'slot_at_risk',
        'witness_down',
        'repmgrd_paused',
        'standby_lagging',
        'metadata_drift',
        'no_primary',
        'primary_starting',
        'primary_unreachable',
        'primary_unreachable_from_here',
        'two_primaries',
        'unreachable',
        'foreign_node',
        'archive_failing',
      ],
      { title: 'DiagnosisCode', description: 'For programs; more may come, so take an unknown one for "not healthy".' },
    ),
    detail: Type.String({ description: 'The same for people.' }),
    evidence: Type.Array(Evidence, {
      description: 'What every node answered, or why it did not, and what else the diagnosis rests on.',
    }),
  },
  { additionalProperties: false, title: 'Diagnosis', description: 'What the answers of all nodes mean together.' },
)
export type Diagnosis = Static<typeof Diagnosis>

/** What is wrong with one node, or with the archive, while there is a primary. */
export interface Finding {
  code: (typeof BY_WEIGHT)[number]
  detail: string
  /** Facts beside what each node answered. */
  evidence?: { node: string; observed: string }[]
}

/**
 * The worst first: it is the diagnosis; all are told. A lost slot and a history of its own are worse than a node that is
 * down: it cannot come back by itself. An archive that fails may be why something else is wrong, or the other way round.
 */
const BY_WEIGHT = [
  'slot_lost',
  'standby_diverged',
  'standby_down',
  'standby_detached',
  'slot_at_risk',
  'witness_down',
  'repmgrd_paused',
  'archive_failing',
  'standby_lagging',
  'metadata_drift',
] as const

/** The last promotion that this service made, where the record has one. */
export interface RecordedPromotion {
  to: string
  /** Not known while it is under way. */
  timeline?: number
}

/**
 * `primaries`: data nodes of this cluster that accept writes, each with its timeline. `findings`: of its nodes, in any order.
 */
export function diagnose(
  cluster: Cluster,
  nodes: readonly NodeStatus[],
  primaries: readonly { name: string; timeline: number }[],
  findings: readonly Finding[],
  promotion: RecordedPromotion | undefined,
): Omit<Diagnosis, 'evidence'> {
  const named = (state: NodeStatus['state']) => nodes.filter(node => node.state === state).map(({ name }) => name)
  const unreachable = named('unreachable')
  const foreign = named('foreign')
  const [primary, second] = primaries
  if (second) return { code: 'two_primaries', detail: severalPrimaries(primaries, promotion) }
  if (unreachable.length === nodes.length) {
    return cluster.builtAt === undefined
      ? {
          code: 'not_built',
          detail: 'No node answers, and the cluster has not been built yet: POST it with "bootstrap": true.',
        }
      : {
          code: 'unreachable',
          detail: 'No node answers from here. Look at the network between this service and the hosts first.',
        }
  }
  if (foreign.length > 0) {
    return { code: 'foreign_node', detail: `${foreign.join(', ')} runs another database cluster than this one.` }
  }
  if (!primary) return diagnoseWithoutPrimary(cluster, nodes, promotion?.to)
  const [worst, ...others] = [...findings].sort((a, b) => BY_WEIGHT.indexOf(a.code) - BY_WEIGHT.indexOf(b.code))
  if (!worst) return { code: 'healthy', detail: `${primary.name} accepts writes and every standby follows.` }
  return { code: worst.code, detail: [worst, ...others].map(({ detail }) => detail).join(' ') }
}

/** Which one is right is not for this service to guess: a timeline alone proves nothing, somebody may have promoted a copy. */
function severalPrimaries(
  primaries: readonly { name: string; timeline: number }[],
  promotion: RecordedPromotion | undefined,
): string {
  const each = primaries.map(({ name, timeline }) => `${name} (timeline ${timeline})`).join(' and ')
  const last = promotion
    ? `The last promotion that this service made was that of ${promotion.to}${promotion.timeline === undefined ? '' : `, to timeline ${promotion.timeline}`}.`
    : 'This service has no promotion on record that would tell which one is right.'
  return `${each} both accept writes. ${last} Stop the one that must not, before anything else.`
}
