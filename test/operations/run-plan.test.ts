import fc from 'fast-check'
import t from 'tap'
import { OperationCancelled, OperationError } from '../../src/operations/errors.js'
import type { Journal } from '../../src/operations/journal.js'
import type { StepRecord, StepState } from '../../src/operations/operation.js'
import { PlanFailed, type RunContext, runPlan, WorkerGone } from '../../src/operations/run-plan.js'
import {
  type Action,
  type ChangeStep,
  type Check,
  type Plan,
  type Progress,
  type Stage,
  type StepContext,
  stage,
  stepsOf,
  type VerifyStep,
} from '../../src/operations/step.js'

interface MemoryJournal extends Journal {
  records: Map<string, StepRecord>
  order: string[]
  lines: string[]
  progressed: [string, Progress][]
  /** `id state`, in the order in which they were written. */
  history: string[]
  states(): Record<string, StepState>
}

/** The port, kept as its contract says: copies, records of earlier turns kept by `planned`. */
function memoryJournal(earlier: readonly StepRecord[] = []): MemoryJournal {
  const records = new Map(earlier.map(record => [record.id, structuredClone(record)]))
  const journal: MemoryJournal = {
    records,
    order: [],
    lines: [],
    progressed: [],
    history: [],
    async planned(steps) {
      journal.order = steps.map(({ id }) => id)
      for (const step of steps) if (!records.has(step.id)) records.set(step.id, structuredClone(step))
    },
    async read(id) {
      const record = records.get(id)
      return record && structuredClone(record)
    },
    async step(record) {
      records.set(record.id, structuredClone(record))
      journal.history.push(`${record.id} ${record.state}`)
    },
    log: (id, line) => void journal.lines.push(`${id}: ${line}`),
    progress: (id, progress) => void journal.progressed.push([id, progress]),
    states: () => Object.fromEntries([...records].map(([id, { state }]) => [id, state])),
  }
  return journal
}

function contextWith(journal: Journal, change: Partial<RunContext> = {}): RunContext {
  let seconds = 0
  return {
    operationId: 'op_1',
    epoch: 7,
    signal: new AbortController().signal,
    draining: new AbortController().signal,
    journal,
    now: () => new Date(Date.UTC(2026, 0, 1, 0, 0, seconds++)).toISOString(),
    ...change,
  }
}

const action = (text: string, perform: Action['perform'] = async () => undefined): Action => ({
  description: { kind: 'command', text },
  perform,
})

/** A step about a switch that its action turns on. */
function switchStep(id: string, change: Partial<ChangeStep> & { on?: boolean } = {}) {
  const { on = false, ...rest } = change
  const state = { on, performed: 0, checked: 0 }
  const step: ChangeStep = {
    id,
    kind: 'change',
    title: `turn on ${id}`,
    node: 'pg1',
    actions: [
      action(`switch ${id}`, async () => {
        state.performed += 1
        state.on = true
      }),
    ],
    async check(): Promise<Check> {
      state.checked += 1
      return state.on ? { done: true } : { done: false, reason: `${id} is off` }
    },
    ...rest,
  }
  return { step, state }
}

const verifyStep = (id: string, perform: Action['perform'] = async () => undefined): VerifyStep => ({
  id,
  kind: 'verify',
  title: `prove ${id}`,
  actions: [action(`prove ${id}`, perform)],
})

const diskFull = () =>
  new OperationError('The disk is full.', {
    code: 'disk-full',
    outcome: 'failed_partial',
    remedy: 'Free some space.',
    output: 'No space left on device',
  })
const failing = (id: string, error: unknown = diskFull()) =>
  switchStep(id, {
    actions: [
      action(`fail ${id}`, async () => {
        throw error
      }),
    ],
  })

async function failureOfRun(plan: Plan, context: RunContext) {
  const error = await runPlan(plan, context).then(
    () => undefined,
    (error: unknown) => error,
  )
  if (!(error instanceof PlanFailed)) throw new Error(`no PlanFailed but ${error}`)
  return error.failure
}

/** A promise that is opened from outside. */
function gate() {
  let open: () => void = () => undefined
  const opened = new Promise<void>(resolve => {
    open = resolve
  })
  return { open, opened }
}

