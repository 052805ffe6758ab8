/**
 * The errors that an operation can end with. Each knows what state things were left in, and what to do next:
 * both go into the operation and are read by a person who was woken up by it.
 */

/** What a failed step left behind. `unknown` is honest: it is a question, answered by looking at the host. */
export type Outcome = 'not_started' | 'failed_clean' | 'failed_partial' | 'unknown'

export interface OperationErrorOptions {
  /** Stable, kebab-case: the last part of the problem's `type`. */
  code: string
  outcome: Outcome
  /** One or two sentences that say what to do. */
  remedy: string
  /** The tail of what the host printed, already redacted. */
  output?: string
  cause?: unknown
}

/** Thrown by steps and by the layers under them, whenever something outside did not do what was asked. */
export class OperationError extends Error {
  readonly code: string
  readonly outcome: Outcome
  readonly remedy: string
  readonly output: string | undefined

  constructor(message: string, options: OperationErrorOptions) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.name = new.target.name
    this.code = options.code
    this.outcome = options.outcome
    this.remedy = options.remedy
    this.output = options.output
  }
}

/** Thrown when an operation stops because it was asked to, at a step boundary or by ending a command. */
export class OperationCancelled extends OperationError {
  constructor(message = 'The operation was cancelled.', outcome: Outcome = 'failed_clean') {
    super(message, {
      code: 'cancelled',
      outcome,
      remedy: 'Nothing more was started. Retry the operation to go on from the step that it stopped at.',
    })
  }

  /** The same of a step that had begun to act: what it has half done is taken up, or removed, by the next try. */
  midStep(): OperationCancelled {
    return new OperationCancelled(this.message, 'failed_partial')
  }
}
