import t, { type Test } from 'tap'
import type { Problem } from '../../src/api/problems.js'
import type { ClusterStatus } from '../../src/cluster/status.js'
import type { Operation, PlanPreview } from '../../src/operations/operation.js'
import { ended, psql, startLabTest, stepIn } from '../fixtures/lab.js'
import { eventually } from '../fixtures/redis.js'

t.test('an old primary comes back as a standby', { timeout: 890_000 }, async t => {
  const { lab, node, addHosts, start } = await startLabTest(t, 'rejoin', { postgres: true })
  const hosts = await addHosts(['pg1', 'pg2'])
  let service = await start()
  const call = <T = Operation & Problem>(path: string, body: unknown = {}) =>
    service.call<T>('POST', `/v1/clusters/orders/nodes/${path}`, { body })
  const unit = 'postgresql@15-main'
  const sudo = (host: string, ...argv: string[]) => lab.exec(host, ['sudo', ...argv])
  const noteOf = (operation: Operation, step: string) =>
    `${operation.steps.find(({ id }) => id === step)?.state}: ${operation.steps.find(({ id }) => id === step)?.note}`
  /** The primary and its one standby, which streams through its slot; no slot anywhere else. */
  const isWhole = async (t: Test, primary: string, standby: string) => {
    const now = await eventually(async () => {
      const { body } = await service.call<ClusterStatus>('GET', '/v1/clusters/orders/status')
      return body.diagnosis.code === 'healthy' && body.primary === primary ? body : undefined
    }, 30_000)
    t.match(
      now.nodes.find(({ name }) => name === standby),
      { role: 'standby', state: 'streaming', upstream: primary, slot: { active: true } },
    )
    t.equal(await psql(lab, standby, 'SELECT count(*) FROM pg_replication_slots'), '0')
    t.match(await sudo(standby, 'cat', '/etc/postgresql/15/main/start.conf'), { stdout: /auto/ }, 'a boot starts it')
    const rows = 'SELECT string_agg(word, $$,$$ ORDER BY word) FROM ledger'
    t.equal(await psql(lab, standby, rows), await psql(lab, primary, rows))
  }

  const { body: built } = await service.call<Operation>('POST', '/v1/clusters?wait=60', {
    body: { name: 'orders', postgresVersion: 15, nodes: hosts.map(node), bootstrap: true },
  })
  t.equal((await ended(() => service, built.id)).state, 'succeeded')
  await psql(lab, 'pg1', "CREATE TABLE ledger (word text); INSERT INTO ledger VALUES ('kept')")

  await t.test('one that streams is left alone', async t => {
    const { body } = await call('pg2/rejoin?wait=60')
    t.match(body, { state: 'succeeded', result: { changedSteps: 0 } }, JSON.stringify(body.error))
    t.match(await call('pg1/rejoin?wait=60'), { status: 409, body: { detail: /pg1 is the primary/ } })
  })

  await t.test('stopped in order before the other was promoted: it follows as it is', async t => {
    await sudo('pg1', 'systemctl', 'stop', 'postgresql@15-main')
    await psql(lab, 'pg2', 'SELECT pg_promote()')
    await psql(lab, 'pg2', "INSERT INTO ledger VALUES ('since')")
    const { body } = await call('pg1/rejoin?wait=60')
    t.equal(body.state, 'succeeded', JSON.stringify(body))
    t.match(noteOf(body, 'pg1/rewind'), /^unchanged: it follows as it is: its history is a part of the primary’s/)
    t.match(noteOf(body, 'pg1/loss'), /^unchanged: it has nothing that pg2 does not have/)
    await isWhole(t, 'pg2', 'pg1')
  })

  await t.test('crashed with commits that the other does not have: it is rewound', async t => {
    await psql(lab, 'pg1', 'SELECT pg_promote()')
    await psql(lab, 'pg2', "INSERT INTO ledger VALUES ('lost 1')")
    await psql(lab, 'pg2', "INSERT INTO ledger VALUES ('lost 2')")
    await lab.signal('pg2', 'postgres', 'SIGKILL')
    await psql(lab, 'pg1', "INSERT INTO ledger VALUES ('won')")
    const refused = await call('pg2/rejoin?wait=60')
    t.match(refused, {
      status: 409,
      body: { detail: /pg2 has what the primary does not have.*\d+ committed transactions.*postgres\.public\.ledger/s },
    })
    const { body: plan } = await call<PlanPreview>('pg2/rejoin?dryRun=true', { confirm: 'pg2' })
    t.equal(plan.steps?.find(({ id }) => id === 'pg2/recovery')?.verdict, 'would_run', JSON.stringify(plan))

    const { body: begun } = await call('pg2/rejoin', { confirm: 'pg2' })
    await stepIn(() => service, begun.id, 'pg2/rewind', ['running', 'changed'])
    await service.kill()
    service = await start()
    const operation = await ended(() => service, begun.id)
    t.equal(operation.state, 'succeeded', JSON.stringify(operation.error))
    t.match(noteOf(operation, 'pg2/rewind'), /^changed: /)
    t.match(noteOf(operation, 'pg2/clone'), /^unchanged: /)
    t.match(noteOf(operation, 'pg2/loss'), /committed transactions .*ledger.*understudy-kept\/pg2-\d{8}T\d{6}Z on pg2/)
    const kept = /\/var\/lib\/\S*understudy-kept\/\S+/.exec(noteOf(operation, 'pg2/loss'))?.[0] ?? ''
    const report = JSON.parse((await sudo('pg2', 'cat', `${kept}/report.json`)).stdout)
    t.match(report, { primary: 'pg1', complete: true, switchLsn: /^0\// })
    t.ok(report.commits >= 2, `${report.commits} commits`)
    t.match(await sudo('pg2', 'ls', `${kept}/pg_wal`), { stdout: /^00000002[0-9A-F]{16}$/m })
    await isWhole(t, 'pg1', 'pg2')
    t.equal(await psql(lab, 'pg2', "SELECT count(*) FROM ledger WHERE word LIKE 'lost%'"), '0')
  })

  await t.test('its WAL does not reach back to where the histories part: it is cloned', async t => {
    await psql(lab, 'pg2', 'SELECT pg_promote()')
    await eventually(async () => (await psql(lab, 'pg1', 'SELECT count(*) FROM pg_stat_replication')) === '0')
    await psql(lab, 'pg1', 'SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots')
    await psql(lab, 'pg1', 'ALTER SYSTEM SET wal_keep_size = 0; ')
    await psql(lab, 'pg1', "ALTER SYSTEM SET min_wal_size = '32MB'")
    await psql(lab, 'pg1', 'SELECT pg_reload_conf()')
    for (const word of ['lost 3', 'lost 4', 'lost 5', 'lost 6']) {
      await psql(lab, 'pg1', `INSERT INTO ledger VALUES ('${word}')`)
      await psql(lab, 'pg1', 'SELECT pg_switch_wal()')
      await psql(lab, 'pg1', 'CHECKPOINT')
    }
    const refused = await call('pg1/rejoin?wait=60')
    t.match(refused, { status: 409, body: { detail: /pg1 has what the primary does not have/ } })
    const { body } = await call('pg1/rejoin?wait=60', { confirm: 'pg1', keepOldData: true })
    const operation = await ended(() => service, body.id)
    t.equal(operation.state, 'succeeded', JSON.stringify(operation.error))
    t.match(noteOf(operation, 'pg1/rewind'), /^unchanged: it is cloned: .*cannot be rewound: /)
    t.match(noteOf(operation, 'pg1/loss'), /at least \d+ committed/)
    t.match(noteOf(operation, 'pg1/clone'), /^changed/)
    const kept = /\/var\/lib\/\S*understudy-kept\/\S+\/data/.exec(noteOf(operation, 'pg1/give-up-copy'))?.[0] ?? ''
    t.match(await sudo('pg1', 'cat', `${kept}/PG_VERSION`), { stdout: /^15/ })
    await isWhole(t, 'pg2', 'pg1')
  })

  await t.test('a standby that fell behind is cloned, where that is meant', async t => {
    await sudo('pg1', 'systemctl', 'stop', 'postgresql@15-main')
    await psql(lab, 'pg2', 'SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots')
    await psql(lab, 'pg2', 'ALTER SYSTEM SET wal_keep_size = 0')
    await psql(lab, 'pg2', "ALTER SYSTEM SET min_wal_size = '32MB'")
    await psql(lab, 'pg2', 'SELECT pg_reload_conf()')
    for (const word of ['far', 'farther', 'farthest']) {
      await psql(lab, 'pg2', `INSERT INTO ledger VALUES ('${word}')`)
      await psql(lab, 'pg2', 'SELECT pg_switch_wal()')
      await psql(lab, 'pg2', 'CHECKPOINT')
    }
    const refused = (path: string, body?: unknown) => call(`pg1/${path}?wait=60`, body)
    t.match(await refused('rejoin'), { status: 409, body: { detail: /has to be cloned anew: it fell behind/ } })
    t.match(await refused('rebuild', { method: 'rewind', confirm: 'pg1' }), {
      status: 409,
      body: { detail: /cannot be rewound: it fell behind/ },
    })
    const { body } = await refused('rejoin', { confirm: 'pg1' })
    t.equal(body.state, 'succeeded', JSON.stringify(body))
    t.match(noteOf(body, 'pg1/rewind'), /^unchanged: it is cloned: it fell behind/)
    await isWhole(t, 'pg2', 'pg1')
  })

  await t.test('both were promoted apart, to timelines of one number: never rewound', async t => {
    const data = '/var/lib/postgresql/15/main'
    await sudo('pg2', 'systemctl', 'stop', unit)
    await psql(lab, 'pg1', 'SELECT pg_promote()')
    await psql(lab, 'pg1', "INSERT INTO ledger VALUES ('of pg1')")
    await sudo('pg1', 'systemctl', 'stop', unit)
    await sudo('pg2', '-u', 'postgres', 'touch', `${data}/standby.signal`)
    await sudo('pg2', 'systemctl', 'start', unit)
    await psql(lab, 'pg2', 'SELECT pg_promote()')
    await psql(lab, 'pg2', "INSERT INTO ledger VALUES ('of pg2')")
    await sudo('pg2', 'systemctl', 'stop', unit)
    await sudo('pg1', 'systemctl', 'start', unit)
    t.match(await call('pg2/rejoin?wait=60'), {
      status: 409,
      body: { detail: /pg2 has what the primary does not have/ },
    })
    const { body } = await call('pg2/rejoin', { confirm: 'pg2' })
    const operation = await ended(() => service, body.id)
    t.equal(operation.state, 'succeeded', JSON.stringify(operation.error))
    t.match(noteOf(operation, 'pg2/rewind'), /it is cloned: .*two histories have one number/)
    t.match(noteOf(operation, 'pg2/loss'), /understudy-kept/)
    await isWhole(t, 'pg1', 'pg2')
    t.equal(await psql(lab, 'pg2', "SELECT count(*) FROM ledger WHERE word = 'of pg2'"), '0')
  })

  await t.test('a new clone of a standby that streams, where that is asked for', async t => {
    t.match(await call('pg2/rebuild?wait=60', { method: 'clone' }), { status: 409, body: { detail: /new clone/ } })
    const { body } = await call('pg2/rebuild?wait=60', { method: 'clone', confirm: 'pg2' })
    t.equal(body.state, 'succeeded', JSON.stringify(body))
    t.match(noteOf(body, 'pg2/clone'), /^changed/)
    await isWhole(t, 'pg1', 'pg2')
  })

  /** One of two gets the other's place, while the other goes on writing: their histories part. */
  const part = async (next: string, old: string, words: readonly string[]) => {
    await psql(lab, next, 'SELECT pg_promote()')
    for (const word of words) await psql(lab, old, `INSERT INTO ledger VALUES ('${word}')`)
  }
  const isRewound = async (t: Test, operation: Operation, node: string) => {
    t.equal(operation.state, 'succeeded', JSON.stringify(operation.error))
    t.match(noteOf(operation, `${node}/rewind`), /^changed: /)
    t.match(noteOf(operation, `${node}/clone`), /^unchanged: /)
  }

  await t.test('crashed, and the other has all that it wrote: it follows as it is after crash recovery', async t => {
    await psql(lab, 'pg1', "INSERT INTO ledger VALUES ('before the crash')")
    const level = 'SELECT bool_and(replay_lsn = pg_current_wal_lsn()) FROM pg_stat_replication'
    await eventually(async () => (await psql(lab, 'pg1', level)) === 't')
    await lab.signal('pg1', 'postgres', 'SIGKILL')
    await psql(lab, 'pg2', 'SELECT pg_promote()')
    await psql(lab, 'pg2', "INSERT INTO ledger VALUES ('after the crash')")
    const { body } = await call('pg1/rejoin?wait=60')
    t.equal(body.state, 'succeeded', JSON.stringify(body))
    t.match(noteOf(body, 'pg1/recovery'), /^changed/)
    t.match(noteOf(body, 'pg1/rewind'), /^unchanged: it follows as it is/)
    t.match(noteOf(body, 'pg1/loss'), /^unchanged: it has nothing that pg2 does not have/)
    await isWhole(t, 'pg2', 'pg1')
  })

  await t.test('stopped in order after it had written on: rebuild with method auto rewinds it', async t => {
    await part('pg1', 'pg2', ['lost 7'])
    await sudo('pg2', 'systemctl', 'stop', unit)
    t.match(await call('pg2/rebuild?wait=60', { method: 'auto' }), {
      status: 409,
      body: { detail: /pg2 has what the primary does not have/ },
    })
    const { body } = await call('pg2/rebuild?wait=60', { method: 'auto', confirm: 'pg2' })
    await isRewound(t, body, 'pg2')
    t.match(noteOf(body, 'pg2/recovery'), /^unchanged/)
    await isWhole(t, 'pg1', 'pg2')
  })

  await t.test('started by hand beside the new primary: found, stopped, and a standby again', async t => {
    await sudo('pg1', 'systemctl', 'stop', unit)
    await psql(lab, 'pg2', 'SELECT pg_promote()')
    await sudo('pg1', 'systemctl', 'start', unit)
    await psql(lab, 'pg1', "INSERT INTO ledger VALUES ('by hand')")
    const found = await eventually(async () => {
      const { body } = await service.call<ClusterStatus>('GET', '/v1/clusters/orders/status')
      return body.diagnosis.code === 'two_primaries' ? body : undefined
    }, 30_000)
    t.match(found.diagnosis.detail, /pg1.*pg2/)
    t.match(await call('pg1/rejoin?wait=60'), { status: 409 })
    t.equal(await psql(lab, 'pg1', 'SELECT pg_is_in_recovery()'), 'f', 'nothing was touched')
    const { body } = await call('pg1/rejoin?wait=60', { confirm: 'pg1' })
    await isRewound(t, body, 'pg1')
    t.match(noteOf(body, 'pg1/loss'), /ledger/)
    await isWhole(t, 'pg2', 'pg1')
  })

  await t.test('rebuild with method rewind, of one that still accepts writes', async t => {
    await part('pg1', 'pg2', ['lost 8'])
    const { body } = await call('pg2/rebuild?wait=60', { method: 'rewind', confirm: 'pg2' })
    await isRewound(t, body, 'pg2')
    await isWhole(t, 'pg1', 'pg2')
  })

  await t.test('the WAL that a rewind needs is only in the archive any more', async t => {
    const { body: changed } = await service.call<Operation>('PUT', '/v1/clusters/orders?wait=60', {
      body: { name: 'orders', postgresVersion: 15, nodes: hosts.map(node), archive: { mode: 'ship' } },
    })
    t.equal((await ended(() => service, changed.id)).state, 'succeeded', JSON.stringify(changed))
    await psql(lab, 'pg1', 'CHECKPOINT')
    const parted = await psql(lab, 'pg1', 'SELECT pg_walfile_name(pg_current_wal_lsn())')
    await part('pg2', 'pg1', ['lost 9'])
    await eventually(async () => (await psql(lab, 'pg1', 'SELECT count(*) FROM pg_stat_replication')) === '0')
    await psql(lab, 'pg1', 'SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots')
    const owed = "SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'"
    const there = `SELECT count(*) FROM pg_ls_waldir() WHERE name = '${parted}'`
    for (const word of ['lost 10', 'lost 11', 'lost 12', 'lost 13']) {
      await psql(lab, 'pg1', `INSERT INTO ledger VALUES ('${word}')`)
      await psql(lab, 'pg1', 'SELECT pg_switch_wal()')
      await eventually(async () => (await psql(lab, 'pg1', owed)) === '0', 60_000)
      await psql(lab, 'pg1', 'CHECKPOINT')
    }
    t.equal(await psql(lab, 'pg1', there), '0', `${parted} is not in its pg_wal any more`)
    const { body } = await call('pg1/rejoin', { confirm: 'pg1' })
    await isRewound(t, await ended(() => service, body.id), 'pg1')
    await isWhole(t, 'pg2', 'pg1')
  })
})
