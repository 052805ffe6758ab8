/** An old primary comes back as a standby: as it is, by pg_rewind, by a new clone. */
import t from 'tap'
import type { PlanPreview } from '../../src/operations/operation.js'
import { ended, psql, stepIn } from '../fixtures/lab.js'
import { eventually } from '../fixtures/redis.js'
import { startRejoinTest } from '../fixtures/rejoin.js'

t.test('an old primary comes back as a standby', { timeout: 890_000 }, async t => {
  const { lab, now, start, call, sudo, noteOf, isWhole } = await startRejoinTest(t, 'rejoin')

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
    await stepIn(() => now.service, begun.id, 'pg2/rewind', ['running', 'changed'])
    await now.service.kill()
    now.service = await start()
    const operation = await ended(() => now.service, begun.id)
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
    const operation = await ended(() => now.service, body.id)
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
})
