/** Looks before anything is touched: what would make an operation fail halfway is said at its beginning. */
import type { CheckResult } from '../../src/cluster/checks.js'
import type { ClusterNode } from '../../src/cluster/model.js'
import { standsInTheWay } from '../../src/cluster/needed-checks.js'
import { act } from '../../src/host/actions.js'
import { OperationError } from '../../src/operations/errors.js'
import type { CheckContext, Step } from '../../src/operations/step.js'
import type { Bench } from '../bench.js'
import { checkHosts } from '../run-checks.js'
import { DiskFull } from './standby.js'

/** Thrown when hosts cannot become, or stay, nodes of one cluster as they are. */
class ChecksFailed extends OperationError {
  constructor(failed: readonly CheckResult[]) {
    super(failed.map(({ from, to, detail }) => `${[from, to].filter(Boolean).join(' to ')}: ${detail}.`).join(' '), {
      code: 'checks-failed',
      outcome: 'not_started',
      remedy: [...new Set(failed.flatMap(({ remedy }) => (remedy === undefined ? [] : [remedy])))].join(' '),
    })
  }
}

export interface Source {
  /** Whose data the nodes are to get: it is there, so what is between them has to be open already. */
  upstream: ClusterNode
  /** Whether the copy that a node has still makes room for a new one, or is moved aside for it. Absent: it stays, if there is one. */
  oldCopy?(context: CheckContext): Promise<'emptied' | 'kept-aside' | undefined>
}

/**
 * `about`: the nodes that the operation makes or changes. Of servers, ports and passwords it only takes note, unless they
 * come from a source: the rest is what the operation itself is about to put right.
 */
export function preflight(bench: Bench, about: readonly ClusterNode[], source?: Source): Step {
  const present = bench.cluster.nodes.filter(({ name }) => !bench.absent.has(name))
  const tried = source ? [...about, source.upstream] : present
  const [node] = about
  const names = about.map(({ name }) => name)
  return {
    id: 'cluster/checks',
    kind: 'verify',
    title: `check the edges between this service and ${tried.map(({ name }) => name).join(', ')}`,
    actions: [
      act('try SSH, names, ports, clocks, kernel limits, versions and disks; nothing is changed', async context => {
        const oldCopy = await source?.oldCopy?.(context)
        const replaced = node && oldCopy !== undefined ? { node, keptAside: oldCopy === 'kept-aside' } : undefined
        const items = await checkHosts(bench, tried, context.signal, replaced)
        const worse = items.filter(({ verdict }) => verdict !== 'ok')
        for (const { verdict, kind, from, to, detail } of worse)
          context.log(`${verdict}: ${kind} ${[from, to].filter(Boolean).join(' to ')}: ${detail}`)
        const failed = worse.filter(item => standsInTheWay(item, names, source?.upstream.name))
        const [first] = failed
        if (first && failed.every(({ kind }) => kind === 'disk'))
          throw new DiskFull(first.to ?? '', bench.layout.dataDirectory, `${first.detail}.`, 'not_started')
        if (first) throw new ChecksFailed(failed)
        context.note(`${items.length} edges tried, ${worse.length} not as they should be; the log has them`)
      }),
    ],
  }
}
