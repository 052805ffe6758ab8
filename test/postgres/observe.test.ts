import { once } from 'node:events'
import { createServer, type Socket } from 'node:net'
import t, { type Test } from 'tap'
import { lagBytes, parseLsn } from '../../src/cluster/lsn.js'
import { newCluster } from '../../src/cluster/model.js'
import type { Observation, Probe } from '../../src/cluster/observation.js'
import { describeStatus } from '../../src/cluster/status.js'
import { ServerUnreachable, withServer } from '../../src/postgres/connect.js'
import { observe as readObservation } from '../../src/postgres/observe.js'
import { scramVerifier } from '../../src/postgres/scram.js'
import {
  freePort,
  makeRepmgrRole,
  runAsPostgres,
  startPostgres,
  startStandby,
  type TestPostgres,
} from '../fixtures/postgres.js'
import { eventually } from '../fixtures/redis.js'

const PASSWORD = 'a-password'
const credentials = { user: 'repmgr', password: PASSWORD, database: 'repmgr' }
const observe = (server: { host: string; port: number }, timeoutMs = 5000) =>
  withServer(server, credentials, { timeoutMs }, query => readObservation(query))

async function startPrimary(t: Test): Promise<TestPostgres> {
  const primary = await startPostgres(t)
  await makeRepmgrRole(primary, scramVerifier(PASSWORD))
  return primary
}

t.test('replication slots with max_slot_wal_keep_size: at risk, then lost, on a real server', async t => {
  const settings = { max_slot_wal_keep_size: '1MB', max_replication_slots: 10 }
  const server = await startPostgres(t, { settings })
  await makeRepmgrRole(server, scramVerifier(PASSWORD))
  await server.query("SELECT pg_create_physical_replication_slot('repmgr_slot_2', true)")
  const slot = async () => (await observe(server)).slots[0]
  const cluster = {
    ...newCluster(
      {
        name: 'orders',
        postgresVersion: 15,
        nodes: ['pg1', 'pg2'].map((name, at) => ({
          name,
          host: `127.0.0.${at + 1}`,
          ssh: { user: 'admin', hostKey: 'SHA256:kL4Sd0mNsCXzAVEoGUfOTlZeIkoQbBFNrHqJCrW9yZQ' },
        })),
      },
      '2026-03-01T12:00:00.000Z',
    ),
    builtAt: '2026-03-01T12:00:00.000Z',
  }
  const diagnosis = async () => {
    const now = '2026-03-01T12:00:00.000Z'
    const probes: Probe[] = [
      { node: 'pg1', at: now, observation: await observe(server) },
      { node: 'pg2', at: now, failure: { reason: 'refused', detail: 'refused' } },
    ]
    return describeStatus(cluster, probes, { now, operation: null }).diagnosis
  }
  t.match(await slot(), { walStatus: 'reserved' })
  t.ok(((await slot())?.safeWalBytes ?? 0) > 0, 'so much may still be written')
  t.match(await diagnosis(), { code: 'standby_down' })

  for (let at = 0; at < 3; at += 1) {
    await server.query("SELECT pg_logical_emit_message(false, 'test', repeat('x', 1000000))")
    await server.query('SELECT pg_switch_wal()')
  }
  t.match(await slot(), { walStatus: 'unreserved' })
  t.ok(((await slot())?.safeWalBytes ?? 1) <= 0)
  t.match(await diagnosis(), {
    code: 'standby_down',
    detail: /pg2 does not answer.*pg1 is about to remove WAL that pg2/,
  })

  await server.query('CHECKPOINT')
  t.match(await slot(), { walStatus: 'lost', safeWalBytes: null, active: false })
  t.match(await diagnosis(), { code: 'slot_lost', detail: /^pg1 has removed WAL that pg2 had not received/ })
})

