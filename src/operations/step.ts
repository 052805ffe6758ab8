/**
 * Words of this folder:
 *
 * operation  one thing that somebody asked for, with its record in the store
 * plan       what an operation will do: stages one after the other; in a stage, tracks side by side; in a track, steps
 *            one after the other
 * step       the smallest thing that is done, checked, journalled and resumed
 * action     one command, file or statement of a step: the same object says what would happen and makes it happen, so
 *            that a plan cannot show one thing and do another
 * check      looks whether a step is done already; run before the step (then nothing is done) and after it (then it is
 *            proven), and again by the next worker when this one dies
 * journal    what happened to each step, in the store
 */

import type { Decision } from './decision.js'
import type { DrillReport } from './drill-report.js'

/** What an action would do, for people. Secrets go over standard input and are never part of it. */
export type ActionDescription =
  | { kind: 'command'; text: string }
  | { kind: 'file'; path: string; owner: string; mode: string; content: string }
  | { kind: 'sql'; text: string }
  | { kind: 'wait'; text: string }

export interface Progress {
  doneBytes: number
  /** Absent until the server has estimated it. */
  totalBytes?: number
  percent?: number
  rateBytesPerSecond?: number
  remainingSeconds?: number
}

export interface StepContext {
  readonly operationId: string
  /** Number of this worker's turn; grows with each worker that takes the cluster. Hosts refuse an older one. */
  readonly epoch: number
  /** Aborted when the operation is cancelled, when the worker stops or when another worker has taken over. */
  readonly signal: AbortSignal
  /**
   * Aborted when the worker was asked to stop: steps end at their next boundary, and whoever waits for a detached
   * command leaves it to the next worker.
   */
  readonly draining: AbortSignal
  log(line: string): void
  progress(progress: Progress): void
  /** One sentence for the journal: what a proof has shown, what was found. */
  note(text: string): void
  /** For the journal, where a step decides something: the last one counts. */
  decide(decision: Decision): void
  /** For the journal and for the result: what a drill has shown. */
  report(drill: DrillReport): void
}

export interface Action {
  readonly description: ActionDescription
  perform(context: StepContext): Promise<void>
}

export type Check = { done: true; note?: string } | { done: false; reason: string; note?: undefined }

/** What a check may use: it reads and never changes, so it has no epoch. A dry run is no operation and has no id. */
export type CheckContext = Pick<StepContext, 'signal' | 'log'> & { readonly operationId?: string }

interface StepBase {
  /** Unique in the plan and the same each time the plan is made: the journal's key. `[a-z0-9-/]`. */
  readonly id: string
  readonly title: string
  readonly node?: string
  /** What is lost when this step runs, in words. Absent: nothing. */
  readonly destroys?: string
  readonly actions: readonly Action[]
}

export interface ChangeStep extends StepBase {
  readonly kind: 'change'
  /** Throws an `OperationError` where the step must not be done at all. */
  check(context: CheckContext): Promise<Check>
}

/** Changes no configuration and runs every time: it proves that what was built works. */
export interface VerifyStep extends StepBase {
  readonly kind: 'verify'
}

export type Step = ChangeStep | VerifyStep

export interface Stage {
  readonly title: string
  readonly tracks: readonly (readonly Step[])[]
}

export type Plan = readonly Stage[]

export const stage = (title: string, ...tracks: (readonly Step[])[]): Stage => ({ title, tracks })

/** What a journal and a preview both say of a step. */
export const aboutStep = ({ id, title, node, kind, destroys }: Step, stageTitle: string) => ({
  id,
  title,
  stage: stageTitle,
  ...(node === undefined ? {} : { node }),
  kind,
  ...(destroys === undefined ? {} : { destroys }),
})

/** The steps in the order in which people read them: stage by stage, track by track. */
export function stepsOf(plan: Plan): Step[] {
  return plan.flatMap(({ tracks }) => tracks.flat())
}
