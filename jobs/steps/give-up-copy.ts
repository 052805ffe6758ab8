/** Making room for a new clone on a standby that has been used. Asked for by name, and only ever for a standby. */
import type { ClusterNode } from '../../src/cluster/model.js'
import { upstreamOf } from '../../src/cluster/topology.js'
import { act } from '../../src/host/actions.js'
import { spaceTaken } from '../../src/host/system.js'
import type { Action, ChangeStep, Check, Step } from '../../src/operations/step.js'
import type { Bench } from '../bench.js'
import { isInUse } from '../find-primary.js'
import { emptyStandby } from './data-directory.js'
import { forgetClone, refuseTooSmall } from './standby.js'

export function giveUpCopy(bench: Bench, node: ClusterNode, primary: ClusterNode): Step {
  const identifier = bench.cluster.systemIdentifier ?? bench.found(primary).server.systemIdentifier
  if (identifier === undefined) throw new TypeError('the primary has no system identifier')
  const { timeline = 0 } = bench.found(primary).server
  return {
    id: `${node.name}/give-up-copy`,
    kind: 'change',
    title: 'empty its data directory',
    node: node.name,
    destroys: `the copy of the database that ${node.name} holds as a standby`,
    actions: [
      seeThatItFits(bench, node, primary, 'emptied'),
      forgetClone(bench, node),
      emptyStandby(bench, node, identifier, timeline),
    ],
    async check({ signal }): Promise<Check> {
      return isInUse(await bench.inspect(node, signal))
        ? { done: false, reason: 'it holds a copy that was used' }
        : { done: true }
    },
  }
}

/** Before the copy goes: without room for a new one there would be none. */
export const seeThatItFits = (
  bench: Bench,
  node: ClusterNode,
  primary: ClusterNode,
  oldCopy: 'emptied' | 'kept-aside',
): Action =>
  act('see that a new copy fits', async ({ signal }) => {
    const { dataDirectory } = bench.layout
    const clearedBytes = oldCopy === 'emptied' ? await spaceTaken(bench.host(node), dataDirectory, { signal }) : 0
    await refuseTooSmall(bench, node, upstreamOf(node, bench.cluster.nodes, primary), signal, clearedBytes)
  })

/** The clone that follows: as long as the old copy is there, that one is not taken for the new one. */
export function onceEmptied(bench: Bench, node: ClusterNode, clone: ChangeStep): ChangeStep {
  return {
    ...clone,
    async check(context) {
      const { everStarted } = await bench.inspect(node, context.signal)
      return everStarted
        ? { done: false, reason: 'it still holds the copy that is to be replaced' }
        : clone.check(context)
    },
  }
}
