/**
 * The record of an operation: what the store keeps and what the API shows, one shape. A schema's `title` is its name in
 * the published contract.
 */
import { type Static, Type } from 'typebox'
import { Decision } from './decision.js'
import { DrillReport } from './drill-report.js'

/** Each kind of operation, and what it does in a few words. */
const OPERATIONS = {
  'bootstrap-cluster': 'bare hosts become a running cluster',
  'apply-cluster': 'a cluster becomes what its description says',
  'add-standby': 'a bare host becomes one more standby',
  'change-settings': 'settings of PostgreSQL change, with the restarts that they need',
  'change-archive': 'a running cluster archives its WAL otherwise',
  'change-access': 'who may come in over the network is changed on every node',
  'change-tls': 'the servers of a running cluster speak TLS, or do not any more',
  'add-witness': 'a bare host becomes the witness of a cluster',
  'provision-node': 'a bare host becomes a configured server that was never started',
  'clone-node': 'a copy of the primary comes into the data directory',
  'start-node': 'the server is started',
  'stop-node': 'the server is stopped',
  'restart-node': 'the server is stopped and started',
  'rejoin-node': 'an old primary, or a standby that went astray, becomes a standby of the primary again',
  'rebuild-node': 'a node becomes a standby of the primary again, by the method that was asked for',
  'register-node': 'repmgr gets to know the node',
  'unregister-node': 'repmgr forgets the node',
  'follow-node': 'a running standby streams from another node',
  'rotate-credentials': 'the role repmgr gets a new password',
  'remove-node': 'a standby leaves the cluster',
  'destroy-cluster': 'the servers of a cluster are wiped, and it is forgotten',
  switchover: 'a standby and the primary exchange their roles',
  promote: 'a standby becomes the primary in place of one that is lost',
  drill: 'a switchover or a failover is rehearsed while a client writes',
  'restart-cluster': 'every server is started again, one after the other, the primary by an exchange of roles',
  'upgrade-cluster':
    'every server gets another minor version, one after the other, the primary by an exchange of roles',
  'verify-replication': 'what is written on the primary is read on every standby',
} as const

export const OperationType = Type.Enum(Object.keys(OPERATIONS) as (keyof typeof OPERATIONS)[], {
  title: 'OperationType',
  description: Object.entries(OPERATIONS)
    .map(([type, what]) => `${type}: ${what}.`)
    .join(' '),
})
export type OperationType = Static<typeof OperationType>

/** `op_` and a ULID: ids sort by their time of creation. */
export const OperationId = Type.String({
  pattern: '^op_[0-9A-HJKMNP-TV-Z]{26}$',
  description: '`op_` and a ULID: ids sort by their time of creation.',
  examples: ['op_01KAR3QJ7ZC0V7W0M2E9T1X5YB'],
})

export const OperationState = Type.Enum(['queued', 'running', 'interrupted', 'succeeded', 'failed', 'cancelled'], {
  title: 'OperationState',
  description:
    'queued: waits for a worker. interrupted: its worker is gone; another one looks at the hosts and goes on. ' +
    'succeeded, failed and cancelled are final.',
})
export type OperationState = Static<typeof OperationState>

export const isFinal = (state: OperationState) => state === 'succeeded' || state === 'failed' || state === 'cancelled'

export const StepState = Type.Enum(
  ['pending', 'running', 'unchanged', 'changed', 'verified', 'failed', 'not_reached'],
  {
    title: 'StepState',
    description:
      'unchanged: its check found it done. changed: it was carried out, and its check confirmed it. verified: a proof that held.',
  },
)
export type StepState = Static<typeof StepState>

export const ActionRecord = Type.Union(
  [
    Type.Object(
      { kind: Type.Literal('command'), text: Type.String({ examples: ['systemctl start postgresql@15-main'] }) },
      { additionalProperties: false, title: 'CommandAction', description: 'A command that is run on the host.' },
    ),
    Type.Object(
      {
        kind: Type.Literal('file'),
        path: Type.String({ examples: ['/etc/repmgr.conf'] }),
        owner: Type.String({ examples: ['postgres:postgres'] }),
        mode: Type.String({ examples: ['0640'] }),
        content: Type.String({ description: 'Without its secrets.' }),
      },
      { additionalProperties: false, title: 'FileAction', description: 'A file that is written on the host.' },
    ),
    Type.Object(
      { kind: Type.Literal('sql'), text: Type.String() },
      { additionalProperties: false, title: 'SqlAction', description: 'A statement that is sent to the server.' },
    ),
    Type.Object(
      { kind: Type.Literal('wait'), text: Type.String() },
      { additionalProperties: false, title: 'WaitAction', description: 'Something that is waited for.' },
    ),
  ],
  { title: 'Action', description: 'What a step does; `kind` says which of these it is.' },
)