t.test('what is done already is not done again', async t => {
  const { step, state } = switchStep('a', { on: true })
  const journal = memoryJournal()
  const result = await runPlan([stage('s', [step])], contextWith(journal))
  t.equal(state.performed, 0)
  t.equal(state.checked, 1)
  t.strictSame(journal.history, ['a running', 'a unchanged'])
  t.match(result, { changedSteps: 0, unchangedSteps: 1, verifiedSteps: 0, summary: /Nothing had to be changed/ })
})

t.test('what is not done is done, and checked again', async t => {
  const { step, state } = switchStep('a', { destroys: 'the old one' })
  const journal = memoryJournal()
  const result = await runPlan([stage('s', [step])], contextWith(journal))
  t.equal(state.performed, 1)
  t.equal(state.checked, 2, 'before and after')
  t.strictSame(journal.history, ['a running', 'a changed'])
  t.strictSame(journal.records.get('a'), {
    id: 'a',
    title: 'turn on a',
    stage: 's',
    node: 'pg1',
    kind: 'change',
    destroys: 'the old one',
    state: 'changed',
    startedAt: '2026-01-01T00:00:00.000Z',
    endedAt: '2026-01-01T00:00:01.000Z',
  })
  t.strictSame(journal.lines, ['a: $ switch a'])
  t.match(result, { changedSteps: 1, unchangedSteps: 0, summary: /^1 step changed something, 0 were done already/ })
})

t.test('carried out and still not done is a failure', async t => {
  const step = switchStep('a', { actions: [action('does nothing')] }).step
  const journal = memoryJournal()
  const failure = await failureOfRun([stage('s', [step])], contextWith(journal))
  t.match(failure, {
    code: 'step-not-effective',
    outcome: 'failed_partial',
    detail: /"turn on a" was carried out, but is not done: a is off/,
    step: 'a',
    node: 'pg1',
  })
  t.strictSame(journal.history, ['a running', 'a failed'])
})

t.test('a failure ends its track and the later stages, and lets the track beside it end well', async t => {
  const neighbourMayEnd = gate()
  const first = switchStep('t1/first')
  const bad = failing('t1/bad')
  const never = switchStep('t1/never')
  const slow = switchStep('t2/slow')
  const slowStep = {
    ...slow.step,
    actions: [action('wait', () => neighbourMayEnd.opened), ...slow.step.actions],
  }
  const after = switchStep('t2/after')
  const later = switchStep('later')
  const journal = memoryJournal()
  const originalStep = journal.step
  journal.step = async record => {
    await originalStep(record)
    // The neighbour goes on only after the failure was written down.
    if (record.state === 'failed') neighbourMayEnd.open()
  }
  const failure = await failureOfRun(
    [stage('one', [first.step, bad.step, never.step], [slowStep, after.step]), stage('two', [later.step])],
    contextWith(journal),
  )
  t.strictSame(failure, {
    code: 'disk-full',
    detail: 'The disk is full.',
    outcome: 'failed_partial',
    remedy: 'Free some space.',
    step: 't1/bad',
    node: 'pg1',
    output: 'No space left on device',
  })
  t.strictSame(journal.states(), {
    't1/first': 'changed',
    't1/bad': 'failed',
    't1/never': 'pending',
    't2/slow': 'changed',
    't2/after': 'changed',
    later: 'pending',
  })
  t.match(journal.records.get('t1/bad'), { state: 'failed', note: 'The disk is full.', endedAt: /^2026/ })
  t.equal(never.state.checked + later.state.checked, 0, 'what is not reached is not even looked at')
})

t.test('of several failures the first in reading order is told, whichever came first', async t => {
  const secondFailed = gate()
  const late = switchStep('late', {
    actions: [
      action('wait', async () => {
        await secondFailed.opened
        throw new OperationError('late', { code: 'late', outcome: 'unknown', remedy: '' })
      }),
    ],
  })
  const early = switchStep('early', {
    actions: [
      action('fail', async () => {
        setImmediate(secondFailed.open)
        throw new OperationError('early', { code: 'early', outcome: 'unknown', remedy: '' })
      }),
    ],
  })
  const journal = memoryJournal()
  const failure = await failureOfRun([stage('s', [late.step], [early.step])], contextWith(journal))
  t.equal(failure.code, 'late')
  t.strictSame(journal.history.slice(-2), ['early failed', 'late failed'])
})

