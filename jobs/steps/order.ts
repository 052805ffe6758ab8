/** The order of the tutorial, where only the primary itself can say how far it has come. */
import type { ClusterNode } from '../../src/cluster/model.js'
import type { ChangeStep } from '../../src/operations/step.js'
import { ServerUnreachable } from '../../src/postgres/connect.js'
import { readMetadata } from '../../src/repmgr/metadata.js'
import type { Bench } from '../bench.js'
import { callFor, StepOutOfOrder } from '../refusals.js'

/** The step as it is, refused until repmgr's metadata have the primary: nothing can be cloned from it, or follow it, before. */
export function onceRegistered(bench: Bench, primary: ClusterNode, step: ChangeStep): ChangeStep {
  return {
    ...step,
    async check(context) {
      const rows = await askMetadata(bench, primary, context.signal)
      if (!rows?.some(({ nodeId, type, active }) => nodeId === primary.nodeId && type === 'primary' && active)) {
        throw new StepOutOfOrder(
          `repmgr does not know ${primary.name} as the primary yet.`,
          callFor(bench.cluster, primary, 'register'),
        )
      }
      return step.check(context)
    },
  }
}

/** The step as it is, refused until the primary has repmgr's role and database. */
export function onceStarted(bench: Bench, primary: ClusterNode, step: ChangeStep): ChangeStep {
  return {
    ...step,
    async check(context) {
      await askMetadata(bench, primary, context.signal)
      return step.check(context)
    },
  }
}

async function askMetadata(bench: Bench, primary: ClusterNode, signal: AbortSignal) {
  try {
    return await bench.ask(primary, { signal }, readMetadata)
  } catch (error) {
    const unprepared =
      error instanceof ServerUnreachable &&
      (error.reason === 'authentication' || /database "repmgr" does not exist/.test(error.message))
    if (!unprepared) throw error
    throw new StepOutOfOrder(
      `${primary.name} does not have repmgr’s role and database as they should be: ${error.message}`,
      callFor(bench.cluster, primary, 'start'),
    )
  }
}