export const StepProgress = Type.Object(
  {
    doneBytes: Type.Integer(),
    totalBytes: Type.Optional(Type.Integer()),
    percent: Type.Optional(Type.Number({ minimum: 0, maximum: 100 })),
    rateBytesPerSecond: Type.Optional(Type.Integer({ minimum: 0, description: 'Over the last half minute.' })),
    remainingSeconds: Type.Optional(
      Type.Integer({ minimum: 0, description: 'At that rate. Absent while nothing moves or the total is not known.' }),
    ),
  },
  { additionalProperties: false, title: 'StepProgress', description: 'How far a copy has come.' },
)

const StepKind = Type.Enum(['change', 'verify'], {
  title: 'StepKind',
  description: 'change: it may change something. verify: a proof; it runs every time.',
})

/** What a step is, whether it is planned or in the journal. */
const stepIdentity = {
  id: Type.String({ description: 'Unique in its operation, and the same at every try.' }),
  title: Type.String(),
  stage: Type.String({ description: 'Stages run one after the other; within one, nodes go side by side.' }),
  node: Type.Optional(Type.String({ description: 'Name of the node that it works on, where it is one.' })),
  kind: StepKind,
  destroys: Type.Optional(Type.String({ description: 'What is lost for good by it.' })),
}

/**
 * A step that ends, one way or the other, once it has begun: whoever calls its operation off waits for that. Half of it
 * done, a cluster has no primary.
 */
export const EXCHANGE_STEP = 'cluster/exchange'
export const PROMOTION_STEP = 'cluster/promotion'
/** After the ids of the steps of a second exchange in a plan, the one back. */
export const WAY_BACK = '-back'
const WHOLE_STEPS: readonly string[] = [EXCHANGE_STEP, `${EXCHANGE_STEP}${WAY_BACK}`, PROMOTION_STEP]
export const isInWholeStep = (steps: readonly { id: string; state: string }[]) =>
  steps.some(({ id, state }) => state === 'running' && WHOLE_STEPS.includes(id))

/**
 * Operations that may exchange roles: with every step done, and nothing of them left in the cluster's record, they are over.
 * Planned anew, one that is through would begin again, from the other end.
 */
const EXCHANGING: readonly OperationType[] = [
  'switchover',
  'restart-cluster',
  'upgrade-cluster',
  'change-settings',
  'drill',
]
export const mayExchangeRoles = (type: OperationType) => EXCHANGING.includes(type)

export const StepRecord = Type.Object(
  {
    ...stepIdentity,
    state: StepState,
    note: Type.Optional(Type.String({ description: 'What the check found.' })),
    startedAt: Type.Optional(Type.String({ format: 'date-time' })),
    endedAt: Type.Optional(Type.String({ format: 'date-time' })),
    progress: Type.Optional(StepProgress),
    decision: Type.Optional(Decision),
    drill: Type.Optional(DrillReport),
  },
  { additionalProperties: false, title: 'Step', description: 'A step in the journal of an operation.' },
)
export type StepRecord = Static<typeof StepRecord>

export const Outcome = Type.Enum(['not_started', 'failed_clean', 'failed_partial', 'unknown'], {
  title: 'Outcome',
  description:
    'What was left behind. not_started: nothing was touched. failed_clean: the failed step left nothing half-done. ' +
    'failed_partial: something is half-done and is taken up by the next try. unknown: the host could not say.',
})

export const OperationFailure = Type.Object(
  {
    code: Type.String({ description: 'The kind, for programs.', examples: ['host-unreachable'] }),
    detail: Type.String({ description: 'What happened.' }),
    outcome: Outcome,
    remedy: Type.String({ description: 'What to do.' }),
    step: Type.Optional(Type.String({ description: 'Id of the step that failed.' })),
    node: Type.Optional(Type.String({ description: 'Name of the node that it failed on.' })),
    output: Type.Optional(Type.String({ description: 'The end of what the host printed, without secrets.' })),
  },
  {
    additionalProperties: false,
    title: 'OperationFailure',
    description: 'Why an operation failed, what it left behind, and what to do.',
  },
)
export type OperationFailure = Static<typeof OperationFailure>

export const OperationResult = Type.Object(
  {
    summary: Type.String({ description: 'One sentence for people.' }),
    changedSteps: Type.Integer(),
    unchangedSteps: Type.Integer({ description: 'Steps that were done already.' }),
    verifiedSteps: Type.Integer({ description: 'Proofs that held.' }),
    drill: Type.Optional(DrillReport),
  },
  { additionalProperties: false, title: 'OperationResult', description: 'What a successful operation did.' },
)
export type OperationResult = Static<typeof OperationResult>

