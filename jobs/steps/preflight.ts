/** Looks before anything is touched: what would make an operation fail halfway is said at its beginning. */
import type { CheckResult } from '../../src/cluster/checks.js'
import { act } from '../../src/host/actions.js'
import { OperationError } from '../../src/operations/errors.js'
import type { Step } from '../../src/operations/step.js'
import type { Bench } from '../bench.js'
import { checkHosts } from '../run-checks.js'

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

/** Servers, ports and passwords are what the operation itself is about to put right: of those it only takes note. */
const NEEDED: readonly CheckResult['kind'][] = ['ssh', 'name_resolution', 'clock']

export function preflight(bench: Bench): Step {
  const nodes = bench.cluster.nodes.filter(({ name }) => !bench.absent.has(name))
  return {
    id: 'cluster/checks',
    kind: 'verify',
    title: `check the edges between this service and ${nodes.map(({ name }) => name).join(', ')}`,
    actions: [
      act('try SSH, names, ports, clocks, kernel limits, versions and disks; nothing is changed', async context => {
        const items = await checkHosts(bench.cluster, nodes, bench.host, context.signal)
        const worse = items.filter(({ verdict }) => verdict !== 'ok')
        for (const { verdict, kind, from, to, detail } of worse)
          context.log(`${verdict}: ${kind} ${[from, to].filter(Boolean).join(' to ')}: ${detail}`)
        const failed = worse.filter(({ verdict, kind }) => verdict === 'failed' && NEEDED.includes(kind))
        if (failed.length > 0) throw new ChecksFailed(failed)
        context.note(`${items.length} edges tried, ${worse.length} not as they should be; the log has them`)
      }),
    ],
  }
}
