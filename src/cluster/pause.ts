/** Maintenance: for a while this service does nothing to a cluster by itself. What people ask for goes on. Pure. */
import { type Static, Type } from 'typebox'

export const Pause = Type.Object(
  {
    since: Type.String({ format: 'date-time' }),
    by: Type.String({ description: 'Name of the token that asked for it.' }),
    reason: Type.String(),
    until: Type.String({ format: 'date-time', description: 'It ends by itself then.' }),
    reference: Type.Optional(Type.String({ description: 'Of the newest call: a ticket number or the like.' })),
    extended: Type.Optional(
      Type.Object(
        { at: Type.String({ format: 'date-time' }), by: Type.String() },
        { additionalProperties: false, title: 'PauseExtension', description: 'Who asked for more of it last.' },
      ),
    ),
    announcedAt: Type.Optional(
      Type.String({ format: 'date-time', description: 'When the audit trail said that it is about to end.' }),
    ),
  },
  {
    additionalProperties: false,
    title: 'Pause',
    description: 'Until it ends, this service does nothing to the cluster by itself. What people ask for goes on.',
  },
)
export type Pause = Static<typeof Pause>

export const DEFAULT_PAUSE_MS = 3_600_000
export const MAX_PAUSE_MS = 7 * 24 * 3_600_000

/** Of a short pause it is a fifth that is left when it is announced that it ends. */
const ANNOUNCED_BEFORE_MS = 15 * 60_000

interface MayBePaused {
  pause?: Pause
}

/**
 * The pause that is in force at this instant. Whatever acts by itself asks this, right before it acts, of the record as it
 * is then: a record may still have a pause that has run out.
 */
export function pauseInForce({ pause }: MayBePaused, nowMs: number): Pause | undefined {
  return pause !== undefined && nowMs < Date.parse(pause.until) ? pause : undefined
}

export interface WantedPause {
  reason: string
  untilMs: number
  by: string
  reference?: string
}

/**
 * The pause once somebody has asked for one. One that is in force is never cut short by that: somebody else may rely on it.
 * The same object where nothing changes.
 */
export function pausedBy(cluster: MayBePaused, wanted: WantedPause, nowMs: number): Pause {
  const { reason, untilMs, by, reference } = wanted
  const told = reference === undefined ? {} : { reference }
  const current = pauseInForce(cluster, nowMs)
  const now = new Date(nowMs).toISOString()
  if (!current) return { since: now, by, reason, until: new Date(untilMs).toISOString(), ...told }
  const later = untilMs > Date.parse(current.until)
  if (!later && reason === current.reason && (reference ?? current.reference) === current.reference) return current
  const { announcedAt, ...kept } = current
  return {
    ...kept,
    ...(announcedAt === undefined || later ? {} : { announcedAt }),
    ...told,
    reason,
    until: later ? new Date(untilMs).toISOString() : current.until,
    extended: { at: now, by },
  }
}

/** From when on it is said that it is about to end. */
export function announcedFrom({ since, extended, until }: Pause): number {
  const endMs = Date.parse(until)
  const lengthMs = endMs - Date.parse(extended?.at ?? since)
  return endMs - Math.min(ANNOUNCED_BEFORE_MS, lengthMs / 5)
}

export const PauseState = Type.Object(
  {
    cluster: Type.String(),
    paused: Type.Boolean(),
    pause: Type.Union([Pause, Type.Null()]),
  },
  { additionalProperties: false, title: 'PauseState', description: 'Whether a cluster is paused.' },
)
export type PauseState = Static<typeof PauseState>

/** Who to ask about it. */
export const ownersOf = ({ by, extended }: Pause) =>
  extended === undefined || extended.by === by ? by : `${by} and ${extended.by}`