t.test('a primary and its streaming standby', async t => {
  const primary = await startPrimary(t)
  await primary.query("SELECT pg_create_physical_replication_slot('repmgr_slot_2', true)")
  await primary.query("SELECT pg_create_physical_replication_slot('repmgr_slot_9', true)")
  await primary.query("SELECT pg_create_physical_replication_slot('never_used')")
  const standby = await startStandby(t, primary, { name: 'pg2', password: PASSWORD, slot: 'repmgr_slot_2' })
  const streaming = await eventually(async () => {
    const seen = await observe(primary)
    return seen.streams[0]?.state === 'streaming' && seen
  })
  const version = (await runAsPostgres('postgres', ['--version'])).split(' ')[2]?.trim()

  await t.test('the primary', async t => {
    const [control] = await primary.query('SELECT system_identifier::text AS id FROM pg_control_system()')
    t.match(streaming, {
      inRecovery: false,
      systemIdentifier: control?.id,
      serverVersion: version,
      timeline: 1,
      replayAgeMs: null,
      streams: [{ applicationName: 'pg2', state: 'streaming', syncState: 'async' }],
    })
    t.equal(streaming.systemIdentifier.length, 19, 'all its digits: a number would have lost some')
    t.notOk('receiver' in streaming)
    t.notOk('receivedLsn' in streaming)
    t.notOk('replayedLsn' in streaming)
    t.notOk('conflicts' in streaming)
    const before = parseLsn(String((await primary.query('SELECT pg_current_wal_lsn()::text AS lsn'))[0]?.lsn))
    const now = parseLsn((await observe(primary)).currentLsn ?? '')
    t.ok(lagBytes(now, before) >= 0)
    const started = Date.parse(streaming.startedAt)
    t.ok(started <= Date.now() && started > Date.now() - 60_000, streaming.startedAt)
  })

  await t.test('its slots, and what they retain', async t => {
    await primary.query("SELECT pg_logical_emit_message(false, 'test', repeat('x', 100000))")
    const seen = await eventually(async () => {
      const { slots } = await observe(primary)
      return (slots.find(({ name }) => name === 'repmgr_slot_9')?.retainedBytes ?? 0) >= 100_000 && slots
    })
    const byName = Object.fromEntries(seen.map(slot => [slot.name, slot]))
    t.match(byName.repmgr_slot_2, { active: true })
    t.equal(typeof byName.repmgr_slot_2?.retainedBytes, 'number')
    t.equal(byName.repmgr_slot_9?.active, false)
    t.match(byName.repmgr_slot_2, { walStatus: 'reserved', safeWalBytes: null }, 'no limit is set')
    const nothing = { retainedBytes: null, walStatus: null, safeWalBytes: null }
    const lasting = { kind: 'physical', temporary: false, database: null, usedBy: null }
    t.strictSame(byName.never_used, { name: 'never_used', active: false, ...lasting, ...nothing })
    t.match(byName.repmgr_slot_2, { kind: 'physical', usedBy: 'pg2' })
  })

  await t.test('the standby', async t => {
    await primary.query('CREATE TABLE written (at int)')
    const { currentLsn = '' } = await observe(primary)
    const seen = await eventually(async () => {
      const seen = await observe(standby)
      return lagBytes(parseLsn(currentLsn), parseLsn(seen.replayedLsn ?? '0/0')) <= 0 && seen
    })
    t.match(seen, {
      inRecovery: true,
      systemIdentifier: streaming.systemIdentifier,
      serverVersion: version,
      timeline: 1,
      receiver: { status: 'streaming', upstreamHost: '127.0.0.1', slotName: 'repmgr_slot_2' },
      streams: [],
      slots: [],
      conflicts: { tablespace: 0, lock: 0, snapshot: 0, bufferPin: 0, deadlock: 0, logicalSlot: 0 },
    })
    const heardMs = seen.receiver?.lastMessageAgeMs
    t.ok(typeof heardMs === 'number' && heardMs >= 0 && heardMs < 60_000, `${heardMs} ms ago`)
    t.notOk('history' in seen, 'the first timeline has none')
    t.notOk('currentLsn' in seen)
    t.ok(lagBytes(parseLsn(seen.receivedLsn ?? ''), parseLsn(seen.replayedLsn ?? '')) >= 0)
    t.ok(typeof seen.replayAgeMs === 'number' && seen.replayAgeMs >= 0 && seen.replayAgeMs < 60_000)
  })

  await t.test('a standby whose replay is paused has received more than it replayed, and its age grows', async t => {
    await standby.query('SELECT pg_wal_replay_pause()')
    await primary.query('INSERT INTO written VALUES (1)')
    const behind = (seen: Observation) => lagBytes(parseLsn(seen.receivedLsn ?? ''), parseLsn(seen.replayedLsn ?? ''))
    const first = await eventually(async () => {
      const seen = await observe(standby)
      return behind(seen) > 0 && seen
    })
    const later = await eventually(async () => {
      const seen = await observe(standby)
      return (seen.replayAgeMs ?? 0) > (first.replayAgeMs ?? 0) && seen
    })
    t.ok(behind(later) > 0)
    await standby.query('SELECT pg_wal_replay_resume()')
    await eventually(async () => behind(await observe(standby)) === 0)
  })

  await t.test('nobody stays connected', async t => {
    await eventually(async () => {
      const [row] = await primary.query(
        "SELECT count(*)::int AS open FROM pg_stat_activity WHERE application_name = 'understudy'",
      )
      return row?.open === 0
    })
    t.pass()
  })

  await t.test('the primary goes away: the standby has no receiver', async t => {
    await primary.stop()
    const seen = await eventually(async () => {
      const seen = await observe(standby)
      return seen.receiver?.status !== 'streaming' && seen
    })
    t.equal(seen.inRecovery, true)
    t.equal(seen.timeline, 1)
    t.equal(await observe(primary).catch(error => error.reason), 'refused')
  })

  await t.test('promoted: a primary on the next timeline, before any checkpoint', async t => {
    await standby.query('SELECT pg_promote()')
    const seen = await observe(standby)
    t.match(seen, { inRecovery: false, timeline: 2, systemIdentifier: streaming.systemIdentifier })
    t.match(seen.history, /^1\t[0-9A-F]+\/[0-9A-F]+\t/, 'and where it left the first one')
    t.ok(seen.currentLsn)
  })
})

