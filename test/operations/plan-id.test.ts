import t from 'tap'
import type { PlannedStep } from '../../src/operations/operation.js'
import { isPlanOf, planIdOf, stepsUnlike, subjectOfPlan } from '../../src/operations/plan-id.js'

const subject = subjectOfPlan({ type: 'bootstrap-cluster', cluster: { name: 'orders' }, input: {} })
const step = (id: string, more: Partial<PlannedStep> = {}): PlannedStep => ({
  id,
  title: `do ${id}`,
  stage: 'prepare the hosts',
  node: 'pg1',
  kind: 'change',
  verdict: 'already_done',
  actions: [{ kind: 'command', text: `make ${id}` }],
  ...more,
})
const IDS = ['pg1/packages', 'pg1/server', 'pg1/settings', 'pg1/start']
const steps = IDS.map(id => step(id))
const shown = planIdOf(subject, steps)
const but = (at: number, more: Partial<PlannedStep>) =>
  steps.map((one, index) => (index === at ? { ...one, ...more } : one))
const names = (unlike: readonly PlannedStep[]) => unlike.map(({ id }) => id)

t.test('words of a plan do not count', async t => {
  t.equal(planIdOf(subject, but(1, { reason: 'system identifier 7', title: 'make it', stage: 'first' })), shown)
  t.ok(isPlanOf(shown, subject))
  t.notOk(isPlanOf(shown, subjectOfPlan({ type: 'bootstrap-cluster', cluster: { name: 'other' }, input: {} })))
})

t.test('what would be done counts, and is named', async t => {
  const differences: Record<string, Partial<PlannedStep>> = {
    verdict: { verdict: 'would_run', reason: 'it is missing' },
    'an action': { actions: [{ kind: 'command', text: 'make something else' }] },
    'a loss': { destroys: 'everything' },
  }
  for (const [what, more] of Object.entries(differences)) {
    const now = but(2, more)
    t.not(planIdOf(subject, now), shown, what)
    t.same(names(stepsUnlike(shown, now)), ['pg1/settings'], what)
  }
  t.not(planIdOf(subject, [...steps].reverse()), shown, 'the order')
})

t.test('plans with more or fewer steps', async t => {
  const [first, ...others] = steps
  if (!first) throw new Error('no steps')
  t.same(names(stepsUnlike(shown, [first, step('pg1/hold'), ...others])), ['pg1/hold'])
  t.same(names(stepsUnlike(shown, [...steps, step('pg2/clone')])), ['pg2/clone'])
  const without = [first, ...others.slice(1)]
  t.not(planIdOf(subject, without), shown)
  t.same(stepsUnlike(shown, without), [], 'one that is gone cannot be named')
})
