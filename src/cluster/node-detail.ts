/** One node, whole: its record and its row of the status. */
import { type Static, Type } from 'typebox'
import { ClusterNode } from './model.js'
import { NodeStatus } from './status.js'

export const NodeDetail = Type.Object(
  {
    cluster: Type.String(),
    record: ClusterNode,
    status: NodeStatus,
    observedAt: Type.String({ format: 'date-time' }),
  },
  {
    additionalProperties: false,
    title: 'NodeDetail',
    description: 'A node as it was described, and as it answered just now.',
  },
)
export type NodeDetail = Static<typeof NodeDetail>
