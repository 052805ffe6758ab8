/** The end of a cancelled operation: whatever it still has on its hosts is ended, and what cannot be ended is named. */
import type { Cluster } from '../src/cluster/model.js'
import { callOff } from '../src/host/call-off.js'
import { Superseded } from '../src/host/errors.js'
import type { HostPool } from '../src/host/host.js'
import { OperationCancelled } from '../src/operations/errors.js'
import type { Journal } from '../src/operations/journal.js'
import type { Operation, OperationFailure, RequestRecord } from '../src/operations/operation.js'
import { WorkerGone } from '../src/operations/run-plan.js'
import type { Turn } from '../src/store/operations.js'

/** What it has left behind is found out by the steps that had begun. */
export const cancelledBy = ({ by, reference }: RequestRecord) =>
  new OperationCancelled(`It was cancelled by ${by}${reference === undefined ? '' : ` (${reference})`}.`, 'not_started')

/** Steps that a worker before this one was at when it died will not be gone on with. */
export async function closeSteps(journal: Journal, operation: Operation, { detail }: OperationFailure): Promise<void> {
  const endedAt = new Date().toISOString()
  for (const step of operation.steps.filter(({ state }) => state === 'running'))
    await journal.step({ ...step, state: 'failed', note: detail, endedAt })
}

/**
 * Returns what goes into the record. A host that cannot be looked at makes the outcome `unknown` where a step had begun on
 * it: something may go on there. Throws WorkerGone where a newer worker has taken over.
 */
export async function endOnHosts(
  pool: HostPool,
  cluster: Cluster,
  operation: Operation,
  { epoch }: Turn,
  failure: OperationFailure,
  log: (line: string) => void,
): Promise<OperationFailure> {
  const begun = operation.steps.filter(({ state }) => state !== 'pending')
  // Nothing was ever sent to a host.
  if (begun.length === 0) return failure
  const ends = await Promise.allSettled(
    cluster.nodes.map(({ host, ssh: { port, user, hostKey } }) =>
      callOff(pool.host({ host, port, user, hostKey }), cluster.name, epoch, log),
    ),
  )
  const open = ends.flatMap((end, index) => {
    const node = cluster.nodes[index]
    if (end.status === 'fulfilled' || !node) return []
    if (end.reason instanceof Superseded) throw new WorkerGone('another worker has taken over')
    return begun.some(step => step.node === node.name) ? [`${node.name}: ${messageOf(end.reason)}`] : []
  })
  if (open.length === 0) return failure
  return {
    ...failure,
    detail: `${failure.detail} Whether everything that it began has ended there could not be seen. ${open.join(' ')}`,
    outcome: 'unknown',
    remedy:
      'A command of it may still run there (as root: systemctl list-units "understudy-*", ps -ef). Retry the operation, which ' +
      'looks at the host first, once it can be reached.',
  }
}

const messageOf = (error: unknown) => (error instanceof Error ? error.message : String(error))
