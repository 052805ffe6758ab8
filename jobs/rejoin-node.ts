import { planComeBack, refuseComeBack } from './come-back.js'
import { defineOperation } from './define-operation.js'

/** An old primary, or a standby whose history went another way, becomes a standby of the primary that there is now. */
export const rejoinNode = defineOperation({
  type: 'rejoin-node',
  target: cluster => cluster,
  // Who is the primary is told by the one that accepts writes; whoever else is away does not matter.
  mayBeAbsent: (node, input) => node.name !== input.node,
  holdsRepmgrd: ({ node }) => ({ rebuilds: node }),
  refuse: (bench, input, signal) => refuseComeBack(bench, { ...input, method: 'auto' }, signal),
  plan: (bench, input) => planComeBack(bench, { ...input, method: 'auto' }),
  complete: async () => undefined,
})