t.test('a check that refuses is the step’s failure, and nothing is done', async t => {
  const { step, state } = switchStep('a', {
    async check() {
      throw new OperationError('not mine', { code: 'data-directory-not-empty', outcome: 'not_started', remedy: '' })
    },
  })
  const journal = memoryJournal()
  t.match(await failureOfRun([stage('s', [step])], contextWith(journal)), {
    code: 'data-directory-not-empty',
    outcome: 'not_started',
  })
  t.equal(state.performed, 0)
})

t.test('an error that is none of ours is our fault, and does not pretend to know the host', async t => {
  for (const [thrown, detail] of [
    [new TypeError('x is undefined'), 'x is undefined'],
    ['a string', 'a string'],
  ] as const) {
    const journal = memoryJournal()
    const failure = await failureOfRun([stage('s', [failing('a', thrown).step])], contextWith(journal))
    t.match(failure, { code: 'internal-error', outcome: 'unknown', detail, step: 'a', remedy: /fault of the service/ })
    t.notOk('output' in failure)
  }
})

t.test('proofs run every time, and count when they hold', async t => {
  let proven = 0
  const step = verifyStep('proof', async ({ note, log }) => {
    proven += 1
    log('looked')
    note('read on pg2 after 3 ms')
  })
  const journal = memoryJournal([
    { id: 'proof', title: '', stage: 's', kind: 'verify', state: 'verified', startedAt: '2025-01-01T00:00:00.000Z' },
  ])
  const result = await runPlan([stage('s', [step])], contextWith(journal))
  t.equal(proven, 1)
  t.match(result, { verifiedSteps: 1, changedSteps: 0, summary: /1 proof held/ })
  t.match(journal.records.get('proof'), { state: 'verified', note: 'read on pg2 after 3 ms' })
  t.ok(journal.lines.includes('proof: looked'))
  t.equal(
    (
      await failureOfRun(
        [stage('s', [verifyStep('proof', async () => Promise.reject(diskFull()))])],
        contextWith(journal),
      )
    ).code,
    'disk-full',
  )
})

t.test('notes: what the check found, what the step found, what is so in the end', async t => {
  const both = switchStep('both')
  const step: ChangeStep = {
    ...both.step,
    check: async () => (both.state.on ? { done: true, note: 'version 15.18' } : { done: false, reason: 'off' }),
  }
  const said = switchStep('said')
  const journal = memoryJournal()
  await runPlan(
    [
      stage('s', [
        step,
        { ...said.step, actions: [action('x', async ({ note }) => note('half')), ...said.step.actions] },
        switchStep('done', { check: async () => ({ done: true, note: 'was there' }) }).step,
      ]),
    ],
    contextWith(journal),
  )
  t.equal(journal.records.get('both')?.note, 'version 15.18')
  t.equal(journal.records.get('said')?.note, 'half')
  t.match(journal.records.get('done'), { state: 'unchanged', note: 'was there' })
})

t.test('progress goes to the journal, and the last of it stays with the step', async t => {
  const made = switchStep('clone')
  const journal = memoryJournal()
  const reports = [
    { doneBytes: 10 },
    { doneBytes: 50, totalBytes: 100, percent: 50 },
    { doneBytes: 100, totalBytes: 100, percent: 100 },
  ]
  await runPlan(
    [
      stage('s', [
        {
          ...made.step,
          actions: [
            action('copy', async ({ progress }) => {
              for (const report of reports) progress(report)
            }),
            ...made.step.actions,
          ],
        },
      ]),
    ],
    contextWith(journal),
  )
  t.strictSame(
    journal.progressed,
    reports.map(report => ['clone', report]),
  )
  t.strictSame(journal.records.get('clone')?.progress, reports[2])
})

t.test('a file is announced by its path, never by what is in it', async t => {
  const made = switchStep('a')
  const journal = memoryJournal()
  const file: Action = {
    description: { kind: 'file', path: '/etc/x', owner: 'root:root', mode: '0600', content: 'hunter2' },
    perform: async () => undefined,
  }
  const sql: Action = { description: { kind: 'sql', text: 'SELECT 1' }, perform: async () => undefined }
  await runPlan([stage('s', [{ ...made.step, actions: [file, sql, ...made.step.actions] }])], contextWith(journal))
  t.strictSame(journal.lines, ['a: write /etc/x', 'a: SELECT 1', 'a: $ switch a'])
})

