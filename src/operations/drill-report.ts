/** What a drill has shown, kept with its operation for good. */
import { type Static, Type } from 'typebox'

export const DrillReport = Type.Object(
  {
    writesRefusedMs: Type.Integer({
      minimum: 0,
      description: 'The longest time between two commits that were acknowledged, in milliseconds.',
    }),
    acknowledged: Type.Integer({ minimum: 0, description: 'Rows whose commit was acknowledged.' }),
    lost: Type.Integer({ minimum: 0, description: 'Of these, rows that are not there in the end.' }),
    uncertain: Type.Integer({
      minimum: 0,
      description: 'Rows whose connection broke before anybody said whether they are there.',
    }),
    complete: Type.Boolean({
      description: 'False where a worker died meanwhile, and its writer with it: then this is of the part after that.',
    }),
  },
  {
    additionalProperties: false,
    title: 'DrillReport',
    description: 'What a client has seen that wrote one row after the other while it was rehearsed.',
  },
)
export type DrillReport = Static<typeof DrillReport>

/** Times of acknowledgements in milliseconds, in order. */
export function longestGap(acknowledgedAt: readonly number[]): number {
  let longest = 0
  for (const [index, at] of acknowledgedAt.entries()) {
    const before = acknowledgedAt[index - 1]
    if (before !== undefined) longest = Math.max(longest, at - before)
  }
  return Math.round(longest)
}

export const drillWords = ({ writesRefusedMs, acknowledged, lost, uncertain, complete }: DrillReport): string => {
  const gone = lost === 0 ? 'none of them is' : lost === 1 ? '1 of them is' : `${lost} of them are`
  const rows = `${acknowledged} rows were acknowledged, ${gone} lost`
  const open = uncertain === 0 ? '' : `; of ${uncertain} nobody said`
  const partly = complete ? '' : ' A worker died meanwhile: this is of the part after that.'
  return `Writes were refused for ${writesRefusedMs} ms; ${rows}${open}.${partly}`
}
