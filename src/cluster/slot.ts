/** The slot that keeps WAL for a standby on the node that it streams from, and what there is to say of it. Pure. */
import { type Static, Type } from 'typebox'
import type { Finding } from './diagnosis.js'

/** Names of the slots are repmgr's: `repmgr_slot_<node id>`. */
export const slotName = (nodeId: number) => `repmgr_slot_${nodeId}`

export const ReplicationSlot = Type.Object(
  {
    name: Type.String(),
    active: Type.Boolean(),
    retainedBytes: Type.Unsafe<number | null>({
      type: ['integer', 'null'],
      description: 'WAL that is kept for the standby.',
    }),
    walStatus: Type.Unsafe<'reserved' | 'extended' | 'unreserved' | 'lost' | null>({
      type: ['string', 'null'],
      enum: ['reserved', 'extended', 'unreserved', 'lost', null],
      description:
        'As pg_replication_slots says it. reserved, extended: what the standby needs is kept. unreserved: it is about to be ' +
        'removed, for `max_slot_wal_keep_size` is exceeded. lost: it was removed. null: nothing was kept yet.',
    }),
    safeWalBytes: Type.Unsafe<number | null>({
      type: ['integer', 'null'],
      description:
        'WAL that can still be written before the slot is in danger; null where there is no limit, or all is lost.',
    }),
  },
  {
    additionalProperties: false,
    title: 'ReplicationSlot',
    description: 'The slot that keeps WAL for this standby, on the node that it streams from.',
  },
)
export type ReplicationSlot = Static<typeof ReplicationSlot>

/**
 * `max_slot_wal_keep_size` saves the upstream's disk at the cost of the standby: past it, WAL that the standby lacks is
 * removed, and no stream can ever go on from there.
 *
 * @see https://www.postgresql.org/docs/current/view-pg-replication-slots.html
 */
export function slotFinding(standby: string, upstream: string, slot: ReplicationSlot | undefined): Finding | undefined {
  switch (slot?.walStatus) {
    case 'lost':
      return {
        code: 'slot_lost',
        detail:
          `${upstream} has removed WAL that ${standby} had not received: slot ${slot.name} is lost, and ${standby} cannot stream any more. ` +
          'It has to be cloned anew; max_slot_wal_keep_size decides how long a standby may be away.',
      }
    case 'unreserved':
      return {
        code: 'slot_at_risk',
        detail:
          `${upstream} is about to remove WAL that ${standby} needs: slot ${slot.name} is past max_slot_wal_keep_size. ` +
          `Bring ${standby} back at once, or raise max_slot_wal_keep_size on ${upstream}; else it has to be cloned anew.`,
      }
    default:
      return undefined
  }
}