t.test('what an earlier turn began or did stays changed', async t => {
  const record = (id: string, state: StepState): StepRecord => ({
    ...{ id, title: `turn on ${id}`, stage: 's', kind: 'change', state },
    startedAt: '2025-01-01T00:00:00.000Z',
  })
  const journal = memoryJournal([record('did', 'changed'), record('began', 'running'), record('found', 'unchanged')])
  const result = await runPlan(
    [
      stage('s', [
        switchStep('did', { on: true }).step,
        switchStep('began', { on: true }).step,
        switchStep('found', { on: true }).step,
        switchStep('new', { on: true }).step,
        switchStep('rest').step,
      ]),
    ],
    contextWith(journal),
  )
  t.strictSame(journal.states(), {
    did: 'changed',
    began: 'changed',
    found: 'unchanged',
    new: 'unchanged',
    rest: 'changed',
  })
  t.match(result, { changedSteps: 3, unchangedSteps: 2 })
  t.equal(journal.records.get('began')?.startedAt, '2025-01-01T00:00:00.000Z', 'it began when it began')
})

t.test('what an earlier turn began and did not finish is done', async t => {
  const { step, state } = switchStep('a')
  const journal = memoryJournal([{ id: 'a', title: 'a', stage: 's', kind: 'change', state: 'running' }])
  await runPlan([stage('s', [step])], contextWith(journal))
  t.equal(state.performed, 1)
  t.equal(journal.states().a, 'changed')
})

t.test('a cancel ends it at the next boundary', async t => {
  for (const [what, reason] of [
    ['with its reason', new OperationCancelled('Cancelled by ops.')],
    ['without a reason', undefined],
    ['with a reason of somebody else', 'stop it'],
  ] as const) {
    const cancel = new AbortController()
    const second = switchStep('second')
    const first = switchStep('first', {
      actions: [action('one', async () => cancel.abort(reason)), action('two', async () => void t.fail('not reached'))],
    })
    const journal = memoryJournal()
    const failure = await failureOfRun(
      [stage('s', [first.step, second.step])],
      contextWith(journal, { signal: cancel.signal }),
    )
    t.match(failure, { code: 'cancelled', outcome: 'failed_partial', step: 'first' }, what)
    if (reason instanceof OperationCancelled) t.equal(failure.detail, 'Cancelled by ops.')
    t.strictSame(journal.states(), { first: 'failed', second: 'pending' })
    t.equal(second.state.checked, 0)
  }
})

t.test('a cancel before a step has done anything leaves it as not reached', async t => {
  const cancel = new AbortController()
  const first = switchStep('first', {
    actions: [
      action('the only one', async () => {
        first.state.on = true
        cancel.abort(new OperationCancelled('Cancelled by ops.'))
      }),
    ],
  })
  const second = switchStep('second')
  const journal = memoryJournal()
  const failure = await failureOfRun(
    [stage('s', [first.step, second.step])],
    contextWith(journal, { signal: cancel.signal }),
  )
  t.match(failure, { code: 'cancelled', outcome: 'failed_clean', step: 'second' })
  t.strictSame(journal.states(), { first: 'changed', second: 'pending' })

  // A step that a worker before this one had begun is another matter.
  const begun: StepRecord = { id: 'second', title: 'second', stage: 's', kind: 'change', state: 'running' }
  const left = memoryJournal([begun])
  await failureOfRun([stage('s', [second.step])], contextWith(left, { signal: cancel.signal }))
  t.strictSame(left.states(), { second: 'failed' })
})

t.test('of tracks side by side the one that was cut short is told of', async t => {
  const cancel = new AbortController()
  const cut = switchStep('cut', {
    actions: [
      action('wait', async () => {
        cancel.abort(new OperationCancelled())
        throw new Error('ended')
      }),
    ],
  })
  // Its check ends after the cancel.
  const waiting = switchStep('waiting', {
    check: () =>
      new Promise((_, reject) => cancel.signal.addEventListener('abort', () => reject(new Error('looked no further')))),
  })
  const journal = memoryJournal()
  const failure = await failureOfRun(
    [stage('s', [waiting.step], [cut.step])],
    contextWith(journal, { signal: cancel.signal }),
  )
  t.match(failure, { code: 'cancelled', outcome: 'failed_partial', step: 'cut' })
  t.strictSame(journal.states(), { waiting: 'pending', cut: 'failed' })
})

