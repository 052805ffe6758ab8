import { type Static, Type } from 'typebox'

/** The kinds that pgtune knows, but for the desktop. */
export const Workload = Type.Enum(['web', 'oltp', 'dw', 'mixed'], {
  title: 'Workload',
  default: 'mixed',
  description:
    'What the servers are used for; memory, connections and costs are computed for it. web: many small queries. oltp: many small ' +
    'transactions. dw: few large queries. mixed: some of each.',
})
export type Workload = Static<typeof Workload>

export const DEFAULT_WORKLOAD: Workload = 'mixed'
