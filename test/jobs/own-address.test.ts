/** Whose address belongs into pg_hba.conf: a worker's, and not that of a process which only answers requests. */
import t from 'tap'
import { withoutOwnAddress } from '../../jobs/bench.js'
import { provisionNode } from '../../jobs/provision-node.js'
import { stepsOf } from '../../src/operations/step.js'
import { benchOf, primary, standby } from './fixtures/bench.js'

const WORKER = '192.0.2.7'
const API = '192.0.2.8'
const NAMED = '192.0.2.9'

t.test('an API process plans and compares with what the workers have recorded', async t => {
  const bench = benchOf({ pg1: primary, pg2: standby }, { absent: [], built: true })
  const seen = {
    ...bench,
    cluster: { ...bench.cluster, controllers: [WORKER] },
    seenControllers: [WORKER, API],
    controllers: [WORKER, API, NAMED],
  }
  const hba = (from: typeof seen | ReturnType<typeof withoutOwnAddress>) => {
    const step = stepsOf(provisionNode.plan(from, { node: 'pg2' })).find(({ id }) => id === 'pg2/access')
    const [file] = step?.actions.map(({ description }) => description) ?? []
    return file?.kind === 'file' ? file.content : ''
  }
  t.match(hba(seen), new RegExp(API), 'a worker lets itself in')
  const other = withoutOwnAddress(seen, [NAMED])
  t.notMatch(hba(other), new RegExp(API))
  t.match(hba(other), new RegExp(WORKER))
  t.match(hba(other), new RegExp(NAMED), 'what its settings name counts')
  t.same(other.seenControllers, [WORKER])
  t.same(withoutOwnAddress({ ...seen, cluster: bench.cluster }, []).controllers, [], 'nothing was recorded yet')
})
