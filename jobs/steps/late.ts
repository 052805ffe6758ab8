/** Steps about a node that only a step before them chooses: each is made when its turn has come. */
import type { ChangeStep, Step, StepContext, VerifyStep } from '../../src/operations/step.js'

interface About {
  id: string
  title: string
  node?: string
  /** What its actions are, for who reads the plan. */
  text: string
}

const perform = (make: () => Promise<Step | undefined>) => async (context: StepContext) => {
  for (const action of (await make())?.actions ?? []) {
    context.log(action.description.kind === 'file' ? `write ${action.description.path}` : action.description.text)
    await action.perform(context)
  }
}

const describe = ({ id, title, node, text }: About, make: () => Promise<Step | undefined>) => ({
  id,
  title,
  ...(node === undefined ? {} : { node }),
  actions: [{ description: { kind: 'wait' as const, text }, perform: perform(make) }],
})

/** Undefined from `make`: there is nothing to do. */
export const lateChange = (about: About, make: () => Promise<ChangeStep | undefined>): ChangeStep => ({
  ...describe(about, make),
  kind: 'change',
  check: async context => (await make())?.check(context) ?? { done: true },
})

export const lateProof = (about: About, make: () => Promise<Step>): VerifyStep => ({
  ...describe(about, make),
  kind: 'verify',
})
