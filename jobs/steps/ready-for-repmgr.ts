/** What an adopted host lacks before repmgr can be run there the way this service runs it. */
import type { ClusterNode } from '../../src/cluster/model.js'
import type { Step } from '../../src/operations/step.js'
import type { Bench } from '../bench.js'
import { passFileStep } from './access.js'
import { writeRepmgrConf } from './prepare-host.js'
import { takeOver } from './take-over.js'

/**
 * Nothing for a node that this service made. Whoever built the cluster may have repmgr.conf in another place, and lets the
 * nodes in by other addresses, or without a password: by their own settings, which stay as they are.
 */
export function readyForRepmgr(bench: Bench, node: ClusterNode): Step[] {
  if (node.adopted !== true) return []
  return [
    ...takeOver(bench, node),
    { ...passFileStep(bench, node), id: `${node.name}/repmgr-passwords` },
    writeRepmgrConf(bench, node),
  ]
}
