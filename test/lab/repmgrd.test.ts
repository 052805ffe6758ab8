/**
 * A cluster whose failover is repmgrd's, with a real repmgrd on every node that promotes within three seconds: held still
 * while this service works, itself again afterwards.
 */
import t, { type Test } from 'tap'
import type { LabHost } from '../../lab/lab.js'
import type { LabService } from '../../lab/service.js'
import type { Problem } from '../../src/api/problems.js'
import type { ClusterStatus } from '../../src/cluster/status.js'
import type { Operation } from '../../src/operations/operation.js'
import { buildByHand, HAND_MADE_CONF } from '../fixtures/built-by-hand.js'
import { ended, psql, startLabTest, stepIn } from '../fixtures/lab.js'
import { eventually } from '../fixtures/redis.js'

const BIN = '/usr/lib/postgresql/15/bin'
const SETTINGS = [
  "listen_addresses = '*'",
  'shared_buffers = 64MB',
  "shared_preload_libraries = 'repmgr'",
  'wal_log_hints = on',
  'wal_keep_size = 256MB',
  'hot_standby = on',
]
/** Two tries, a second apart: a switchover takes longer than that. */
const REPMGRD = `
failover=automatic
promote_command='${BIN}/repmgr standby promote -f ${HAND_MADE_CONF} --log-to-file'
follow_command='${BIN}/repmgr standby follow -f ${HAND_MADE_CONF} --log-to-file --upstream-node-id=%n'
monitor_interval_secs=1
reconnect_attempts=2
reconnect_interval=1
log_file='/var/log/postgresql/repmgrd.log'
`

