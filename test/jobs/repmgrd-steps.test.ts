/** The steps around a plan, on two real servers with repmgr, one of them watched by a real repmgrd. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { rmSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import type { Bench } from '../../jobs/bench.js'
import { restartNode } from '../../jobs/restart-node.js'
import { RepmgrdOutOfReach, runsRepmgrd, withRepmgrdHeld } from '../../jobs/steps/repmgrd.js'
import type { RepmgrdHold } from '../../src/cluster/repmgrd.js'
import type { Command } from '../../src/host/command.js'
import { Superseded } from '../../src/host/errors.js'
import { type Host, openHostPool } from '../../src/host/host.js'
import { type ChangeStep, type StepContext, stepsOf } from '../../src/operations/step.js'
import { withServer } from '../../src/postgres/connect.js'
import { observe as readObservation } from '../../src/postgres/observe.js'
import {
  makeRepmgrRole,
  ownDirectory,
  POSTGRES_BIN,
  requireFile,
  runAsPostgres,
  startPostgres,
  startStandby,
  type TestPostgres,
} from '../fixtures/postgres.js'
import { eventually } from '../fixtures/redis.js'
import { freePort, startSshd } from '../fixtures/sshd.js'
import { benchOf, primary as foundPrimary, standby as foundStandby } from './fixtures/bench.js'

const SCOPE = `repmgrd-${process.pid}`
const preload = { shared_preload_libraries: 'repmgr', wal_log_hints: 'on' }

t.test('holding repmgrd still', { timeout: 600_000 }, async t => {
  requireFile(join(POSTGRES_BIN, 'repmgrd'), 'postgresql-15-repmgr')
  const pg1 = await startPostgres(t, { settings: preload })
  await makeRepmgrRole(pg1, 'secret')
  await writeFile(join(pg1.dataDirectory, 'pg_hba.conf'), 'host replication all 127.0.0.1/32 trust\n', { flag: 'a' })
  await pg1.query('SELECT pg_reload_conf()')
  await pg1.query('CREATE EXTENSION repmgr', [], { database: 'repmgr' })
  const pg2 = await startStandby(t, pg1, { name: 'pg2', password: 'secret', settings: preload })
  const servers: Record<string, TestPostgres> = { pg1, pg2 }

  const sshd = await startSshd()
  const pool = openHostPool({ identity: { privateKey: sshd.privateKey }, connectTimeoutMs: 2000 })
  t.teardown(async () => {
    await pool.close()
    await sshd.stop()
    for (const end of ['lock', 'epoch', 'epoch.new']) rmSync(`/var/lib/understudy/${SCOPE}.${end}`, { force: true })
  })
  const silent = new Set<string>()
  const nowhere = await freePort()
  /** Both servers are on this machine, each with a port and a socket of its own. */
  const hostOf = (name: string): Host => {
    const host = pool.host(sshd.address(silent.has(name) ? { port: nowhere } : {}))
    const { port, socketDirectory } = servers[name] as TestPostgres
    const there = (command: Command): Command => ({
      ...command,
      env: { ...command.env, PGHOST: socketDirectory },
      argv: command.argv.map((word, at) => (command.argv[at - 1] === '-p' ? String(port) : word)),
    })
    return { ...host, run: (command, options) => host.run(there(command), options) }
  }
  const made = benchOf({ pg1: foundPrimary, pg2: foundStandby }, { absent: [], built: true })
  const bench: Bench = { ...made, cluster: { ...made.cluster, name: SCOPE }, host: ({ name }) => hostOf(name) }

  let kept: RepmgrdHold | undefined
  const record = {
    read: async () => kept,
    write: async (hold: RepmgrdHold | undefined) => {
      kept = hold
    },
  }
  const plan = stepsOf(withRepmgrdHeld(bench, record, restartNode.plan(made, { node: 'pg2' })))
  const [pause, unpause] = [plan[0], plan.at(-1)] as [ChangeStep, ChangeStep]
  const context = (operationId: string, epoch: number): StepContext => ({
    operationId,
    epoch,
    signal: AbortSignal.timeout(120_000),
    draining: new AbortController().signal,
    log: () => undefined,
    progress: () => undefined,
    note: () => undefined,
    decide: () => undefined,
    report: () => undefined,
  })
  const perform = async (step: ChangeStep, operationId: string, epoch = 5) => {
    for (const action of step.actions) await action.perform(context(operationId, epoch))
    return step.check(context(operationId, epoch))
  }
  const flag = async (server: TestPostgres) =>
    (await server.query('SELECT repmgr.repmgrd_is_paused() AS paused', [], { database: 'repmgr' }))[0]?.paused
  const flags = async () => ({ pg1: await flag(pg1), pg2: await flag(pg2) })
  const setFlag = (server: TestPostgres, paused: boolean) =>
    server.query(`SELECT repmgr.repmgrd_pause(${paused})`, [], { database: 'repmgr' })
  const observe = async (server: TestPostgres) =>
    (
      await withServer(
        { host: server.host, port: server.port, trust: { tls: 'as-asked' } },
        { user: 'repmgr', database: 'repmgr', password: 'secret' },
        { timeoutMs: 10_000 },
        query => readObservation(query),
      )
    ).repmgrd
  const AWAKE = { pg1: false, pg2: false }

  await t.test('whether it runs is read from the servers', async t => {
    t.equal(await runsRepmgrd(bench, AbortSignal.timeout(30_000)), false)
    t.same(await observe(pg1), { running: false, paused: false })
    const directory = await ownDirectory(t)
    const conf = join(directory, 'repmgr.conf')
    await writeFile(
      conf,
      [
        'node_id=1',
        "node_name='pg1'",
        `conninfo='host=${pg1.socketDirectory} port=${pg1.port} user=repmgr dbname=repmgr'`,
        `data_directory='${pg1.dataDirectory}'`,
        `pg_bindir='${POSTGRES_BIN}'`,
        '',
      ].join('\n'),
    )
    await runAsPostgres('repmgr', ['-f', conf, 'primary', 'register'])
    const argv = ['-u', 'postgres', join(POSTGRES_BIN, 'repmgrd'), '-f', conf, '--daemonize=false', '--no-pid-file']
    const daemon = spawn('sudo', argv, { stdio: 'ignore', cwd: '/' })
    const ended = once(daemon, 'exit')
    await eventually(async () => (await observe(pg1))?.running === true, 30_000)
    t.equal(await runsRepmgrd(bench, AbortSignal.timeout(30_000)), true)
    daemon.kill('SIGTERM')
    await ended
  })

  await t.test('paused on every node once that is recorded, and unpaused', async t => {
    t.match(await pause.check(context('op_1', 5)), { done: false, reason: 'it is not paused on pg1, pg2' })
    t.match(await perform(pause, 'op_1'), { done: true, note: 'paused on pg1, pg2' })
    t.same(
      [kept, await flags()],
      [
        { operation: 'op_1', nodes: ['pg1', 'pg2'] },
        { pg1: true, pg2: true },
      ],
    )
    t.match(await observe(pg2), { paused: true })
    t.match(await perform(unpause, 'op_2'), { done: true }, 'another operation lets it be')
    t.same(await flags(), { pg1: true, pg2: true })
    t.match(await perform(unpause, 'op_1'), { done: true })
    t.same([kept, await flags()], [undefined, AWAKE])
  })

  await t.test('a worker of before is refused by the hosts', async t => {
    await perform(pause, 'op_1', 7)
    await t.rejects(perform(unpause, 'op_1', 6), Superseded)
    t.same(await flags(), { pg1: true, pg2: true })
    await perform(unpause, 'op_1', 7)
    t.same(await flags(), AWAKE)
  })

  await t.test('what was paused by hand stays paused', async t => {
    await setFlag(pg2, true)
    await perform(pause, 'op_1', 7)
    t.same(kept?.nodes, ['pg1'])
    await perform(unpause, 'op_1', 7)
    t.same(await flags(), { pg1: false, pg2: true })
    await setFlag(pg2, false)
  })

  await t.test('one that streams and cannot be told is a reason not to begin', async t => {
    silent.add('pg2')
    await t.rejects(perform(pause, 'op_1', 7), RepmgrdOutOfReach)
    t.same([kept, await flags()], [undefined, AWAKE], 'nothing was touched')
    await pg2.stop()
    await eventually(
      async () => (await pg1.query('SELECT count(*)::int AS count FROM pg_stat_replication'))[0]?.count === 0,
      30_000,
    )
    t.match(await perform(pause, 'op_1', 7), { done: true, note: 'paused on pg1' }, 'without a stream it sees nothing')
    silent.clear()
    await pg2.start()
    await perform(unpause, 'op_1', 7)
    t.same(await flags(), AWAKE)
  })

  await t.test('while nobody accepts writes it stays paused, and the next operation unpauses it', async t => {
    await perform(pause, 'op_1', 7)
    await pg1.stop()
    const end = await perform(unpause, 'op_1', 7)
    t.match(end, { done: true, note: 'it stays paused on pg1, pg2: no server accepts writes' })
    t.equal(await flag(pg2), true)
    await pg1.start()
    // That was a crash, in which the flag is lost: it is set again.
    t.same(await flags(), { pg1: false, pg2: true })
    t.match(await pause.check(context('op_2', 7)), { done: false, reason: 'it is not paused on pg1' })
    t.match(await perform(pause, 'op_2', 7), { done: true, note: 'paused on pg1, pg2' })
    t.same(kept, { operation: 'op_2', nodes: ['pg1', 'pg2'] })
    await perform(unpause, 'op_2', 7)
    t.same([kept, await flags()], [undefined, AWAKE])
  })

  await t.test('a host that does not answer keeps its place in the record', async t => {
    await perform(pause, 'op_1', 7)
    silent.add('pg2')
    await perform(unpause, 'op_1', 7)
    t.match(kept, { operation: 'op_1', nodes: ['pg2'], kept: 'pg2 did not answer' })
    silent.clear()
    t.same(await flags(), { pg1: false, pg2: true })
  })
})
