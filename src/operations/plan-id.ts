/** A name that stands for exactly one plan, made of what it consists of: nothing has to be kept to know it again. */
import { createHash } from 'node:crypto'
import { canonicalJson } from '../canonical-json.js'
import type { PlannedStep } from './operation.js'

const hash = (value: unknown) => createHash('sha256').update(canonicalJson(value))

const digest = (value: unknown, length: number) => hash(value).digest('hex').slice(0, length)

/** Of what is asked for, of which cluster: known before anybody has looked at a host. `plan_` and sixteen digits. */
export const subjectOfPlan = (wanted: { type: string; cluster: object; input: unknown }) => `plan_${digest(wanted, 16)}`

/**
 * What would be done, and nothing else: what a check found in words, and what a step is called, may differ from one look
 * to the next and change nothing on a host.
 */
const deedOf = ({ id, verdict, destroys, actions }: PlannedStep) => ({
  id,
  verdict,
  actions,
  ...(destroys === undefined ? {} : { destroys }),
})

/** One character a step. They only tell where two plans differ; that they do is told by the digest before them. */
const marksOf = (steps: readonly PlannedStep[]) =>
  steps.map(step => hash(deedOf(step)).digest('base64url').charAt(0)).join('')

/** The subject, what would be done on the hosts, and a mark of each step. */
export const planIdOf = (subject: string, steps: readonly PlannedStep[]) =>
  `${subject}_${digest(steps.map(deedOf), 32)}_${marksOf(steps)}`

/** Whether a plan's id is one of this subject. */
export const isPlanOf = (planId: string, subject: string) => planId.startsWith(`${subject}_`)

/**
 * Those of `steps` that are not as they were in the plan with that id. Of plans with another number of steps: what
 * stands between their common beginning and their common end. Empty where only the mark of a step is by chance the same,
 * or where steps are gone.
 */
export function stepsUnlike(planId: string, steps: readonly PlannedStep[]): PlannedStep[] {
  const [then = ''] = /(?<=^plan_[0-9a-f]{16}_[0-9a-f]{32}_).*$/.exec(planId) ?? []
  const now = marksOf(steps)
  if (then.length === now.length) return steps.filter((_, at) => then[at] !== now[at])
  const shorter = Math.min(then.length, now.length)
  let before = 0
  while (before < shorter && then[before] === now[before]) before += 1
  let behind = 0
  while (behind < shorter - before && then.at(-1 - behind) === now.at(-1 - behind)) behind += 1
  return steps.slice(before, now.length - behind)
}