export const Difference = Type.Object(
  {
    pointer: Type.String({ description: 'JSON pointer into the description.', examples: ['/nodes/2'] }),
    detail: Type.String({ description: 'What the record says there.' }),
  },
  { additionalProperties: false, title: 'Difference', description: 'Where a description differs from the record.' },
)
export type Difference = Static<typeof Difference>

const Differences = Type.Optional(
  Type.Array(Difference, {
    description: 'Of apply-cluster: where the description differed from the record when it was asked for.',
  }),
)

/** A ticket number or the like. Line breaks would forge lines of the log. */
export const Reference = Type.String({
  minLength: 1,
  maxLength: 200,
  pattern: '^[^\\u0000-\\u001f\\u007f-\\u009f\\u2028\\u2029]*$',
  description: 'Yours: a ticket number, a link to a build. One line.',
  examples: ['CHG-4711'],
})

export const PLAN_ID = '^plan_[0-9a-f]{16}_[0-9a-f]{32}_[0-9A-Za-z_-]{1,4000}$'
export const PlanId = Type.String({
  pattern: PLAN_ID,
  description:
    'Stands for exactly this plan: for what is asked for, for the cluster, and for what was found on the hosts.',
  examples: ['plan_5f1c0b8d2e7a4496_9c1185a5c5e9fc54612808977ee8f548_x3Qa0-'],
})

export const RequestRecord = Type.Object(
  {
    at: Type.String({ format: 'date-time' }),
    by: Type.String({ description: 'Name of the token that asked for it.' }),
    reference: Type.Optional(Reference),
  },
  { additionalProperties: false, title: 'RequestRecord', description: 'Who asked for something, and when.' },
)
export type RequestRecord = Static<typeof RequestRecord>

export const Operation = Type.Object(
  {
    id: OperationId,
    type: OperationType,
    cluster: Type.String(),
    node: Type.Optional(Type.String({ description: 'The node that it is about, where it is about one.' })),
    state: OperationState,
    requestedBy: Type.String({ description: 'Name of the token that asked for it.' }),
    reference: Type.Optional(Reference),
    forced: Type.Optional(
      Type.Boolean({
        description: 'It was asked to go on although something stood in the way that it would be refused for.',
      }),
    ),
    planId: Type.Optional(PlanId),
    createdAt: Type.String({ format: 'date-time' }),
    startedAt: Type.Optional(Type.String({ format: 'date-time' })),
    endedAt: Type.Optional(Type.String({ format: 'date-time' })),
    turns: Type.Integer({ description: 'How many workers have taken it up: more than 1 after an interruption.' }),
    cancelRequest: Type.Optional(RequestRecord),
    retries: Type.Optional(
      Type.Integer({ minimum: 1, description: 'How often it was queued again after it had ended.' }),
    ),
    lastRetry: Type.Optional(RequestRecord),
    steps: Type.Array(StepRecord, { description: 'In order; empty until a worker has made the plan.' }),
    differences: Differences,
    result: Type.Optional(OperationResult),
    error: Type.Optional(OperationFailure),
  },
  {
    additionalProperties: false,
    title: 'Operation',
    description: 'Something that takes time and changes a cluster: what was asked for, its steps, how it ended.',
  },
)
export type Operation = Static<typeof Operation>

export const PlannedStep = Type.Object(
  {
    ...stepIdentity,
    verdict: Type.Enum(['would_run', 'already_done', 'would_verify'], {
      title: 'Verdict',
      description: 'What the check found on the host just now. A proof changes nothing and runs every time.',
    }),
    reason: Type.Optional(Type.String({ description: 'What the check saw.' })),
    actions: Type.Array(ActionRecord, {
      description: 'Exactly what would run or be written; secrets go over standard input.',
    }),
  },
  { additionalProperties: false, title: 'PlannedStep', description: 'A step as it would run.' },
)
export type PlannedStep = Static<typeof PlannedStep>

export const PlanPreview = Type.Object(
  {
    planId: PlanId,
    operation: OperationType,
    cluster: Type.String(),
    steps: Type.Array(PlannedStep),
    differences: Differences,
    stepsThatWouldRun: Type.Integer({ description: '0: everything is as it should be.' }),
  },
  { additionalProperties: false, title: 'PlanPreview', description: 'What an operation would do, without doing it.' },
)
export type PlanPreview = Static<typeof PlanPreview>
