/** What one server says of itself, and how it was heard or not heard. Facts as they were read; nothing is concluded here. */
import { type Static, Type } from 'typebox'
import type { ArchiveObservation } from './archive-status.js'
import type { MetadataNode } from './metadata.js'
import type { RepmgrdObservation } from './repmgrd.js'
import type { ReplicationSlot } from './slot.js'

/** What one PostgreSQL server answered; times are read on the server, ages are in milliseconds. */
export interface Observation {
  inRecovery: boolean
  systemIdentifier: string
  serverVersion: string
  timeline: number
  /** Content of that timeline's history file; undefined on the first one, and where the file is not there. */
  history?: string
  /** Primary: current write position. */
  currentLsn?: string
  /** Standby: up to where WAL came in by stream; it can be behind what was replayed from an archive. */
  receivedLsn?: string
  replayedLsn?: string
  /** Milliseconds since the last replayed commit; null where nothing was replayed yet. */
  replayAgeMs?: number | null
  receiver?: ReceiverObservation
  /** Who streams from this server: by application_name, which is the node's name. */
  streams: { applicationName: string; state: string; syncState: string; replayLagMs: number | null }[]
  slots: SlotObservation[]
  /** Standby: queries that were cancelled because replay could not wait for them, since its statistics were reset. */
  conflicts?: ConflictCounts
  /** Standby: for how long each commit waits before it is applied; 0 where none does. */
  applyDelayMs?: number
  /** Undefined where repmgr's functions are not there. */
  repmgrd?: RepmgrdObservation
  startedAt: string
  /** Of a primary. */
  archive?: ArchiveObservation
}

export interface ReceiverObservation {
  status: string
  upstreamHost: string | null
  slotName: string | null
  /** Since the last message from upstream, by the standby's own clock. */
  lastMessageAgeMs: number | null
}

export interface SlotObservation extends ReplicationSlot {
  kind: 'physical' | 'logical'
  /** Gone with its session, as those of a base backup. */
  temporary: boolean
  database: string | null
  /** application_name of who reads from it now. */
  usedBy: string | null
}

export interface ConflictCounts {
  tablespace: number
  lock: number
  snapshot: number
  bufferPin: number
  deadlock: number
  /** 0 before PostgreSQL 16. */
  logicalSlot: number
}

export const FailureReason = Type.Enum(
  [
    'refused',
    'timed_out',
    'starting_up',
    'too_many_connections',
    'authentication',
    'tls',
    'not_built',
    'not_asked',
    'other',
  ],
  {
    title: 'ProbeFailureReason',
    description:
      'refused: nothing listens there. timed_out: no whole answer in time. starting_up: it lives, and accepts no connection yet or any more ' +
      '(57P03). too_many_connections, authentication, tls: it lives, and does not let this service in. not_built: nobody has a password yet.',
  },
)
export type FailureReason = Static<typeof FailureReason>

export const ProbeFailure = Type.Object(
  { reason: FailureReason, detail: Type.String({ description: 'In words.' }) },
  { additionalProperties: false, title: 'ProbeFailure', description: 'Why a server did not answer.' },
)
export type ProbeFailure = Static<typeof ProbeFailure>

/** `failure`: why it could not be read. No rows and no failure: repmgr is not there. */
export type MetadataReading = { rows: MetadataNode[] } | { failure: string }

/** `at`: when the answer was there, or the waiting ended, by our clock. */
export type Probe = { node: string; at: string } & (
  | { observation: Observation; metadata?: MetadataReading }
  | { failure: ProbeFailure }
)

/** The server answers, if only to say that it does not let us in. */
export const isAlive = ({ reason }: ProbeFailure) =>
  reason === 'starting_up' || reason === 'too_many_connections' || reason === 'authentication' || reason === 'tls'