t.test('a step that fails because it was cancelled is cancelled', async t => {
  const cancel = new AbortController()
  const step = switchStep('a', {
    actions: [
      action('wait', async ({ signal }) => {
        cancel.abort(new OperationCancelled())
        signal.throwIfAborted()
        throw new Error('not reached')
      }),
    ],
  }).step
  const failure = await failureOfRun([stage('s', [step])], contextWith(memoryJournal(), { signal: cancel.signal }))
  t.equal(failure.code, 'cancelled')
})

t.test('a worker that stops leaves at the next boundary, and nothing is written down as failed', async t => {
  const draining = new AbortController()
  const first = switchStep('first')
  const interrupted = switchStep('interrupted', {
    actions: [action('one', async () => draining.abort()), action('two', async () => void t.fail('not reached'))],
  })
  const last = switchStep('last')
  const journal = memoryJournal()
  const plan = [stage('s', [first.step, interrupted.step, last.step])]
  await t.rejects(runPlan(plan, contextWith(journal, { draining: draining.signal })), WorkerGone)
  t.strictSame(journal.states(), { first: 'changed', interrupted: 'running', last: 'pending' })

  // The next worker finds the host as it was left.
  first.state.on = true
  await runPlan([stage('s', [first.step, switchStep('interrupted').step, last.step])], contextWith(journal))
  t.strictSame(journal.states(), { first: 'changed', interrupted: 'changed', last: 'changed' })
  t.equal(first.state.performed, 1)
})

t.test('a step in its last action when the worker stops still ends', async t => {
  const draining = new AbortController()
  const made = switchStep('a')
  const journal = memoryJournal()
  await t.rejects(
    runPlan(
      [
        stage('s', [
          {
            ...made.step,
            actions: [action('x', async () => draining.abort())],
            check: async () => (draining.signal.aborted ? { done: true } : { done: false, reason: 'off' }),
          },
          switchStep('b').step,
        ]),
      ],
      contextWith(journal, { draining: draining.signal }),
    ),
    WorkerGone,
  )
  t.strictSame(journal.states(), { a: 'changed', b: 'pending' })
})

t.test('a worker that was replaced writes nothing more, even beside a failure', async t => {
  const replaced = new AbortController()
  const gone = switchStep('gone', {
    actions: [
      action('wait', async () => {
        replaced.abort(new WorkerGone('another worker has taken over'))
        throw new Error('the connection was closed')
      }),
    ],
  })
  const journal = memoryJournal()
  await t.rejects(
    runPlan([stage('s', [failing('bad').step], [gone.step])], contextWith(journal, { signal: replaced.signal })),
    WorkerGone,
    'not the failure of the other track: the operation goes on elsewhere',
  )
  t.equal(journal.states().gone, 'running')
})

t.test('a journal that refuses ends the run with its own error', async t => {
  const journal = memoryJournal()
  journal.step = async () => {
    throw new Error('superseded')
  }
  const { step, state } = switchStep('a')
  await t.rejects(runPlan([stage('s', [step])], contextWith(journal)), { message: 'superseded' })
  t.equal(state.performed, 0, 'nothing is done that cannot be written down')
})

t.test('steps are told whose they are', async t => {
  const made = switchStep('a')
  let seen: StepContext | undefined
  const step = {
    ...made.step,
    actions: [
      action('x', async context => {
        seen = context
      }),
      ...made.step.actions,
    ],
  }
  await runPlan([stage('s', [step])], contextWith(memoryJournal()))
  t.match(seen, { operationId: 'op_1', epoch: 7 })
})

t.test('an empty plan is done', async t => {
  t.match(await runPlan([], contextWith(memoryJournal())), { changedSteps: 0 })
  t.match(await runPlan([stage('s')], contextWith(memoryJournal())), { changedSteps: 0 })
})

