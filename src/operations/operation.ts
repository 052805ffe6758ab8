/** The record of an operation: what the store keeps and what the API shows, one shape. */
import { type Static, Type } from 'typebox'

export const OperationType = Type.Enum(['bootstrap-cluster', 'add-standby'])
export type OperationType = Static<typeof OperationType>

/** `op_` and a ULID: ids sort by their time of creation. */
export const OperationId = Type.String({
  pattern: '^op_[0-9A-HJKMNP-TV-Z]{26}$',
  examples: ['op_01KAR3QJ7ZC0V7W0M2E9T1X5YB'],
})

export const OperationState = Type.Enum(['queued', 'running', 'interrupted', 'succeeded', 'failed', 'cancelled'], {
  description:
    'queued: waits for a worker. interrupted: its worker is gone; another one looks at the hosts and goes on. ' +
    'succeeded, failed and cancelled are final.',
})
export type OperationState = Static<typeof OperationState>

export const isFinal = (state: OperationState) => state === 'succeeded' || state === 'failed' || state === 'cancelled'

export const StepState = Type.Enum(
  ['pending', 'running', 'unchanged', 'changed', 'verified', 'failed', 'not_reached'],
  {
    description:
      'unchanged: its check found it done. changed: it was carried out, and its check confirmed it. verified: a proof that held.',
  },
)
export type StepState = Static<typeof StepState>

export const ActionRecord = Type.Union([
  Type.Object({ kind: Type.Literal('command'), text: Type.String() }, { additionalProperties: false }),
  Type.Object(
    {
      kind: Type.Literal('file'),
      path: Type.String(),
      owner: Type.String(),
      mode: Type.String(),
      content: Type.String(),
    },
    { additionalProperties: false },
  ),
  Type.Object({ kind: Type.Literal('sql'), text: Type.String() }, { additionalProperties: false }),
  Type.Object({ kind: Type.Literal('wait'), text: Type.String() }, { additionalProperties: false }),
])

export const StepProgress = Type.Object(
  {
    doneBytes: Type.Integer(),
    totalBytes: Type.Optional(Type.Integer()),
    percent: Type.Optional(Type.Number({ minimum: 0, maximum: 100 })),
  },
  { additionalProperties: false },
)

export const StepRecord = Type.Object(
  {
    id: Type.String(),
    title: Type.String(),
    stage: Type.String(),
    node: Type.Optional(Type.String()),
    kind: Type.Enum(['change', 'verify']),
    destroys: Type.Optional(Type.String()),
    state: StepState,
    note: Type.Optional(Type.String({ description: 'What the check found.' })),
    startedAt: Type.Optional(Type.String({ format: 'date-time' })),
    endedAt: Type.Optional(Type.String({ format: 'date-time' })),
    progress: Type.Optional(StepProgress),
  },
  { additionalProperties: false, title: 'A step in the journal' },
)
export type StepRecord = Static<typeof StepRecord>

export const OperationFailure = Type.Object(
  {
    code: Type.String({ examples: ['host-unreachable'] }),
    detail: Type.String(),
    outcome: Type.Enum(['not_started', 'failed_clean', 'failed_partial', 'unknown'], {
      description:
        'What was left behind. not_started: nothing was touched. failed_clean: the failed step left nothing half-done. ' +
        'failed_partial: something is half-done and is taken up by the next try. unknown: the host could not say.',
    }),
    remedy: Type.String({ description: 'What to do.' }),
    step: Type.Optional(Type.String()),
    node: Type.Optional(Type.String()),
    output: Type.Optional(Type.String({ description: 'The end of what the host printed, without secrets.' })),
  },
  { additionalProperties: false, title: 'Why an operation failed, and what to do' },
)
export type OperationFailure = Static<typeof OperationFailure>

export const OperationResult = Type.Object(
  {
    summary: Type.String(),
    changedSteps: Type.Integer(),
    unchangedSteps: Type.Integer(),
    verifiedSteps: Type.Integer(),
  },
  { additionalProperties: false },
)
export type OperationResult = Static<typeof OperationResult>

export const Operation = Type.Object(
  {
    id: OperationId,
    type: OperationType,
    cluster: Type.String(),
    node: Type.Optional(Type.String({ description: 'The node that it is about, where it is about one.' })),
    state: OperationState,
    requestedBy: Type.String({ description: 'Name of the token that asked for it.' }),
    createdAt: Type.String({ format: 'date-time' }),
    startedAt: Type.Optional(Type.String({ format: 'date-time' })),
    endedAt: Type.Optional(Type.String({ format: 'date-time' })),
    turns: Type.Integer({ description: 'How many workers have taken it up: more than 1 after an interruption.' }),
    steps: Type.Array(StepRecord),
    result: Type.Optional(OperationResult),
    error: Type.Optional(OperationFailure),
  },
  { additionalProperties: false, $id: 'Operation', title: 'An operation' },
)
export type Operation = Static<typeof Operation>

export const PlannedStep = Type.Object(
  {
    id: Type.String(),
    title: Type.String(),
    stage: Type.String(),
    node: Type.Optional(Type.String()),
    kind: Type.Enum(['change', 'verify']),
    destroys: Type.Optional(Type.String()),
    verdict: Type.Enum(['would_run', 'already_done', 'would_verify'], {
      description: 'What the check found on the host just now. A proof changes nothing and runs every time.',
    }),
    reason: Type.Optional(Type.String()),
    actions: Type.Array(ActionRecord, {
      description: 'Exactly what would run or be written; secrets go over standard input.',
    }),
  },
  { additionalProperties: false, title: 'A step as it would run' },
)
export type PlannedStep = Static<typeof PlannedStep>

export const PlanPreview = Type.Object(
  {
    operation: OperationType,
    cluster: Type.String(),
    steps: Type.Array(PlannedStep),
    stepsThatWouldRun: Type.Integer(),
  },
  { additionalProperties: false, $id: 'PlanPreview', title: 'What an operation would do' },
)
export type PlanPreview = Static<typeof PlanPreview>
