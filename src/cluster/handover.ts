/** An exchange of roles that was begun: kept with the cluster until it is through, so that whoever takes it up knows its two ends. */
import { type Static, Type } from 'typebox'

export const RollingPhase = Type.Enum(['standbys', 'exchange', 'back'], {
  title: 'RollingPhase',
  description:
    'Of an operation that goes from node to node. standbys: one after the other, and the roles are as they were. exchange: from there on ' +
    'the roles are exchanged. back: they are exchanged back, so that `from` and `to` have changed places.',
})
export type RollingPhase = Static<typeof RollingPhase>

export const Handover = Type.Object(
  {
    operation: Type.String({ description: 'The operation that exchanges the roles.' }),
    from: Type.String({ description: 'Name of the node that was the primary when it began.' }),
    to: Type.String({ description: 'Name of the node that is to be the primary.' }),
    phase: Type.Optional(RollingPhase),
    versions: Type.Optional(
      Type.Record(Type.String(), Type.String(), {
        description: 'Of an upgrade: the version of each package that every node gets.',
        examples: [{ 'postgresql-15': '15.14-0+deb12u1' }],
      }),
    ),
  },
  {
    additionalProperties: false,
    title: 'Handover',
    description:
      'A switchover, or an operation with one in it, that was begun and is not through. Its operation can be retried.',
  },
)
export type Handover = Static<typeof Handover>

/** Whether the roles may be half exchanged: neither of the two ends need be the primary. */
export const isExchanging = (handover: Handover | undefined): handover is Handover =>
  handover !== undefined && handover.phase !== 'standbys'
