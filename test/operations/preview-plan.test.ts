import t from 'tap'
import { OperationError } from '../../src/operations/errors.js'
import { previewPlan } from '../../src/operations/preview-plan.js'
import { type Action, type ChangeStep, type Check, stage, type VerifyStep } from '../../src/operations/step.js'

const about = { operation: 'bootstrap-cluster', cluster: 'orders' } as const
const context = { signal: new AbortController().signal, log: () => undefined }
const performed: string[] = []
const act = (text: string): Action => ({
  description: { kind: 'command', text },
  perform: async () => void performed.push(text),
})
const step = (id: string, check: () => Promise<Check>, change: Partial<ChangeStep> = {}): ChangeStep => ({
  ...{ id, kind: 'change', title: `title of ${id}`, actions: [act(`do ${id}`)], check },
  ...change,
})
const done = (id: string, note?: string) => step(id, async () => ({ done: true, ...(note ? { note } : {}) }))
const open = (id: string) => step(id, async () => ({ done: false, reason: `${id} is missing` }))
const refuses = (id: string) =>
  step(id, async () => {
    throw new OperationError(`${id} cannot be asked`, {
      code: 'server-unreachable',
      outcome: 'not_started',
      remedy: '',
    })
  })
const proof: VerifyStep = { id: 'proof', kind: 'verify', title: 'prove it', actions: [act('prove')] }

t.test('each step says what it would do, and why', async t => {
  const preview = await previewPlan(
    [
      stage('one', [
        done('a', 'version 15'),
        step('b', async () => ({ done: false, reason: 'b is missing' }), { node: 'pg1', destroys: 'b' }),
      ]),
      stage('two', [done('c'), proof]),
    ],
    about,
    context,
  )
  t.strictSame(preview, {
    ...about,
    steps: [
      {
        ...{
          id: 'a',
          title: 'title of a',
          stage: 'one',
          kind: 'change',
          verdict: 'already_done',
          reason: 'version 15',
        },
        actions: [{ kind: 'command', text: 'do a' }],
      },
      {
        ...{ id: 'b', title: 'title of b', stage: 'one', node: 'pg1', kind: 'change', destroys: 'b' },
        ...{ verdict: 'would_run', reason: 'b is missing', actions: [{ kind: 'command', text: 'do b' }] },
      },
      {
        ...{ id: 'c', title: 'title of c', stage: 'two', kind: 'change', verdict: 'already_done' },
        actions: [{ kind: 'command', text: 'do c' }],
      },
      {
        ...{ id: 'proof', title: 'prove it', stage: 'two', kind: 'verify', verdict: 'would_verify' },
        actions: [{ kind: 'command', text: 'prove' }],
      },
    ],
    stepsThatWouldRun: 1,
  })
})

t.test('behind a step that would run, a check that cannot be answered counts as would run', async t => {
  const inTrack = await previewPlan([stage('one', [open('a'), refuses('b')])], about, context)
  t.match(inTrack.steps[1], { verdict: 'would_run', reason: 'depends on the steps before it' })
  const nextStage = await previewPlan(
    [stage('one', [open('a')], [done('x')]), stage('two', [refuses('b')])],
    about,
    context,
  )
  t.match(nextStage.steps[2], { verdict: 'would_run', reason: 'depends on the steps before it' })
  t.equal(nextStage.stepsThatWouldRun, 2)
})

t.test('where nothing before it would run, the error is the caller’s', async t => {
  await t.rejects(previewPlan([stage('one', [done('a'), refuses('b')])], about, context), {
    code: 'server-unreachable',
  })
  await t.rejects(
    previewPlan([stage('one', [open('a')], [refuses('b')])], about, context),
    { code: 'server-unreachable' },
    'a track beside it does not excuse it: they run side by side',
  )
  await t.rejects(previewPlan([stage('one', [proof]), stage('two', [refuses('b')])], about, context), {
    code: 'server-unreachable',
  })
})

t.test('an empty plan', async t => {
  t.strictSame(await previewPlan([], about, context), { ...about, steps: [], stepsThatWouldRun: 0 })
})

t.test('none of them has done anything', async t => {
  t.strictSame(performed, [])
})
