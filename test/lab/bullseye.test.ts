/** Debian 11, the oldest that is provisioned: PostgreSQL 13 and repmgr 5.2, which can do less than those that came after. */
import t from 'tap'
import type { Problem } from '../../src/api/problems.js'
import type { ClusterStatus } from '../../src/cluster/status.js'
import type { Operation } from '../../src/operations/operation.js'
import { ended, psql, startLabTest } from '../fixtures/lab.js'

// The first run on a machine builds the golden tree as well.
t.test('Debian 11: PostgreSQL 13 and repmgr 5.2', { timeout: 890_000 }, async t => {
  const { lab, node, addHosts, start } = await startLabTest(t, 'bullseye', { suite: 'bullseye' })
  const hosts = await addHosts(['pg1', 'pg2'])
  const service = await start()
  const done = async (method: string, path: string, body: unknown) => {
    const { status, body: asked } = await service.call<Operation & Problem>(method, path, { body })
    t.equal(status, 202, JSON.stringify(asked))
    return ended(() => service, asked.id, 600_000)
  }
  const cluster = {
    name: 'orders',
    postgresVersion: 13,
    nodes: hosts.map(node),
    archive: { mode: 'ship' },
    bootstrap: true,
  }

  await t.test('a cluster with an archive; the same call again changes nothing', async t => {
    const made = await done('POST', '/v1/clusters', cluster)
    t.equal(made.state, 'succeeded', JSON.stringify(made.error))
    for (const { name } of hosts)
      t.match((await lab.exec(name, ['sudo', '-u', 'postgres', 'repmgr', '--version'])).stdout, /^repmgr 5\.2/)
    t.match(await psql(lab, 'pg1', 'SHOW server_version'), /^13\./)
    t.match(made.steps.find(({ id }) => id === 'cluster/archive-proof')?.note, /read back on pg2/)
    const { body: status } = await service.call<ClusterStatus>('GET', '/v1/clusters/orders/status')
    t.equal(status.diagnosis.code, 'healthy', status.diagnosis.detail)
    t.match(status.nodes, [{ state: 'running' }, { state: 'streaming', upstream: 'pg1', slot: { active: true } }])
    const again = await done('POST', '/v1/clusters', cluster)
    t.equal(again.result?.changedSteps, 0, JSON.stringify(again.steps.filter(({ state }) => state === 'changed')))
  })

  await t.test('a standby reads restore_command at its start only: restarted where that is asked for', async t => {
    const program = '/usr/local/bin/understudy-wal-archive'
    const status = async () => (await service.call<ClusterStatus>('GET', '/v1/clusters/orders/status')).body
    const standby = (await status()).nodes.find(({ role }) => role === 'standby')?.name ?? ''
    const refusal = new RegExp(`${standby} has to be restarted .*restore_command`)
    const change = async (archive: object) => {
      const { status, body } = await service.call<Problem>('PUT', '/v1/clusters/orders/archive?wait=60', {
        body: archive,
      })
      t.equal(status, 409, JSON.stringify(body))
      t.match(body.detail, refusal)
      const operation = await done('PUT', '/v1/clusters/orders/archive', { ...archive, restart: true })
      t.equal(operation.state, 'succeeded', JSON.stringify(operation.error))
      t.same(
        operation.steps.flatMap(({ id, state }) =>
          id.endsWith('/archive-restart') && state === 'changed' ? [id] : [],
        ),
        [`${standby}/archive-restart`],
        'the standby, and never the primary',
      )
    }
    await change({ mode: 'none' })
    t.equal(await psql(lab, standby, 'SHOW restore_command'), '')
    t.not((await lab.exec(standby, ['test', '-e', program], { reject: false })).exitCode, 0)
    await change({ mode: 'ship' })
    t.match(await psql(lab, standby, 'SHOW restore_command'), program)
    t.match(await status(), { diagnosis: { code: 'healthy' }, archive: { mode: 'ship', failing: false } })
  })
})