t.test('repmgrd is held still while this service works', { timeout: 880_000 }, async t => {
  const { lab, node, addHosts, start } = await startLabTest(t, 'repmgrd', { postgres: true })
  const hosts = (await addHosts(['pg1', 'pg2', 'pg3'])) as [LabHost, LabHost, LabHost]
  const names = hosts.map(({ name }) => name)
  let service: LabService = await start()
  await buildByHand(lab, hosts, { settings: SETTINGS, application: lab.gateway })
  for (const name of names) {
    await lab.exec(name, ['sh', '-euc', `cat >>${HAND_MADE_CONF} <<'END'${REPMGRD}END`])
    const daemon = `${BIN}/repmgrd -f ${HAND_MADE_CONF} --daemonize=false --no-pid-file`
    await lab.exec(name, [
      'sh',
      '-c',
      `systemd-run --quiet --unit=repmgrd-by-hand --uid=postgres --property=Restart=always ${daemon}`,
    ])
  }
  const ask = (host: string, statement: string) =>
    lab
      .exec(host, ['sudo', '-u', 'postgres', 'psql', '-XAtqc', statement, 'repmgr'])
      .then(({ stdout }) => stdout.trim())
  const all = (statement: string) => Promise.all(names.map(name => ask(name, statement)))
  const status = async () => (await service.call<ClusterStatus>('GET', '/v1/clusters/orders/status')).body
  /** Without slots, as it was built by hand: that is another diagnosis. */
  const healthy = (primary?: string) =>
    eventually(async () => {
      const now = await status()
      const right = now.primary !== null && (primary === undefined || now.primary === primary)
      return right && now.nodes.filter(({ state }) => state === 'streaming').length === 2 ? now : undefined
    }, 60_000)
  const timeline = async (primary: string) =>
    Number.parseInt((await psql(lab, primary, 'SELECT pg_walfile_name(pg_current_wal_lsn())')).slice(0, 8), 16)
  const state = ({ steps }: Operation, id: string) => steps.find(step => step.id === id)?.state
  /** It runs on every node, is paused on none, and has promoted nobody. */
  const isItself = async (t: Test) => {
    t.same(await all('SELECT repmgr.repmgrd_is_running()'), ['t', 't', 't'], 'repmgrd runs')
    t.same(await all('SELECT repmgr.repmgrd_is_paused()'), ['f', 'f', 'f'], 'and is paused nowhere')
    const acted = "SELECT count(*) FROM repmgr.events WHERE event = 'repmgrd_failover_promote'"
    t.equal(await ask((await healthy()).primary ?? '', acted), '0', 'and has promoted nobody')
  }

  const [pg1, ...others] = hosts
  const { status: code, body: adopted } = await service.call<Problem>('POST', '/v1/clusters/adopt', {
    body: {
      name: 'orders',
      node: { host: pg1.address, ssh: node(pg1).ssh },
      nodes: others.map(host => ({ name: host.name, host: host.address, ssh: node(host).ssh })),
      repmgrPassword: 'password',
    },
  })
  t.equal(code, 201, JSON.stringify(adopted))
  await eventually(async () => (await all('SELECT repmgr.repmgrd_is_running()')).every(word => word === 't'), 60_000)
  await isItself(t)
  t.comment(JSON.stringify((await status()).diagnosis))

  await t.test('a switchover', async t => {
    const before = await timeline('pg1')
    const { body } = await service.call<Operation>('POST', '/v1/clusters/orders/switchover', { body: { to: 'pg2' } })
    const operation = await ended(() => service, body.id)
    t.equal(operation.state, 'succeeded', JSON.stringify(operation.error))
    t.equal(state(operation, 'cluster/pause-repmgrd'), 'changed')
    t.equal(state(operation, 'cluster/unpause-repmgrd'), 'changed')
    await healthy('pg2')
    t.equal(await timeline('pg2'), before + 1, 'one promotion')
    await isItself(t)
  })

  await t.test('a worker that dies while repmgrd is paused: the next one ends the pause too', async t => {
    const before = await timeline('pg2')
    const { body } = await service.call<Operation>('POST', '/v1/clusters/orders/switchover', { body: { to: 'pg1' } })
    await stepIn(() => service, body.id, 'cluster/exchange', ['running', 'changed'])
    await service.kill()
    service = await start()
    const operation = await ended(() => service, body.id)
    t.equal(operation.state, 'succeeded', JSON.stringify(operation.error))
    await healthy('pg1')
    t.equal(await timeline('pg1'), before + 1, 'one promotion')
    await isItself(t)
  })

  await t.test('an operation that fails: it is unpaused all the same', async t => {
    const session = lab.exec('pg1', ['sudo', '-u', 'postgres', 'psql', '-XAtqc', 'SELECT pg_sleep(600)'], {
      reject: false,
    })
    await eventually(
      async () => (await lab.signal('pg1', 'postgres: 15/main: postgres postgres', 'SIGSTOP')) > 0,
      30_000,
    )
    const { body } = await service.call<Operation>('POST', '/v1/clusters/orders/switchover', {
      body: { to: 'pg2', deadlineMs: 2000 },
    })
    const operation = await ended(() => service, body.id)
    t.match(operation.error, { code: 'switchover-taken-back' })
    await lab.signal('pg1', 'postgres: 15/main: postgres postgres', 'SIGKILL')
    await session
    await healthy('pg1')
    await eventually(async () => (await all('SELECT repmgr.repmgrd_is_paused()')).every(word => word === 'f'), 60_000)
    await isItself(t)
  })

  await t.test('one that somebody left paused is a diagnosis', async t => {
    await ask('pg2', 'SELECT repmgr.repmgrd_pause(true)')
    const now = await eventually(async () => {
      const seen = await status()
      return seen.diagnosis.code === 'repmgrd_paused' ? seen : undefined
    }, 30_000)
    t.match(now.diagnosis.detail, /repmgrd is paused on pg2/)
    await ask('pg2', 'SELECT repmgr.repmgrd_pause(false)')
    await healthy('pg1')
  })

  await t.test('left alone it does its work: the primary dies, and repmgrd promotes', async t => {
    await lab.signal('pg1', 'postgres', 'SIGKILL')
    const next = await eventually(async () => {
      const { primary } = await status()
      return primary !== null && primary !== 'pg1' ? primary : undefined
    }, 90_000)
    const { body } = await service.call<Operation>('POST', '/v1/clusters/orders/nodes/pg1/rejoin', {
      body: { confirm: 'pg1' },
    })
    const operation = await ended(() => service, body.id)
    t.equal(operation.state, 'succeeded', JSON.stringify(operation.error))
    await healthy(next)
  })
})
