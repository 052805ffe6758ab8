/** A plan that was shown is carried out as it was shown, or not at all. */
import type { WantedOperation } from '../src/cluster/operation-inputs.js'
import { OperationError } from '../src/operations/errors.js'
import type { PlannedStep, PlanPreview } from '../src/operations/operation.js'
import { isPlanOf, planIdOf, stepsUnlike, subjectOfPlan } from '../src/operations/plan-id.js'
import { previewPlan } from '../src/operations/preview-plan.js'
import { type PlannedOperation, targetOf } from './plan-operation.js'

/** Thrown before the first step where the plan is not any more the one that its caller has seen. */
export class PlanChanged extends OperationError {
  constructor(operation: string, cluster: string, difference: string) {
    super(`The plan of ${operation} of ${cluster} is not the one any more that planId stands for: ${difference}.`, {
      code: 'plan-changed',
      outcome: 'not_started',
      remedy:
        'Somebody has changed the cluster, its hosts or the request since. Make a new plan with ?dryRun=true, read it, and repeat the call with its planId.',
    })
  }
}

/** When the record was made, how often it was written, what has been begun, and pauses, say nothing of what it holds. */
export function subjectOf(wanted: WantedOperation): string {
  const {
    version: _version,
    createdAt: _createdAt,
    handover: _handover,
    promotion: _promotion,
    pause: _pause,
    repmgrd: _repmgrd,
    ...cluster
  } = targetOf(wanted)
  return subjectOfPlan({ type: wanted.type, cluster, input: wanted.input })
}

/** Looks at each step and changes nothing. */
export async function showPlan(
  wanted: WantedOperation,
  { plan }: PlannedOperation,
  signal: AbortSignal,
): Promise<PlanPreview> {
  const about = { operation: wanted.type, cluster: wanted.cluster.name }
  const preview = await previewPlan(plan, about, { signal, log: () => undefined })
  return { planId: planIdOf(subjectOf(wanted), preview.steps), ...preview }
}

/** Throws PlanChanged. Asks no host. */
export function refuseOtherSubject(planId: string, wanted: WantedOperation): void {
  if (isPlanOf(planId, subjectOf(wanted))) return
  throw new PlanChanged(wanted.type, wanted.cluster.name, 'the request or the record of the cluster is another one')
}

/** Throws PlanChanged. */
export async function refuseOtherPlan(
  planId: string,
  wanted: WantedOperation,
  planned: PlannedOperation,
  signal: AbortSignal,
): Promise<void> {
  refuseOtherSubject(planId, wanted)
  const now = await showPlan(wanted, planned, signal)
  if (now.planId === planId) return
  throw new PlanChanged(wanted.type, wanted.cluster.name, differenceOf(stepsUnlike(planId, now.steps)))
}

/** As many as a person reads; the new dry run has them all. */
const STEPS_NAMED = 5

const WORDS: Record<PlannedStep['verdict'], string> = {
  already_done: 'is done already',
  would_run: 'would run',
  would_verify: 'would prove it',
}

function differenceOf(unlike: readonly PlannedStep[]): string {
  if (unlike.length === 0) return 'steps of it are gone, or would do something else'
  const named = unlike
    .slice(0, STEPS_NAMED)
    .map(({ id, verdict, reason }) => `${id} now ${WORDS[verdict]}${reason === undefined ? '' : ` (${reason})`}`)
  const more = unlike.length - named.length
  return `${named.join('; ')}${more > 0 ? `; and ${more} more` : ''}`
}
