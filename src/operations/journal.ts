/** Where a running operation writes what happened. The store has the real one; it refuses a superseded worker. */
import type { StepRecord } from './operation.js'
import type { Progress } from './step.js'

export interface Journal {
  /** Lays down the steps of the plan; the records of an earlier turn with the same id are kept. */
  planned(steps: readonly StepRecord[]): Promise<void>
  /** What an earlier turn, or this one, wrote of a step. */
  read(stepId: string): Promise<StepRecord | undefined>
  step(record: StepRecord): Promise<void>
  /** Lines and progress are best effort: an operation does not fail because a line could not be kept. */
  log(stepId: string, line: string): void
  progress(stepId: string, progress: Progress): void
}
