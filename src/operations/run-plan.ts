/** Runs a plan: checks, acts, checks again, and writes down each step. Knows nothing of what the steps are about. */
import { drillWords } from './drill-report.js'
import { OperationCancelled, OperationError } from './errors.js'
import type { Journal } from './journal.js'
import type { OperationFailure, OperationResult, StepRecord } from './operation.js'
import { type ActionDescription, aboutStep, type Plan, type Step, type StepContext, stepsOf } from './step.js'

export interface RunContext {
  operationId: string
  epoch: number
  signal: AbortSignal
  draining: AbortSignal
  journal: Journal
  now(): string
}

/**
 * Thrown when this worker must let go of the operation while the operation itself goes on elsewhere: it is stopping, or
 * another worker has taken over. Nothing is written down as failed.
 */
export class WorkerGone extends Error {
  constructor(reason: string) {
    super(reason)
    this.name = 'WorkerGone'
  }
}

/** Thrown when a step failed. Carries what goes into the operation's record. */
export class PlanFailed extends Error {
  constructor(readonly failure: OperationFailure) {
    super(failure.detail)
    this.name = 'PlanFailed'
  }
}

/** Thrown when a step was carried out without an error, and its check still says that it is not done. */
export class StepNotEffective extends OperationError {
  constructor(step: Step, reason: string) {
    super(`"${step.title}" was carried out, but is not done: ${reason}`, {
      code: 'step-not-effective',
      outcome: 'failed_partial',
      remedy: 'Look at the operation’s log for what the host printed. Repeat the call to try the step again.',
    })
  }
}

/** Thrown when an action was refused after others of its step were carried out. */
class StepHalfDone extends OperationError {
  constructor(cause: OperationError) {
    const { code, remedy, output } = cause
    super(cause.message, {
      code,
      outcome: 'failed_partial',
      remedy,
      cause,
      ...(output === undefined ? {} : { output }),
    })
  }
}

/** Runs all stages. Throws `PlanFailed`, with the first failure in reading order. */
export async function runPlan(plan: Plan, context: RunContext): Promise<OperationResult> {
  await context.journal.planned(
    plan.flatMap(({ title, tracks }) => tracks.flat().map(step => pendingRecord(step, title))),
  )
  for (const { tracks, title } of plan) {
    // A failed track does not end its neighbours: a clone of hours is not thrown away because another host is full.
    const ended = await Promise.allSettled(tracks.map(track => runTrack(track, title, context)))
    const failed = worst(ended.filter(result => result.status === 'rejected'))
    const gone = ended.find(result => result.status === 'rejected' && result.reason instanceof WorkerGone)
    if (gone?.status === 'rejected') throw gone.reason
    if (failed) throw failed.reason
  }
  return summarise(plan, context)
}

/** The first in reading order; of a cancelled plan one whose step was cut short, where there is one. */
const worst = (failed: readonly PromiseRejectedResult[]) =>
  failed.find(
    ({ reason }) =>
      reason instanceof PlanFailed &&
      reason.failure.code === 'cancelled' &&
      reason.failure.outcome === 'failed_partial',
  ) ?? failed[0]

const pendingRecord = (step: Step, stage: string): StepRecord => ({ ...aboutStep(step, stage), state: 'pending' })

async function runTrack(track: readonly Step[], stage: string, context: RunContext): Promise<void> {
  for (const step of track) await runStep(step, stage, context)
}

async function runStep(step: Step, stage: string, context: RunContext): Promise<void> {
  const { journal, now } = context
  const earlier = await journal.read(step.id)
  const record: StepRecord = { ...pendingRecord(step, stage), state: 'running', startedAt: earlier?.startedAt ?? now() }
  const stepContext: StepContext = {
    operationId: context.operationId,
    epoch: context.epoch,
    signal: context.signal,
    draining: context.draining,
    log: line => journal.log(step.id, line),
    progress: progress => {
      record.progress = progress
      journal.progress(step.id, progress)
    },
    note: text => {
      record.note = text
    },
    decide: decision => {
      record.decision = decision
    },
    report: drill => {
      record.drill = drill
    },
  }
  let acting = false
  try {
    stopIfAsked(context)
    await journal.step({ ...record })
    record.state = await carryOut(step, stepContext, earlier, () => {
      acting = true
    })
    await journal.step({ ...record, endedAt: now() })
  } catch (error) {
    const reason = context.signal.aborted ? reasonToStop(context.signal, acting) : error
    if (reason instanceof WorkerGone) throw reason
    const failure = failureOf(reason, step)
    // Called off before it did anything: it was not reached, and has not failed.
    const untouched = reason instanceof OperationCancelled && !acting && earlier?.state !== 'running'
    if (untouched) await journal.step(earlier ?? pendingRecord(step, stage))
    else await journal.step({ ...record, state: 'failed', note: failure.detail, endedAt: now() })
    throw new PlanFailed(failure)
  }
}

