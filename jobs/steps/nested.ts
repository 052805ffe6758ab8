/** A whole operation as one step of another: planned when its turn has come, because it depends on what came before. */
import { OperationError } from '../../src/operations/errors.js'
import type { ChangeStep, Check, CheckContext, Plan, Step, StepContext } from '../../src/operations/step.js'

interface About {
  id: string
  title: string
  node?: string
  /** What it does, for who reads the plan. */
  text: string
  destroys?: string
}

/** Thrown when a step of it ran, and is not done. */
class PartNotEffective extends OperationError {
  constructor(title: string, reason: string) {
    super(`"${title}" was carried out, but is not done: ${reason}`, {
      code: 'step-not-effective',
      outcome: 'failed_partial',
      remedy: 'Look at the operation’s log for what the host printed. Repeat the call to try the step again.',
    })
  }
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
          for (const step of tracks.flat()) await carryOut(step, within(context, step.id))
      },
    },
  ],
  check: isDone,
})

async function carryOut(step: Step, context: StepContext): Promise<void> {
  const begun = performance.now()
  if (step.kind === 'change' && (await step.check(context)).done) return
  for (const action of step.actions) {
    context.signal.throwIfAborted()
    await action.perform(context)
  }
  const after = step.kind === 'change' ? await step.check(context) : undefined
  if (after && !after.done) throw new PartNotEffective(step.title, after.reason)
  context.log(`${step.title}: done after ${Math.round(performance.now() - begun)} ms`)
}

/** Its words are lines of the outer step's log: that one has a note of its own. */
const within = (context: StepContext, part: string): StepContext => ({
  ...context,
  log: line => context.log(`${part}: ${line}`),
  note: text => context.log(`${part}: ${text}`),
  progress: () => undefined,
  decide: () => undefined,
  report: () => undefined,
})
