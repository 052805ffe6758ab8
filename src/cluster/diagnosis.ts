/** What the answers of all nodes mean together: a code for programs, and the same for people. Pure. */
import { type Static, Type } from 'typebox'
import { isExchanging } from './handover.js'
import type { Cluster } from './model.js'
import { keptPaused } from './repmgrd.js'
import type { NodeStatus } from './status.js'

export const Diagnosis = Type.Object(
  {
    code: Type.Enum(
      [
        'healthy',
        'not_built',
        'slot_lost',
        'standby_down',
        'standby_detached',
        'slot_at_risk',
        'witness_down',
        'repmgrd_paused',
        'no_primary',
        'primary_unreachable_from_here',
        'two_primaries',
        'unreachable',
        'foreign_node',
        'archive_failing',
      ],
      { title: 'DiagnosisCode', description: 'For programs; more may come, so take an unknown one for "not healthy".' },
    ),
    detail: Type.String({ description: 'The same for people.' }),
  },
  { additionalProperties: false, title: 'Diagnosis', description: 'What the answers of all nodes mean together.' },
)
export type Diagnosis = Static<typeof Diagnosis>

/** What is wrong with one node, or with the archive, while there is a primary. */
export interface Finding {
  code: (typeof BY_WEIGHT)[number]
  detail: string
}

/**
 * The worst first: it is the diagnosis; all are told. A lost slot is worse than a node that is down: it cannot come back.
 * An archive that fails may be why something else is wrong, or the other way round.
 */
const BY_WEIGHT = [
  'slot_lost',
  'standby_down',
  'standby_detached',
  'slot_at_risk',
  'witness_down',
  'repmgrd_paused',
  'archive_failing',
] as const

/** `primaries`: data nodes of this cluster that accept writes. `findings`: of its nodes, in any order. */
export function diagnose(
  cluster: Cluster,
  nodes: readonly NodeStatus[],
  primaries: readonly string[],
  findings: readonly Finding[],
): Diagnosis {
  const named = (state: NodeStatus['state']) => nodes.filter(node => node.state === state).map(({ name }) => name)
  const unreachable = named('unreachable')
  const foreign = named('foreign')
  if (primaries.length > 1) {
    return {
      code: 'two_primaries',
      detail: `${primaries.join(' and ')} both accept writes. Stop the one that must not, before anything else.`,
    }
  }
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
  if (primaries.length === 0) {
    // A cascading standby that follows says nothing of the primary.
    const cascading = new Set(cluster.nodes.filter(({ upstream }) => upstream !== undefined).map(({ name }) => name))
    const followed = nodes.find(
      ({ name, state, upstream }) =>
        state === 'streaming' && upstream && unreachable.includes(upstream) && !cascading.has(name),
    )
    return followed
      ? {
          code: 'primary_unreachable_from_here',
          detail: `${followed.upstream} does not answer us, but ${followed.name} still receives from it.`,
        }
      : {
          code: 'no_primary',
          detail: `No node that answers accepts writes.${unfinished(cluster)}${keptPaused(cluster.repmgrd)}`,
        }
  }
  const [worst, ...others] = [...findings].sort((a, b) => BY_WEIGHT.indexOf(a.code) - BY_WEIGHT.indexOf(b.code))
  if (!worst) return { code: 'healthy', detail: `${primaries[0]} accepts writes and every standby follows.` }
  return { code: worst.code, detail: [worst, ...others].map(({ detail }) => detail).join(' ') }
}

const unfinished = ({ handover }: Cluster) =>
  !isExchanging(handover)
    ? ''
    : ` A switchover from ${handover.from} to ${handover.to} was begun and is not through: POST /v1/operations/${handover.operation}/retry goes on with it, unless it is still running.`