/** Looks, acts, looks again. `onAct` is called before each action. Returns what has become of the step. */
export async function carryOut(
  step: Step,
  context: StepContext,
  earlier?: StepRecord,
  onAct: () => void = () => undefined,
): Promise<StepRecord['state']> {
  if (step.kind === 'change') {
    const before = await step.check(context)
    if (before.note !== undefined) context.note(before.note)
    // What an earlier turn of this operation began or did stays "changed", though this turn finds it done.
    if (before.done) return earlier?.state === 'changed' || earlier?.state === 'running' ? 'changed' : 'unchanged'
  }
  for (const [index, action] of step.actions.entries()) {
    stopIfAsked(context)
    context.log(announce(action.description))
    onAct()
    try {
      await action.perform(context)
    } catch (error) {
      // An action that did not start says nothing of those before it.
      if (index > 0 && error instanceof OperationError && error.outcome === 'not_started') throw new StepHalfDone(error)
      throw error
    }
  }
  if (step.kind === 'verify') return 'verified'
  const after = await step.check(context)
  if (!after.done) throw new StepNotEffective(step, after.reason)
  if (after.note !== undefined) context.note(after.note)
  return 'changed'
}

function announce(description: ActionDescription): string {
  if (description.kind === 'file') return `write ${description.path}`
  return description.kind === 'command' ? `$ ${description.text}` : description.text
}

function stopIfAsked({ signal, draining }: Pick<StepContext, 'signal' | 'draining'>): void {
  if (signal.aborted) throw reasonToStop(signal)
  if (draining.aborted) throw new WorkerGone('the worker is stopping')
}

/** A bare `abort()` gives an AbortError of the platform as its reason: to us that is a cancel, and no fault of ours. */
function reasonToStop({ reason }: AbortSignal, acting = false): Error {
  if (reason instanceof WorkerGone) return reason
  if (reason instanceof OperationError && !(reason instanceof OperationCancelled)) return reason
  const cancelled = reason instanceof OperationCancelled ? reason : new OperationCancelled()
  return acting ? cancelled.midStep() : cancelled
}

/** What goes into the record. A plain error is our own fault, and says so instead of pretending to know the host. */
export function failureOf(error: unknown, step?: Step): OperationFailure {
  const place = { ...(step ? { step: step.id } : {}), ...(step?.node === undefined ? {} : { node: step.node }) }
  if (error instanceof OperationError) {
    return {
      code: error.code,
      detail: error.message,
      outcome: error.outcome,
      remedy: error.remedy,
      ...place,
      ...(error.output === undefined || error.output === '' ? {} : { output: error.output }),
    }
  }
  return {
    code: 'internal-error',
    detail: error instanceof Error ? error.message : String(error),
    outcome: 'unknown',
    remedy:
      'This is a fault of the service. Look at its log, then repeat the call: every step looks at the host first.',
    ...place,
  }
}

const summarise = async (plan: Plan, { journal }: RunContext): Promise<OperationResult> =>
  summaryOf(await Promise.all(stepsOf(plan).map(({ id }) => journal.read(id))))

/** What a plan that was carried out has come to. */
export function summaryOf(records: readonly (StepRecord | undefined)[]): OperationResult {
  const count = (state: StepRecord['state']) => records.filter(record => record?.state === state).length
  const changedSteps = count('changed')
  const verifiedSteps = count('verified')
  const proofs = verifiedSteps === 1 ? '1 proof held' : `${verifiedSteps} proofs held`
  const summary =
    changedSteps === 0
      ? `Nothing had to be changed; ${proofs}.`
      : `${changedSteps} ${changedSteps === 1 ? 'step' : 'steps'} changed something, ${count('unchanged')} were done already, ${proofs}.`
  const drill = records.find(record => record?.drill !== undefined)?.drill
  return {
    summary: drill === undefined ? summary : `${drillWords(drill)} ${summary}`,
    changedSteps,
    unchangedSteps: count('unchanged'),
    verifiedSteps,
    ...(drill === undefined ? {} : { drill }),
  }
}