/** done: its check says so. works: its actions do it. breaks: its second action throws. useless: they do not do it. */
const kind = fc.constantFrom('done', 'works', 'works', 'works', 'breaks', 'useless', 'proof', 'broken proof')
const shape = fc.array(fc.array(fc.array(kind, { maxLength: 5 }), { maxLength: 4 }), { maxLength: 4 })

t.test('whatever the plan, the rules hold', async () => {
  await fc.assert(
    fc.asyncProperty(shape, fc.infiniteStream(fc.nat(3)), async (stages, delays) => {
      const trace: { step: string; what: 'check' | 'act'; action?: number }[] = []
      const pause = async () => {
        for (let turns = delays.next().value ?? 0; turns > 0; turns -= 1) await new Promise(setImmediate)
      }
      const places = new Map<string, { stage: number; track: number; index: number; kind: string }>()
      const plan: Stage[] = stages.map((tracks, s) => ({
        title: `stage ${s}`,
        tracks: tracks.map((track, r) =>
          track.map((kind, index) => {
            const id = `${s}/${r}/${index}`
            places.set(id, { stage: s, track: r, index, kind })
            let on = kind === 'done'
            const actions = [0, 1].map(number =>
              action(`${id} ${number}`, async () => {
                await pause()
                trace.push({ step: id, what: 'act', action: number })
                if (number === 1 && (kind === 'breaks' || kind === 'broken proof')) throw diskFull()
                if (number === 1 && kind === 'works') on = true
              }),
            )
            if (kind === 'proof' || kind === 'broken proof') return { id, kind: 'verify', title: id, actions } as const
            return {
              id,
              kind: 'change',
              title: id,
              actions,
              async check() {
                await pause()
                trace.push({ step: id, what: 'check' })
                return on ? { done: true } : { done: false, reason: 'off' }
              },
            } as const
          }),
        ),
      }))
      const journal = memoryJournal()
      const failed = await runPlan(plan, contextWith(journal)).then(
        () => undefined,
        error => {
          if (error instanceof PlanFailed) return error.failure
          throw error
        },
      )
      const ends = (id: string) => ['done', 'works', 'proof'].includes(places.get(id)?.kind ?? '')
      const ids = stepsOf(plan).map(({ id }) => id)
      const firstBad = ids.find(id => !ends(id))
      const lastStage = firstBad === undefined ? stages.length : (places.get(firstBad)?.stage ?? 0)
      const check = (holds: boolean, rule: string) => {
        if (!holds) throw new Error(`${rule}\n${JSON.stringify({ stages, trace, states: journal.states() })}`)
      }

      check(journal.order.join() === ids.join(), 'the journal has the steps in reading order')
      check(failed?.step === (firstBad === undefined ? undefined : firstBadReached()), 'the first failure is told')
      for (const [id, { stage, track, index, kind }] of places) {
        const before = ids.filter(other => {
          const place = places.get(other)
          return place?.stage === stage && place.track === track && place.index < index
        })
        const reached = stage <= lastStage && before.every(ends)
        const acts = trace.filter(({ step, what }) => step === id && what === 'act').map(({ action }) => action)
        const wanted = !reached
          ? 'pending'
          : kind === 'done'
            ? 'unchanged'
            : kind === 'works'
              ? 'changed'
              : kind === 'proof'
                ? 'verified'
                : 'failed'
        check(journal.states()[id] === wanted, `${id} is ${wanted}`)
        check(acts.join() === (reached && kind !== 'done' ? '0,1' : ''), `${id} acts once and in order, or not at all`)
        if (!reached) check(!trace.some(({ step }) => step === id), `${id} is left alone`)
      }
      const order = trace.map(({ step }) => places.get(step)) as { stage: number; track: number; index: number }[]
      check(
        order.every((place, at) => at === 0 || place.stage >= (order[at - 1]?.stage ?? 0)),
        'no stage begins before the one before it has ended',
      )
      for (const { stage, track } of places.values()) {
        const mine = order.filter(place => place.stage === stage && place.track === track).map(({ index }) => index)
        check(
          mine.every((index, at) => at === 0 || index >= (mine[at - 1] ?? 0)),
          'a track goes step by step',
        )
      }

      function firstBadReached() {
        return ids.find(id => !ends(id) && places.get(id)?.stage === lastStage)
      }
    }),
    { numRuns: 1500 },
  )
})
