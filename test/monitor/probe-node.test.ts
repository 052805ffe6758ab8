import t, { type Test } from 'tap'
import { newCluster } from '../../src/cluster/model.js'
import { probeNode } from '../../src/monitor/probe-node.js'
import { scramVerifier } from '../../src/postgres/scram.js'
import { makeRepmgrRole, startPostgres, type TestPostgres } from '../fixtures/postgres.js'
import { eventually } from '../fixtures/redis.js'

const PASSWORD = 'a-password'

async function startServer(t: Test): Promise<TestPostgres> {
  const server = await startPostgres(t, { settings: { shared_preload_libraries: 'repmgr' } })
  await makeRepmgrRole(server, scramVerifier(PASSWORD))
  await server.query('CREATE EXTENSION repmgr', [], { database: 'repmgr' })
  await server.query(
    `INSERT INTO repmgr.nodes (node_id, active, node_name, type, conninfo, repluser, config_file)
     VALUES (1, true, 'pg1', 'primary', 'host=127.0.0.1', 'repmgr', '/etc/repmgr.conf')`,
    [],
    { database: 'repmgr' },
  )
  return server
}

/** How long it took, beside the answer. */
async function probe(
  server: TestPostgres,
  passwords: string[],
  answerMs: number,
  signal = new AbortController().signal,
) {
  const ssh = { user: 'admin', hostKey: `SHA256:${'A'.repeat(43)}` }
  const cluster = newCluster(
    { name: 'orders', postgresVersion: 15, port: server.port, nodes: [{ name: 'pg1', host: server.host, ssh }] },
    '2026-03-01T12:00:00.000Z',
  )
  const [node] = cluster.nodes
  if (!node) throw new Error('no node')
  const begun = performance.now()
  const found = await probeNode(cluster, node, { passwords, trust: { tls: 'as-asked' } }, { signal, answerMs })
  return { found, tookMs: performance.now() - begun }
}

t.test('one server, asked within one time limit', async t => {
  const server = await startServer(t)

  await t.test('everything in one answer', async t => {
    const { found } = await probe(server, [PASSWORD], 5000)
    t.match(found, {
      node: 'pg1',
      observation: { inRecovery: false, timeline: 1 },
      metadata: { rows: [{ nodeId: 1, name: 'pg1', type: 'primary', active: true }] },
    })
    t.ok(Math.abs(Date.parse(found.at) - Date.now()) < 5000, found.at)
  })

  await t.test('the next password, where the first is not taken; none before it was built', async t => {
    t.match((await probe(server, ['old', PASSWORD], 5000)).found, { observation: { inRecovery: false } })
    t.match((await probe(server, ['old', 'older'], 5000)).found, { failure: { reason: 'authentication' } })
    t.match((await probe(server, [], 5000)).found, { failure: { reason: 'not_built' } })
  })

  await t.test('somebody has locked repmgr’s table: the rest is told all the same', async t => {
    const locked = server.query('BEGIN; LOCK repmgr.nodes; SELECT pg_sleep(60)', [], { database: 'repmgr' })
    const ended = t.rejects(locked)
    await eventually(() =>
      server.query("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'").then(rows => rows[0]),
    )
    const { found, tookMs } = await probe(server, [PASSWORD], 5000)
    t.match(found, { observation: { inRecovery: false }, metadata: { failure: /statement timeout/ } })
    t.ok(tookMs < 4000, `${tookMs} ms`)

    const waiting = async () => {
      const [row] = await server.query(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'understudy' AND wait_event_type = 'Lock'",
      )
      return row && Number(row.pid)
    }
    const cut = await eventually(async () => {
      let backend: number | undefined
      let answered = false
      const asked = probe(server, [PASSWORD], 2000).finally(() => {
        answered = true
      })
      while (backend === undefined && !answered) backend = await waiting()
      // Stopped, it does not notice that its own time is over.
      if (backend !== undefined) process.kill(backend, 'SIGSTOP')
      const answer = await asked
      if (backend !== undefined) process.kill(backend, 'SIGCONT')
      return answer.tookMs >= 2000 && answer
    }, 30_000)
    t.match(cut.found, { observation: { inRecovery: false }, metadata: { failure: /No whole answer within 2000 ms/ } })
    t.ok(cut.tookMs < 3000, `${cut.tookMs} ms`)
    await server.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
    await ended
  })

  await t.test('a server that hangs costs what it may, and no more', async t => {
    server.signal('SIGSTOP')
    const { found, tookMs } = await probe(server, [PASSWORD, 'another'], 700)
    server.signal('SIGCONT')
    t.match(found, { failure: { reason: 'timed_out', detail: /No whole answer within 700 ms/ } })
    t.ok(tookMs >= 690 && tookMs < 1500, `${tookMs} ms`)
  })

  await t.test('repmgr is not there', async t => {
    await server.query('DROP EXTENSION repmgr', [], { database: 'repmgr' })
    t.match((await probe(server, [PASSWORD], 5000)).found, {
      observation: { inRecovery: false },
      metadata: { failure: 'repmgr is not there.' },
    })
  })

  await t.test('nothing listens', async t => {
    await server.stop()
    t.match((await probe(server, [PASSWORD], 5000)).found, { failure: { reason: 'refused' } })
  })
})
