/** What an adopted host gets first: our mark, so that from then on it is treated like one that we made. */
import type { ClusterNode } from '../../src/cluster/model.js'
import { putFile, runCommand } from '../../src/host/actions.js'
import type { Check, Step } from '../../src/operations/step.js'
import type { Bench } from '../bench.js'
import { refuseForeign } from '../find-primary.js'
import { markerFile } from './data-directory.js'

/** Once: what was in repmgr.conf before is not overwritten by a later try. */
const KEEP = '[ ! -e "$1" ] || [ -e "$1.before-understudy" ] || cp -a -- "$1" "$1.before-understudy"'

/**
 * Nothing for a node that this service made. A mark that is there stays as it is, whatever it says: from the first one on,
 * a copy of an adopted node may be one that was cut short.
 */
export function takeOver(bench: Bench, node: ClusterNode): Step[] {
  if (node.adopted !== true) return []
  const { layout, cluster } = bench
  const { repmgrConf } = layout
  const step: Step = {
    id: `${node.name}/take-over`,
    kind: 'change',
    title: 'mark the server as a node of this cluster, and keep its repmgr.conf',
    node: node.name,
    actions: [
      runCommand(bench.host(node), cluster.name, {
        argv: ['sh', '-c', KEEP, 'understudy-keep', repmgrConf],
        as: 'root',
        timeoutMs: 30_000,
        shownAs: `cp -a ${repmgrConf} ${repmgrConf}.before-understudy   # once, where there is one`,
      }),
      putFile(bench.host(node), cluster.name, markerFile(bench, node, 'in-use')),
    ],
    async check({ signal }): Promise<Check> {
      const state = await bench.inspect(node, signal)
      if (state.unmarked) return { done: false, reason: `${layout.marker} is missing` }
      if (state.marker?.cluster === cluster.name && state.marker.node === node.name)
        return { done: true, note: `marked as ${state.marker.state}` }
      // Not what was adopted, so not marked: what is there is nobody's, or no later step may touch it either.
      if (!state.untouched) refuseForeign(bench, node, state)
      return { done: true, note: 'the server that was adopted is not there any more' }
    },
  }
  return [step]
}
