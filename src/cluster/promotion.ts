/** A promotion without the consent of the primary: kept with the cluster, from just before the standby is told. */
import { type Static, Type } from 'typebox'

export const Promotion = Type.Object(
  {
    operation: Type.String({ description: 'The operation that promoted it.' }),
    epoch: Type.Integer({ description: 'Turn of the worker that told it; later ones are greater.' }),
    state: Type.Enum(['promoting', 'promoted'], {
      title: 'PromotionState',
      description:
        'promoting: it was told to become the primary, or is about to be; retry the operation if it has ended. promoted: it has.',
    }),
    to: Type.String({ description: 'Name of the node that was promoted.' }),
    replaced: Type.Array(Type.String(), { description: 'Names of the nodes that were the primary, or may have been.' }),
    unfenced: Type.Array(Type.String(), {
      description: 'Of those, the ones of which nobody has seen that they are stopped. Keep them off the network.',
    }),
    timeline: Type.Optional(Type.Integer({ description: 'That it writes since then.' })),
    switchLsn: Type.Optional(Type.String({ description: 'Where that timeline begins.' })),
    at: Type.String({ format: 'date-time' }),
  },
  {
    additionalProperties: false,
    title: 'Promotion',
    description: 'The last promotion of a standby in place of a primary that was lost.',
  },
)
export type Promotion = Static<typeof Promotion>

/** What voters remember of turns up to this one is history. */
export const settledEpoch = (promotion: Promotion | undefined) =>
  promotion?.state === 'promoted' ? promotion.epoch : 0
