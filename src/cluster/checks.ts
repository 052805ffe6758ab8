/** Preflight: what must be so before a cluster is built, changed or relied upon. */
import { type Static, Type } from 'typebox'

export const CheckResult = Type.Object(
  {
    kind: Type.Enum(
      [
        'ssh',
        'server',
        'sudo',
        'name_resolution',
        'port',
        'postgres_client',
        'postgres_replication',
        'versions',
        'disk',
        'clock',
        'kernel',
        'rewind',
        'archive',
        'certificate',
      ],
      { title: 'CheckKind', description: 'What was looked at; more may come.' },
    ),
    from: Type.Optional(Type.String({ description: 'Node that it was tried from; absent: from this service.' })),
    to: Type.Optional(Type.String({ description: 'Node that it is about.' })),
    verdict: Type.Enum(['ok', 'warning', 'failed'], {
      title: 'CheckVerdict',
      description:
        'failed: an operation that needs it will not work. warning: it will, and something is not as it should be.',
    }),
    detail: Type.String({ description: 'What was found.' }),
    remedy: Type.Optional(Type.String({ description: 'What to do; absent where all is well.' })),
  },
  { additionalProperties: false, title: 'CheckResult', description: 'One edge that was tried just now.' },
)
export type CheckResult = Static<typeof CheckResult>

export const Checks = Type.Object(
  {
    cluster: Type.String(),
    verdict: Type.Enum(['ok', 'warning', 'failed'], { title: 'ChecksVerdict', description: 'The worst of all.' }),
    items: Type.Array(CheckResult, { description: 'Worst first.' }),
    observedAt: Type.String({ format: 'date-time' }),
  },
  {
    additionalProperties: false,
    title: 'Checks',
    description: 'Every edge that the cluster needs, as it answered just now.',
  },
)
export type Checks = Static<typeof Checks>

export const worstOf = (items: readonly CheckResult[]): CheckResult['verdict'] =>
  items.some(({ verdict }) => verdict === 'failed')
    ? 'failed'
    : items.some(({ verdict }) => verdict === 'warning')
      ? 'warning'
      : 'ok'
