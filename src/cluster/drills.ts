/** Rehearsals: whether a cluster may be rehearsed on, and how. */
import { type Static, Type } from 'typebox'

export const DrillsPolicy = Type.Enum(['refused', 'allowed'], {
  default: 'refused',
  title: 'DrillsPolicy',
  description:
    'Whether POST …/drills may exchange the roles, or take the primary away, to show how long writes are refused. refused: it may not.',
})

export const Fault = Type.Enum(['stop', 'kill'], {
  default: 'kill',
  title: 'Fault',
  description:
    'What happens to the primary. stop: its server is stopped in order. kill: every process of it is killed at once (SIGKILL), as by a crash.',
})
export type Fault = Static<typeof Fault>

export const DrillKind = Type.Enum(['switchover', 'failover'], {
  default: 'switchover',
  title: 'DrillKind',
  description:
    'switchover: the roles are exchanged while both live. failover: the primary is taken away, a standby is promoted in its place, and the old primary becomes a standby.',
})
export type DrillKind = Static<typeof DrillKind>

/** Kept in the cluster's record while it runs: once the primary is away nobody else knows who it was. */
export const RunningDrill = Type.Object(
  {
    operation: Type.String({ description: 'The operation that rehearses.' }),
    from: Type.String({ description: 'Name of the node that was the primary when it began.' }),
  },
  { additionalProperties: false, title: 'RunningDrill', description: 'A rehearsed failover that is not through.' },
)
export type RunningDrill = Static<typeof RunningDrill>
