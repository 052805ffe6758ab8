/** The node that a standby is to stream from: it has to be there before the standby is. */
import type { ClusterNode } from '../../src/cluster/model.js'
import { OperationError } from '../../src/operations/errors.js'
import type { Bench } from '../bench.js'
import { isInUse } from '../find-primary.js'

/** Thrown when the node that a standby is to be cloned from, and to stream from, is away, stopped or not made yet. */
export class UpstreamAway extends OperationError {
  constructor(node: string, upstream: string, why: string) {
    super(`${node} is to stream from ${upstream}, and ${upstream} ${why}.`, {
      code: 'upstream-away',
      outcome: 'not_started',
      remedy: `Bring ${upstream} back, then repeat the call; or describe ${node} with another "upstream", or without one: it streams from the primary then.`,
    })
  }
}

/** Where nothing of the plan makes or starts it. */
export function refuseIdleUpstream(bench: Bench, node: ClusterNode, upstream: ClusterNode): void {
  const reason = bench.absent.get(upstream.name)
  if (reason !== undefined) throw new UpstreamAway(node.name, upstream.name, `does not answer (${reason})`)
  const { server } = bench.found(upstream)
  if (!isInUse(server)) throw new UpstreamAway(node.name, upstream.name, 'has not been built yet')
  if (!server.running) throw new UpstreamAway(node.name, upstream.name, 'is stopped')
}
