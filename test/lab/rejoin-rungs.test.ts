/** The other ways in which a node comes back: what is asked for, what its disk holds, what the archive has. */
import t from 'tap'
import type { ClusterStatus } from '../../src/cluster/status.js'
import type { Operation } from '../../src/operations/operation.js'
import { ended, psql } from '../fixtures/lab.js'
import { eventually } from '../fixtures/redis.js'
import { startRejoinTest } from '../fixtures/rejoin.js'

t.test('a node comes back as a standby', { timeout: 890_000 }, async t => {
  const { lab, description, now, call, sudo, noteOf, isWhole, part, isRewound, unit } = await startRejoinTest(
    t,
    'rungs',
  )

  await t.test('a new clone of a standby that streams, where that is asked for', async t => {
    t.match(await call('pg2/rebuild?wait=60', { method: 'clone' }), { status: 409, body: { detail: /new clone/ } })
    const { body } = await call('pg2/rebuild?wait=60', { method: 'clone', confirm: 'pg2' })
    t.equal(body.state, 'succeeded', JSON.stringify(body))
    t.match(noteOf(body, 'pg2/clone'), /^changed/)
    await isWhole(t, 'pg1', 'pg2')
  })

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
      const { body } = await now.service.call<ClusterStatus>('GET', '/v1/clusters/orders/status')
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
    const { body: changed } = await now.service.call<Operation>('PUT', '/v1/clusters/orders?wait=60', {
      body: { ...description, archive: { mode: 'ship' } },
    })
    t.equal((await ended(() => now.service, changed.id)).state, 'succeeded', JSON.stringify(changed))
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
    await isRewound(t, await ended(() => now.service, body.id), 'pg1')
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
    const operation = await ended(() => now.service, body.id)
    t.equal(operation.state, 'succeeded', JSON.stringify(operation.error))
    t.match(noteOf(operation, 'pg2/rewind'), /it is cloned: .*two histories have one number/)
    t.match(noteOf(operation, 'pg2/loss'), /understudy-kept/)
    await isWhole(t, 'pg1', 'pg2')
    t.equal(await psql(lab, 'pg2', "SELECT count(*) FROM ledger WHERE word = 'of pg2'"), '0')
  })
})
