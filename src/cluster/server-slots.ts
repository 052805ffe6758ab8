/** All replication slots of a server: what each keeps, for whom, and whether anybody is to come back for it. Pure. */
import { type Static, Type } from 'typebox'
import type { Cluster, ClusterNode } from './model.js'
import { nullable } from './nullable.js'
import type { SlotObservation } from './observation.js'
import { ReplicationSlot, slotName } from './slot.js'

export const ServerSlot = Type.Object(
  {
    ...ReplicationSlot.properties,
    kind: Type.Enum(['physical', 'logical'], { title: 'SlotKind', description: 'logical: of a subscriber.' }),
    temporary: Type.Boolean({ description: 'Gone with its session, as those of a base backup.' }),
    database: nullable(Type.String({ description: 'Of a logical one.' })),
    node: nullable(
      Type.String({ description: 'The node that it is for, by its name or by who streams through it; null: none.' }),
    ),
    usedBy: nullable(Type.String({ description: '`application_name` of who reads from it now.' })),
    orphan: Type.Boolean({
      description:
        'A physical one that lasts, that nobody streams through, and that no node of this cluster is to stream through here: it keeps WAL for nobody.',
    }),
  },
  { additionalProperties: false, title: 'ServerSlot', description: 'A replication slot on this server.' },
)
export type ServerSlot = Static<typeof ServerSlot>

/** The slot of a node, as it is told in that node's own row. */
export const bareSlot = ({
  name,
  active,
  retainedBytes,
  walStatus,
  safeWalBytes,
}: SlotObservation): ReplicationSlot => ({
  name,
  active,
  retainedBytes,
  walStatus,
  safeWalBytes,
})

/** `streamsHere`: whether a node is to stream from this server; undefined while nobody knows who the primary is. */
export function describeSlots(
  { nodes }: Pick<Cluster, 'nodes'>,
  slots: readonly SlotObservation[],
  streamsHere: ((node: ClusterNode) => boolean) | undefined,
): ServerSlot[] {
  return slots
    .map((slot): ServerSlot => {
      const node =
        slot.kind === 'logical'
          ? undefined
          : (nodes.find(({ nodeId }) => slotName(nodeId) === slot.name) ??
            nodes.find(({ name }) => name === slot.usedBy))
      const lasts = slot.kind === 'physical' && !slot.temporary && !slot.active
      return {
        ...bareSlot(slot),
        kind: slot.kind,
        temporary: slot.temporary,
        database: slot.database,
        node: node?.name ?? null,
        usedBy: slot.usedBy,
        orphan: lasts && (node === undefined || (streamsHere !== undefined && !streamsHere(node))),
      }
    })
    .sort((a, b) => (a.name < b.name ? -1 : 1))
}

/** Undefined where none of them keeps anything for nobody. */
export function orphanProblem(server: string, slots: readonly ServerSlot[]): string | undefined {
  const keeping = slots.filter(({ orphan, retainedBytes }) => orphan && retainedBytes !== null)
  if (keeping.length === 0) return undefined
  const named = keeping.map(({ name, retainedBytes }) => `${name} (${retainedBytes} bytes)`).join(', ')
  return `WAL is kept for nobody by ${named}: where nobody is to come back for it, pg_drop_replication_slot on ${server} lets it go.`
}
