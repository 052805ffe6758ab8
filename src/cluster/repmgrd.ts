/** repmgrd, where a cluster runs it: who has paused it, and whether that is known of. */
import { type Static, Type } from 'typebox'

export const RepmgrdHold = Type.Object(
  {
    operation: Type.String({ description: 'The operation that it was paused for.' }),
    nodes: Type.Array(Type.String(), {
      description: 'Names of the nodes on which this service has paused it, and is to unpause it.',
    }),
    kept: Type.Optional(
      Type.String({ description: 'Why it is paused still, although that operation has ended or is about to.' }),
    ),
  },
  {
    additionalProperties: false,
    title: 'RepmgrdHold',
    description: 'repmgrd was paused for an operation. The next operation that pauses it unpauses it there, too.',
  },
)
export type RepmgrdHold = Static<typeof RepmgrdHold>

/** What a server says of its repmgrd. */
export interface RepmgrdObservation {
  running: boolean
  paused: boolean
}

interface Situation {
  said: readonly ({ node: string } & RepmgrdObservation)[]
  hold: RepmgrdHold | undefined
  /** Whether an operation is changing the cluster, or a pause is in force. */
  expected: boolean
}

/**
 * A sentence where repmgrd is left paused: then it promotes nobody, and nobody notices until the day it should have. The
 * flag of a server without repmgrd counts where another one has it: repmgrd heeds it once started.
 */
export function leftPaused({ said, hold, expected }: Situation): string | undefined {
  const paused = said.flatMap(state => (state.paused ? [state.node] : []))
  const used = hold !== undefined || said.some(({ running }) => running)
  if (expected || !used || paused.length === 0) return undefined
  const why =
    hold === undefined
      ? 'nothing that this service does or knows of asks for that'
      : `${hold.nodes.join(', ')} since operation ${hold.operation}${hold.kept === undefined ? '' : `, because ${hold.kept}`}`
  return `repmgrd is paused on ${paused.join(', ')}, and promotes nobody: ${why}. "repmgr service unpause" on one of the nodes ends that.`
}

/** The same for a cluster without a primary, which has worse to tell: what would go on by itself does not. */
export const keptPaused = (hold: RepmgrdHold | undefined) =>
  hold?.kept === undefined
    ? ''
    : ` repmgrd stays paused on ${hold.nodes.join(', ')} since operation ${hold.operation}, and promotes nobody; whatever makes a primary run again by this service unpauses it.`
