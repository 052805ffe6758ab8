/** What a cluster's hosts have that its record does not say, or the other way round. */
import { type Static, Type } from 'typebox'

export const DriftItem = Type.Object(
  {
    kind: Type.Enum(['changed', 'package', 'metadata', 'unreachable', 'undecided', 'certificate'], {
      title: 'DriftKind',
      description:
        'changed: something that the service manages was changed, or is missing. package: another version than when an operation last ' +
        'looked. metadata: repmgr.nodes and the record differ. unreachable: nobody could look. undecided: what was found on the hosts does ' +
        'not say how the cluster is to be put right. certificate: one that somebody else makes ends soon.',
    }),
    node: Type.Optional(Type.String({ description: 'The node, where it is about one.' })),
    step: Type.Optional(
      Type.String({ description: 'The step of apply-cluster that puts it right.', examples: ['pg2/access'] }),
    ),
    detail: Type.String({ description: 'What was found.' }),
    remedy: Type.String({ description: 'What to do.' }),
  },
  { additionalProperties: false, title: 'DriftItem', description: 'One thing that is not as the record says.' },
)
export type DriftItem = Static<typeof DriftItem>

export const Drift = Type.Object(
  {
    cluster: Type.String(),
    inSync: Type.Boolean({
      description: 'Everything that was looked at is as the record says, and everybody answered.',
    }),
    items: Type.Array(DriftItem),
    checkedSteps: Type.Integer({ description: 'How many checks looked at the hosts.' }),
    observedAt: Type.String({ format: 'date-time' }),
  },
  {
    additionalProperties: false,
    title: 'Drift',
    description: 'Where the hosts differ from the record, as they answered just now. Nothing is changed by looking.',
  },
)
export type Drift = Static<typeof Drift>
