import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import type { Query } from '../../src/postgres/connect.js'
import { DrillWriter } from '../../src/postgres/drill-writer.js'
import { startPostgres } from '../fixtures/postgres.js'
import { eventually } from '../fixtures/redis.js'

t.test('the client of a drill, on a real server', async t => {
  const server = await startPostgres(t)
  const query: Query = (text, values = []) => server.query(text, [...values])
  await query("CREATE ROLE repmgr SUPERUSER LOGIN PASSWORD 'p'")
  await query('CREATE TABLE understudy_drill (id bigint PRIMARY KEY)')
  const target = (table = 'understudy_drill') => ({
    // The first of them is nobody.
    addresses: [
      { host: '127.0.0.1', port: 1 },
      { host: server.host, port: server.port },
    ],
    credentials: { user: 'repmgr', password: 'p', database: 'postgres' },
    table,
  })
  const written = (writer: DrillWriter, rows: number) => eventually(async () => writer.rows >= rows, 20_000)

  await t.test('what was acknowledged is counted, and what is gone of it', async t => {
    const writer = new DrillWriter(target(), true)
    await written(writer, 20)
    await writer.stop()
    const { rows } = writer
    t.match(await writer.report(query), { acknowledged: rows, lost: 0, uncertain: 0, complete: true })
    await query('DELETE FROM understudy_drill WHERE id IN (3, 4, 5)')
    t.match(await writer.report(query), { acknowledged: rows, lost: 3 })
    await sleep(100)
    t.equal(writer.rows, rows, 'stopped, it writes no more')
  })

  await t.test('a server that is away for a while is a gap of that length', async t => {
    const writer = new DrillWriter(target(), false, 1_000_000)
    await written(writer, 10)
    await server.stop()
    await sleep(700)
    await server.start()
    await written(writer, writer.rows + 10)
    await writer.stop()
    const report = await writer.report(query)
    t.ok(report.writesRefusedMs >= 700, `${report.writesRefusedMs} ms`)
    t.match(report, { lost: 0, complete: false })
  })

  await t.test('nothing is taken for written where nobody accepts writes', async t => {
    await query('ALTER SYSTEM SET default_transaction_read_only = on')
    await query('SELECT pg_reload_conf()')
    await eventually(async () => (await query('SHOW transaction_read_only'))[0]?.transaction_read_only === 'on')
    const writer = new DrillWriter(target(), true, 2_000_000)
    await sleep(500)
    await writer.stop()
    t.match(await writer.report(query), { acknowledged: 0, lost: 0, writesRefusedMs: 0 })
  })

  await t.test('a table that is not there is made: who was promoted may never have heard of it', async t => {
    await query('ALTER SYSTEM RESET default_transaction_read_only')
    await query('SELECT pg_reload_conf()')
    await eventually(async () => (await query('SHOW transaction_read_only'))[0]?.transaction_read_only === 'off')
    const writer = new DrillWriter(target('understudy_drill_new'), true, 3_000_000)
    await written(writer, 5)
    await writer.stop()
    t.match(await writer.report(sql => query(sql)), { acknowledged: writer.rows, lost: 0 })
  })

  await t.test('a server that lets it in nowhere: it goes on trying, and ends when told', async t => {
    const { credentials, ...rest } = target()
    const writer = new DrillWriter({ ...rest, credentials: { ...credentials, password: 'wrong' } }, true)
    await sleep(300)
    await writer.stop()
    t.equal(writer.rows, 0)
  })
})
