/** What an adopted server is taken for, and when it gets its mark. Nothing is connected to. */
import t from 'tap'
import { type Bench, takenOver } from '../../jobs/bench.js'
import { takeOver } from '../../jobs/steps/take-over.js'
import type { Marker } from '../../src/postgres/inspect.js'
import { benchOf, type Found, primary, standby, witness } from './fixtures/bench.js'

/** As `openBench` has it: the host says what it has, and the adopted node is seen through that. */
function adoptedBench(found: Found): Bench {
  const bench = benchOf({ pg2: found }, { absent: [], built: true, adopted: true })
  return {
    ...bench,
    async inspect(node) {
      const { server } = bench.found(node)
      return takenOver(bench.cluster, node, 'marker' in found ? server : { ...server, marker: undefined })
    },
  }
}

async function checkOf(found: Found) {
  const bench = adoptedBench(found)
  const node = bench.cluster.nodes.find(({ name }) => name === 'pg2')
  const [step] = node ? takeOver(bench, node) : []
  if (step?.kind !== 'change') throw new Error('no step')
  return step.check({ signal: AbortSignal.timeout(1000), log: () => undefined })
}

const { marker: _marker, ...unmarked } = standby

t.test('the server that was adopted is marked once', async t => {
  t.match(await checkOf(unmarked), { done: false, reason: /is missing/ })
  for (const state of ['in-use', 'cloning', 'creating', 'created', 'wiping'] satisfies Marker['state'][])
    t.match(await checkOf({ ...standby, marker: { state } }), { done: true }, `a mark ${state} stays as it is`)
})

t.test('another one is not', async t => {
  t.match(await checkOf({ directory: 'absent' }), { done: true })
  await t.rejects(checkOf({ ...unmarked, systemIdentifier: '1' }), { code: 'data-directory-not-empty' })
  await t.rejects(checkOf({ ...standby, marker: { node: 'pg1' } }), { code: 'host-taken' })
})

t.test('its own repmgr.conf is no obstacle once it is marked', async t => {
  const bench = adoptedBench({ ...standby, marker: {}, foreignRepmgrConf: true })
  const [, node] = bench.cluster.nodes
  if (!node) throw new Error('no node')
  t.equal((await bench.inspect(node, AbortSignal.timeout(1000))).foreignRepmgrConf, false)
})

t.test('a witness is known by the identifier of its own server', async t => {
  const { cluster } = benchOf({ pg1: primary, w1: witness }, { absent: [], built: true, adopted: true })
  const node = cluster.nodes.find(({ name }) => name === 'w1')
  if (!node) throw new Error('no witness')
  const found = benchOf({ w1: { ...witness, foreignRepmgrConf: true } }, { absent: [], built: true }).found(node).server
  const unmarkedWitness = { ...found, marker: undefined }
  const own = witness.systemIdentifier ?? ''
  t.match(takenOver(cluster, { ...node, systemIdentifier: own }, unmarkedWitness), {
    unmarked: true,
    foreignRepmgrConf: false,
    marker: { cluster: 'orders', node: 'w1', state: 'in-use' },
  })
  for (const other of [undefined, '1', cluster.systemIdentifier])
    t.equal(
      takenOver(cluster, { ...node, ...(other ? { systemIdentifier: other } : {}) }, unmarkedWitness).marker,
      undefined,
      'of another one nobody says whose it is',
    )
})
