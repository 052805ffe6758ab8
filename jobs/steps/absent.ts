import { act } from '../../src/host/actions.js'
import type { Step } from '../../src/operations/step.js'
import type { Bench } from '../bench.js'

/** Nodes that were left out because they did not answer: said in the journal, so that nobody has to guess. */
export function tellOfAbsent(bench: Bench): Step[] {
  return [...bench.absent].map(([node, reason]) => ({
    id: `${node}/absent`,
    kind: 'verify',
    title: 'left out: it did not answer, and does not know of this change yet',
    node,
    actions: [
      act(
        `once ${node} is back, repeat the description of the whole cluster with "bootstrap": true`,
        async ({ note }) => {
          note(`${reason} Once it is back, POST /v1/clusters with all nodes and "bootstrap": true lets it know.`)
        },
      ),
    ],
  }))
}