t.test('a standby that lost its stream just after a switch knows the timeline that it was on', async t => {
  const primary = await startPrimary(t)
  const heir = await startStandby(t, primary, { name: 'pg2', password: PASSWORD })
  const standby = await startStandby(t, primary, { name: 'pg3', password: PASSWORD })
  await heir.query('SELECT pg_promote()')
  const streamFrom = async (conninfo: string) => {
    await standby.query(`ALTER SYSTEM SET primary_conninfo = '${conninfo}'`)
    await standby.query('SELECT pg_reload_conf()')
  }
  await streamFrom(`host=127.0.0.1 port=${heir.port} user=repmgr password=${PASSWORD} application_name=pg3`)
  await heir.query('CREATE TABLE written_later (at int)')
  await eventually(() => standby.query("SELECT 1 FROM pg_class WHERE relname = 'written_later'").then(rows => rows[0]))
  t.match(await observe(standby), { timeline: 2, receiver: { status: 'streaming' } })
  await streamFrom('')
  const seen = await eventually(async () => {
    const seen = await observe(standby)
    return seen.receiver === undefined && seen
  })
  const [control] = await standby.query('SELECT timeline_id FROM pg_control_checkpoint()')
  t.equal(control?.timeline_id, 1, 'its control file is of the last checkpoint')
  t.equal(seen.timeline, 2)
  t.equal(seen.history, (await observe(heir)).history)
})

t.test('a query that a standby cancels, and a slot of a subscriber', async t => {
  const primary = await startPostgres(t, { settings: { wal_level: 'logical', max_replication_slots: 10 } })
  await makeRepmgrRole(primary, scramVerifier(PASSWORD))
  await primary.query('CREATE TABLE doomed (at int)')
  await primary.query("SELECT pg_create_logical_replication_slot('feed', 'pgoutput')")
  const settings = { max_standby_streaming_delay: 0 }
  const standby = await startStandby(t, primary, { name: 'pg2', password: PASSWORD, settings })
  t.match((await observe(primary)).slots, [{ name: 'feed', kind: 'logical', database: 'postgres', active: false }])
  const reading = standby.query('SELECT pg_sleep(60) FROM (SELECT count(*) FROM doomed) AS empty')
  const cancelled = t.rejects(reading, { code: '40001' })
  await eventually(() =>
    standby.query("SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'").then(rows => rows[0]),
  )
  await primary.query('DROP TABLE doomed')
  await cancelled
  const { conflicts } = await eventually(async () => {
    const seen = await observe(standby)
    return (seen.conflicts?.lock ?? 0) > 0 && seen
  })
  t.match(conflicts, { lock: 1, snapshot: 0 })
})

