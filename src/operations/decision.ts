/** What a step decided and why, kept with it for good: evidence, votes, candidates, proof, loss, times. */
import { type Static, Type } from 'typebox'

const Fact = (description: string) =>
  Type.Array(
    Type.Object(
      { who: Type.String({ description: 'A node, or the store.' }), detail: Type.String() },
      { additionalProperties: false },
    ),
    { description },
  )

export const Decision = Type.Object(
  {
    evidence: Fact('What was seen of the primary and of the others before anything was touched.'),
    replaced: Type.Array(Type.String(), { description: 'Names of the nodes that were the primary, or may have been.' }),
    votes: Type.Optional(
      Type.Object(
        {
          needed: Type.Integer(),
          of: Type.Integer({ description: 'Registered voters.' }),
          given: Fact('Those that voted; a standby votes only once it is frozen.'),
          missing: Fact('Those that did not, and why.'),
        },
        { additionalProperties: false },
      ),
    ),
    fencing: Type.Array(
      Type.Object(
        {
          node: Type.String(),
          method: Type.Enum(['ssh', 'hook', 'none'], {
            description:
              'ssh: its processes were seen to be gone. hook: somebody else gave a receipt. none: nobody knows.',
          }),
          detail: Type.String({ description: 'The proof, or why there is none.' }),
        },
        { additionalProperties: false },
      ),
    ),
    candidates: Type.Array(
      Type.Object(
        {
          node: Type.String(),
          lsn: Type.Optional(Type.String()),
          timeline: Type.Optional(Type.Integer()),
          objection: Type.Optional(Type.String({ description: 'Why it could not be promoted.' })),
        },
        { additionalProperties: false },
      ),
    ),
    chosen: Type.Optional(Type.String({ description: 'Name of the node that was promoted.' })),
    behindBytes: Type.Optional(
      Type.Integer({ description: 'What another standby has that the chosen one does not have.' }),
    ),
    loss: Type.Optional(
      Type.Object(
        {
          knownBytes: Type.Optional(
            Type.Integer({ description: 'WAL on the disk of the old primary that the chosen one does not have.' }),
          ),
          commits: Type.Optional(Type.Integer({ description: 'Commits in that WAL.' })),
          detail: Type.String(),
        },
        { additionalProperties: false },
      ),
    ),
    risks: Type.Array(Type.String(), { description: 'What was risked, where it was forced.' }),
    times: Type.Array(
      Type.Object(
        { what: Type.String(), ms: Type.Integer({ description: 'Since the step began.' }) },
        { additionalProperties: false },
      ),
    ),
  },
  { additionalProperties: false, title: 'Decision', description: 'What was decided, on what grounds, and when.' },
)
export type Decision = Static<typeof Decision>
