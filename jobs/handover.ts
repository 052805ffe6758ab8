/** What the cluster's record says of the operation that exchanges roles: read when it is planned, written as it goes on. */
import type { Handover } from '../src/cluster/handover.js'
import type { Cluster } from '../src/cluster/model.js'
import { OperationError } from '../src/operations/errors.js'
import type { Store } from '../src/store/store.js'
import type { Bench } from './bench.js'

/** Thrown when the record does not have the operation any more: another one has exchanged roles since. */
class HandoverLost extends OperationError {
  constructor(cluster: string) {
    super(`The record of ${cluster} is not of this operation any more: another one has exchanged roles since.`, {
      code: 'handover-lost',
      outcome: 'failed_clean',
      remedy: 'Look at the status of the cluster, then ask for it anew. The roles were not touched.',
    })
  }
}

/** What this operation has begun; undefined where it has begun nothing. */
export const ownHandover = ({ cluster, operationId }: Pick<Bench, 'cluster' | 'operationId'>): Handover | undefined =>
  cluster.handover !== undefined && cluster.handover.operation === operationId ? cluster.handover : undefined

/** A worker that was replaced finds the record of another operation, or none, and writes nothing. */
export const handoverKeeper =
  (store: Store, { name }: Pick<Cluster, 'name'>, operationId: string) =>
  async (change: (handover: Handover) => Handover): Promise<void> => {
    await store.clusters.update(name, cluster => {
      if (cluster.handover?.operation !== operationId) throw new HandoverLost(name)
      return { ...cluster, handover: change(cluster.handover) }
    })
  }

export const withoutHandover = ({ handover, ...cluster }: Cluster, operationId: string | undefined): Cluster =>
  handover === undefined || handover.operation === operationId ? cluster : { handover, ...cluster }

export async function forgetHandover(store: Store, bench: Bench): Promise<void> {
  await store.clusters.update(bench.cluster.name, cluster => withoutHandover(cluster, bench.operationId))
}
