/** Which of the checks stand in the way of an operation that makes or changes nodes. Pure. */
import type { CheckResult } from './checks.js'

/**
 * `about`: names of these nodes. `source`: of the one whose data they get; it is there, so what is between them has to be
 * open already. Servers, ports and passwords of the others are what the operation itself is about to put right.
 */
export function standsInTheWay(
  { verdict, kind, from, to }: Pick<CheckResult, 'verdict' | 'kind' | 'from' | 'to'>,
  about: readonly string[],
  source: string | undefined,
): boolean {
  if (verdict !== 'failed') return false
  const concerns = (name: string | undefined) => name !== undefined && about.includes(name)
  switch (kind) {
    case 'ssh':
      // Between the nodes it is needed once they are made, and is proven then.
      return from === undefined && concerns(to)
    case 'clock':
    case 'disk':
      return concerns(to)
    case 'name_resolution':
      return concerns(from) || concerns(to)
    case 'versions':
      return to === undefined || concerns(to)
    case 'port':
    case 'postgres_client':
    case 'postgres_replication':
      return concerns(from) && source !== undefined && to === source
    default:
      return false
  }
}