t.test('why a server cannot be connected to', async t => {
  const primary = await startPrimary(t)
  const reasonOf = async (attempt: Promise<unknown>) => {
    const error = await attempt.then(
      () => undefined,
      (error: unknown) => error,
    )
    if (!(error instanceof ServerUnreachable)) throw new Error(`not ServerUnreachable but ${error}`)
    t.match(error, { code: 'server-unreachable', outcome: 'not_started' })
    t.ok(error.remedy.length > 10, error.remedy)
    t.notMatch(error.message, PASSWORD)
    return error.reason
  }
  const as = (change: Partial<typeof credentials>) =>
    withServer(primary, { ...credentials, ...change }, { timeoutMs: 5000 }, query => readObservation(query))

  await t.test('nothing listens', async t => {
    t.equal(await reasonOf(observe({ host: '127.0.0.1', port: await freePort() })), 'refused')
  })

  await t.test('something listens and never answers', async t => {
    const silent = await silentListener(t)
    const begun = performance.now()
    t.equal(await reasonOf(observe({ host: '127.0.0.1', port: silent }, 300)), 'timed_out')
    t.ok(performance.now() - begun < 2500, 'and it is not waited for much longer')
  })

  await t.test('a server that hangs', async t => {
    primary.signal('SIGSTOP')
    t.equal(await reasonOf(observe(primary, 300)), 'timed_out')
    primary.signal('SIGCONT')
    t.match(await observe(primary), { inRecovery: false })
  })

  await t.test('it does not know us', async t => {
    t.equal(await reasonOf(as({ password: 'wrong' })), 'authentication')
    t.equal(await reasonOf(as({ user: 'nobody' })), 'authentication')
  })

  await t.test('all connections are taken', async t => {
    await primary.query(`CREATE ROLE crowded LOGIN CONNECTION LIMIT 0 PASSWORD '${scramVerifier(PASSWORD)}'`)
    t.equal(await reasonOf(as({ user: 'crowded' })), 'too_many_connections')
  })

  await t.test('the database is not there', async t => {
    t.equal(await reasonOf(as({ database: 'nowhere' })), 'other')
  })

  await t.test('it is starting up', async t => {
    // A standby that serves no queries says for ever what any other one says until its recovery has come far enough.
    const standby = await startStandby(t, primary, {
      ...{ name: 'pg2', password: PASSWORD, connects: false },
      settings: { hot_standby: 'off' },
    })
    await eventually(async () => (await observe(standby).catch(error => error.reason)) !== 'refused')
    t.equal(await reasonOf(observe(standby)), 'starting_up')
  })

  await t.test('who gives up waiting hears of that, and at once', async t => {
    const silent = await silentListener(t)
    const begun = performance.now()
    const abort = new AbortController()
    const never = async () => t.fail('it was let in')
    const waiting = withServer(
      { host: '127.0.0.1', port: silent },
      credentials,
      { timeoutMs: 20_000, signal: abort.signal },
      never,
    )
    setImmediate(() => abort.abort(new Error('enough')))
    await t.rejects(waiting, { message: 'enough' })
    t.ok(performance.now() - begun < 5000)
    await t.rejects(
      withServer(primary, credentials, { timeoutMs: 5000, signal: AbortSignal.abort(new Error('before')) }, never),
      { message: 'before' },
    )
  })

  await t.test('a statement has the same limit, and its error passes as it is', async t => {
    const begun = performance.now()
    const run = (sql: string) => withServer(primary, credentials, { timeoutMs: 300 }, query => query(sql))
    await t.rejects(run('SELECT pg_sleep(20)'), { code: '57014' })
    t.ok(performance.now() - begun < 5000)
    await t.rejects(run('SELECT 1 / 0'), { code: '22012' })
    const abort = new AbortController()
    const asked = withServer(primary, credentials, { timeoutMs: 20_000, signal: abort.signal }, async query => {
      setImmediate(() => abort.abort(new Error('enough')))
      return query('SELECT pg_sleep(15)')
    })
    await t.rejects(asked, { message: 'enough' })
    t.ok(performance.now() - begun < 10_000)
  })
})

async function silentListener(t: Test): Promise<number> {
  const sockets = new Set<Socket>()
  const listener = createServer(socket => void sockets.add(socket.on('error', () => undefined))).listen(0, '127.0.0.1')
  await once(listener, 'listening')
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
    listener.close()
  })
  const address = listener.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  return address.port
}
