/** An exchange of roles that was begun: kept with the cluster until it is through, so that whoever takes it up knows its two ends. */
import { type Static, Type } from 'typebox'

export const Handover = Type.Object(
  {
    operation: Type.String({ description: 'The operation that exchanges the roles.' }),
    from: Type.String({ description: 'Name of the node that was the primary when it began.' }),
    to: Type.String({ description: 'Name of the node that is to be the primary.' }),
  },
  {
    additionalProperties: false,
    title: 'Handover',
    description: 'A switchover that was begun and is not through. Its operation can be retried.',
  },
)
export type Handover = Static<typeof Handover>
