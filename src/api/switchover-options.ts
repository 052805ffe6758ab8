/** Who takes over, and how much an exchange of roles may take: the same wherever a call has one in it. */
import { Type } from 'typebox'
import { NodeName } from '../cluster/model.js'

export const switchoverOptions = {
  to: Type.Optional({
    ...NodeName,
    description: 'The standby that becomes the primary. Default: the one with the highest priority.',
  }),
  deadlineMs: Type.Optional(
    Type.Integer({
      minimum: 1000,
      maximum: 600_000,
      default: 30_000,
      description:
        'How long the primary may take to stop, and the standby to replay its last byte: for so long writes are refused. Past it everything goes back, unless the standby was told to be the primary.',
    }),
  ),
  maxTransactionAgeMs: Type.Optional(
    Type.Integer({
      minimum: 0,
      maximum: 86_400_000,
      default: 60_000,
      description: 'Transactions that are older are not cut off: the switchover is refused, and names the oldest.',
    }),
  ),
  maxLagBytes: Type.Optional(
    Type.Integer({
      minimum: 0,
      maximum: 1_099_511_627_776,
      default: 16_777_216,
      description: 'A standby that is further behind is waited for by nobody: the switchover is refused.',
    }),
  ),
  loseLogicalSlots: Type.Optional(
    Type.Boolean({
      default: false,
      description:
        'Logical replication slots do not go over to the new primary: with them it is refused, unless this is true.',
    }),
  ),
}
