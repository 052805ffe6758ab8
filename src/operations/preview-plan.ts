/** What a plan would do, without doing it: each step's check is run, no action is. */
import type { OperationType, PlannedStep, PlanPreview } from './operation.js'
import { aboutStep, type CheckContext, type Plan, type Step } from './step.js'

/**
 * Checks run in order within a track; once a step would run, the checks behind it look at a host that is not yet what
 * they expect, so what they cannot answer counts as "would run" and their error is not the caller's.
 */
export async function previewPlan(
  plan: Plan,
  about: { operation: OperationType; cluster: string },
  context: CheckContext,
): Promise<Omit<PlanPreview, 'planId'>> {
  const steps: PlannedStep[] = []
  let pending = false
  for (const { title, tracks } of plan) {
    const previews = await Promise.all(tracks.map(track => previewTrack(track, title, pending, context)))
    steps.push(...previews.flat())
    pending ||= previews.flat().some(({ verdict }) => verdict === 'would_run')
  }
  return { ...about, steps, stepsThatWouldRun: steps.filter(({ verdict }) => verdict === 'would_run').length }
}

async function previewTrack(track: readonly Step[], stage: string, pendingBefore: boolean, context: CheckContext) {
  const previews: PlannedStep[] = []
  let pending = pendingBefore
  for (const step of track) {
    const verdict = await verdictOn(step, pending, context)
    pending ||= verdict.verdict === 'would_run'
    previews.push({
      ...aboutStep(step, stage),
      ...verdict,
      actions: step.actions.map(({ description }) => description),
    })
  }
  return previews
}

async function verdictOn(
  step: Step,
  pending: boolean,
  context: CheckContext,
): Promise<Pick<PlannedStep, 'verdict' | 'reason'>> {
  if (step.kind === 'verify') return { verdict: 'would_verify' }
  try {
    const found = await step.check(context)
    if (found.done) return { verdict: 'already_done', ...(found.note === undefined ? {} : { reason: found.note }) }
    return { verdict: 'would_run', reason: found.reason }
  } catch (error) {
    if (!pending) throw error
    return { verdict: 'would_run', reason: 'depends on the steps before it' }
  }
}
