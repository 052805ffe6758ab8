import t from 'tap'
import type { Bench } from '../../jobs/bench.js'
import { rotateCredentials } from '../../jobs/rotate-credentials.js'
import type { ClusterNode } from '../../src/cluster/model.js'
import { OperationError } from '../../src/operations/errors.js'
import { stepsOf } from '../../src/operations/step.js'
import { ServerUnreachable } from '../../src/postgres/connect.js'
import { benchOf, primary, standby } from './fixtures/bench.js'

const witnessServer = { ...primary, systemIdentifier: '7300000000000000009' }

/** pg1 is the primary; `more` is what pg3 is described as. */
function benchWith(pg3: Partial<ClusterNode>): Bench {
  const found = { pg1: primary, pg2: standby, pg3: pg3.kind === 'witness' ? witnessServer : standby }
  const bench = benchOf(found, { absent: [], built: true })
  const nodes = bench.cluster.nodes.map(node => (node.name === 'pg3' ? { ...node, ...pg3 } : node))
  return { ...bench, cluster: { ...bench.cluster, nodes } }
}

t.test('standbys get the role with the WAL of the primary', async t => {
  t.same(
    stepsOf(rotateCredentials.plan(benchWith({}), {})).map(({ id }) => id),
    ['pg1/repmgr-role', 'pg1/pass-file', 'pg2/pass-file', 'pg3/pass-file', 'cluster/proof'],
  )
})

t.test('a witness has a role of its own, and is no standby', async t => {
  const steps = stepsOf(rotateCredentials.plan(benchWith({ kind: 'witness' }), {}))
  t.same(
    steps.map(({ id }) => id),
    ['pg1/repmgr-role', 'pg3/repmgr-role', 'pg1/pass-file', 'pg2/pass-file', 'pg3/pass-file', 'cluster/proof'],
  )
  t.equal(steps.at(-1)?.title, 'write on pg1, read on pg2')
})

t.test('a delayed standby is refused before anything is changed, however short the delay', async t => {
  for (const applyDelayMs of [1, 3_600_000]) {
    const error = t.throws(() => rotateCredentials.plan(benchWith({ applyDelayMs }), {})) as unknown
    if (!(error instanceof OperationError)) throw new Error('it was not refused')
    t.match(error, {
      code: 'rotation-delayed',
      outcome: 'not_started',
      message: /would reach pg3 only after its delay/,
    })
    t.match(error.remedy, /applyDelayMs of pg3/)
  }
})

t.test('a node that is away', async t => {
  const away = benchOf({ pg1: primary, pg2: standby }, { absent: ['pg3'], built: true })
  const signal = new AbortController().signal
  const address = { host: '10.0.0.1', port: 5432 }

  await t.test('before the primary has the new password: refused', async t => {
    const ask = () => Promise.reject(new ServerUnreachable('authentication', address, new Error('no')))
    await t.rejects(rotateCredentials.refuse?.({ ...away, ask }, {}, signal) ?? Promise.resolve(), {
      code: 'host-unreachable',
      outcome: 'not_started',
      message: /pg3 cannot be reached/,
    })
  })

  await t.test('once the primary has it: the others are told, and it is named', async t => {
    const ask: Bench['ask'] = async (_node, _options, work) => work(async () => [])
    await rotateCredentials.refuse?.({ ...away, ask }, {}, signal)
    t.same(
      stepsOf(rotateCredentials.plan(away, {})).map(({ id }) => id),
      ['pg1/repmgr-role', 'pg1/pass-file', 'pg2/pass-file', 'cluster/proof', 'pg3/absent'],
    )
  })
})

t.test('a node whose server does not run, or was never finished: refused before anything is changed', async t => {
  const ask = () =>
    Promise.reject(new ServerUnreachable('authentication', { host: 'pg1', port: 5432 }, new Error('no')))
  const signal = new AbortController().signal
  for (const pg3 of [
    { ...standby, running: false },
    { ...standby, marker: { cluster: 'orders', node: 'pg3', state: 'created' as const }, everStarted: false },
  ]) {
    const bench = benchOf({ pg1: primary, pg2: standby, pg3 }, { absent: [], built: true })
    await t.rejects(rotateCredentials.refuse?.({ ...bench, ask }, {}, signal) ?? Promise.resolve(), {
      outcome: 'not_started',
      message: /pg3: its server does not run/,
    })
  }
})
