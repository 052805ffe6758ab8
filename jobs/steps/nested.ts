/** A whole operation as one step of another: planned when its turn has come, because it depends on what came before. */
import { carryOut } from '../../src/operations/run-plan.js'
import type { ChangeStep, Check, CheckContext, Plan, StepContext } from '../../src/operations/step.js'

interface About {
  id: string
  title: string
  node?: string
  /** What it does, for who reads the plan. */
  text: string
  destroys?: string
}

/** Each of its steps looks first, so that a second worker does only what is left. `isDone`: of the whole. */
export const nestedOperation = (
  { id, title, node, text, destroys }: About,
  make: (signal: AbortSignal) => Promise<Plan>,
  isDone: (context: CheckContext) => Promise<Check>,
): ChangeStep => ({
  id,
  kind: 'change',
  title,
  ...(node === undefined ? {} : { node }),
  ...(destroys === undefined ? {} : { destroys }),
  actions: [
    {
      description: { kind: 'wait', text },
      async perform(context) {
        for (const { tracks } of await make(context.signal))
          for (const step of tracks.flat()) context.log(`${step.id}: ${await carryOut(step, within(context, step.id))}`)
      },
    },
  ],
  check: isDone,
})

/** Its words are lines of the outer step's log: that one has a note of its own. */
const within = (context: StepContext, part: string): StepContext => ({
  ...context,
  log: line => context.log(`${part}: ${line}`),
  note: text => context.log(`${part}: ${text}`),
  progress: () => undefined,
  decide: () => undefined,
  report: () => undefined,
})
