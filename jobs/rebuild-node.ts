import { planComeBack, refuseComeBack } from './come-back.js'
import { defineOperation } from './define-operation.js'

/** As a rejoin, by the method that was asked for: a clone also replaces the copy of a standby that streams. */
export const rebuildNode = defineOperation({
  type: 'rebuild-node',
  target: cluster => cluster,
  mayBeAbsent: (node, input) => node.name !== input.node,
  holdsRepmgrd: ({ node }) => ({ rebuilds: node }),
  refuse: (bench, { method = 'auto', ...input }, signal) => refuseComeBack(bench, { ...input, method }, signal),
  plan: (bench, { method = 'auto', ...input }) => planComeBack(bench, { ...input, method }),
  complete: async () => undefined,
})
