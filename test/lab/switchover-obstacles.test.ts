/** What is in the way of a switchover: it goes back, and says what it was. */
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { ended, psql } from '../fixtures/lab.js'
import { eventually } from '../fixtures/redis.js'
import { startSwitchoverTest } from '../fixtures/switchover.js'
import { lostRows, overlaps, startWriter } from '../fixtures/writer.js'

t.test('something is in the way of an exchange of roles', { timeout: 890_000 }, async t => {
  const { lab, hosts, now, start, call, status, healthy, slots, ends } = await startSwitchoverTest(t, 'obstacles')

  await t.test('a primary that does not stop in time is the primary again', async t => {
    const { primary = null, nodes } = await status()
    const old = primary ?? ''
    const to = nodes.find(({ role }) => role === 'standby')?.name ?? ''
    // A client whose backend does not hear the signal keeps the server from ending.
    const writer = await startWriter(
      t,
      lab,
      hosts.map(({ address }) => address),
    )
    const clients = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'"
    await eventually(async () => Number(await psql(lab, old, clients)) >= 2, 30_000)
    t.ok((await lab.signal(old, 'postgres: 15/main: app', 'SIGSTOP')) > 0, 'a client’s backend does not hear any more')
    const { body } = await call('', { to, deadlineMs: 2000 })
    const failed = await ended(() => now.service, body.id)
    t.match(failed.error, {
      code: 'switchover-taken-back',
      outcome: 'failed_clean',
      detail: /is the primary as before.*had not ended in time.*A session of app /s,
    })
    await healthy(old)
    t.equal(await slots(to), '', 'the slots for the new order are gone again')
    const report = await writer.end()
    t.same(await lostRows(lab, old, report), [])
    t.same(overlaps(report), [])
    const { body: again } = await call('', { to })
    t.equal((await ended(() => now.service, again.id)).state, 'succeeded')
    await healthy(to)
  })

  /** Asks for a switchover that cannot be through in time, and returns what it says and for how long writes were refused. */
  const takenBack = async (t: Test, old: string, to: string, deadlineMs: number) => {
    const writer = await startWriter(
      t,
      lab,
      hosts.map(({ address }) => address),
    )
    await sleep(500)
    const { body } = await call('', { to, deadlineMs })
    const { error } = await ended(() => now.service, body.id)
    t.match(error, { code: 'switchover-taken-back', outcome: 'failed_clean' })
    await sleep(500)
    const report = await writer.end()
    t.same(await lostRows(lab, old, report), [])
    t.same(overlaps(report), [])
    return { said: `${error?.detail} ${error?.remedy}`, refusedMs: Math.max(...report.gaps.map(({ ms }) => ms)) }
  }

  await t.test('what is in the way is named: an archive that does not answer', async t => {
    const { primary: old, to } = await ends()
    await psql(lab, old, "ALTER SYSTEM SET archive_command = 'sleep 60'")
    await psql(lab, old, 'SELECT pg_reload_conf(), pg_switch_wal()')
    await eventually(async () => (await lab.signal(old, 'postgres: 15/main: archiver archiving', 'SIGCONT')) > 0)
    const { said } = await takenBack(t, old, to, 3000)
    t.match(
      said,
      /archiver \(process \d+\) had not ended, its command has not answered for segment [0-9A-F]{24}; .*archive: [1-9]/,
    )
    await psql(lab, old, 'ALTER SYSTEM RESET archive_command')
    await psql(lab, old, 'SELECT pg_reload_conf()')
    const waits = "SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'"
    await eventually(async () => (await psql(lab, old, waits)) === '0', 90_000)
    await healthy(old)
  })

  await t.test('a standby that takes no WAL', async t => {
    const { primary: old, to, third } = await ends()
    t.ok((await lab.signal(third, 'walreceiver', 'SIGSTOP')) > 0)
    const { said } = await takenBack(t, old, to, 3000)
    t.match(said, new RegExp(`walsender to ${third} \\(process \\d+\\) waits until ${third} confirms`))
    await lab.signal(third, 'walreceiver', 'SIGCONT')
    await healthy(old)
  })

  await t.test('a query on the standby that holds replay up', async t => {
    const { primary: old, to } = await ends()
    await psql(lab, to, "ALTER SYSTEM SET max_standby_streaming_delay = '10min'")
    await psql(lab, to, 'SELECT pg_reload_conf()')
    await psql(lab, old, 'CREATE TABLE held AS SELECT 1 AS number')
    await eventually(async () => (await psql(lab, to, "SELECT to_regclass('held')")) === 'held')
    const report = ['env', 'PGAPPNAME=report', 'psql', '-XAtqc', 'BEGIN; SELECT * FROM held; SELECT pg_sleep(120)']
    const running = lab.exec(to, ['sudo', '-u', 'postgres', ...report], { reject: false })
    const sleeping =
      "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'report' AND wait_event = 'PgSleep'"
    await eventually(async () => (await psql(lab, to, sleeping)) === '1')
    await psql(lab, old, 'DROP TABLE held')
    const { said, refusedMs } = await takenBack(t, old, to, 3000)
    t.match(
      said,
      /held up by a query there \(Lock\/relation\)\. The oldest transaction there is of postgres \(report, process/,
    )
    t.notMatch(said, /pg_sleep|SELECT \*/, 'its text is not told')
    t.ok(
      refusedMs < 10_000,
      `writes were refused for ${refusedMs} ms: the time is for the stop and the replay together`,
    )
    await psql(lab, to, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'report'")
    await running
    await psql(lab, to, 'ALTER SYSTEM RESET max_standby_streaming_delay')
    await psql(lab, to, 'SELECT pg_reload_conf()')
    await healthy(old)
  })

  await t.test('a program that only stands in the data directory', async t => {
    const { primary = null, nodes } = await status()
    const old = primary ?? ''
    const to = nodes.find(({ role }) => role === 'standby')?.name ?? ''
    await lab.exec(old, [
      'sh',
      '-c',
      'systemd-run --quiet --unit=bystander --working-directory=/var/lib/postgresql/15/main sleep 600',
    ])
    const { body } = await call('', { to })
    t.equal((await ended(() => now.service, body.id)).state, 'succeeded', 'it writes nothing, so it is in nobody’s way')
    await lab.exec(old, ['systemctl', 'stop', 'bystander'])
    await healthy(to)
  })

  /** Stops a switchover where the primary has been told to stop and has not ended, and kills its worker there. */
  const killedInTheMiddle = async () => {
    const { primary = null, nodes } = await status()
    const old = primary ?? ''
    const to = nodes.find(({ role }) => role === 'standby')?.name ?? ''
    const session = lab.exec(old, ['sudo', '-u', 'postgres', 'psql', '-XAtqc', 'SELECT pg_sleep(600)'], {
      reject: false,
    })
    await eventually(async () => (await lab.signal(old, 'postgres: 15/main: postgres postgres', 'SIGSTOP')) > 0, 30_000)
    const { body } = await call('', { to, deadlineMs: 60_000 })
    const signalled = ['test', '-e', '/var/lib/postgresql/15/main/standby.signal']
    await eventually(async () => (await lab.exec(old, signalled, { reject: false })).exitCode === 0, 60_000)
    await now.service.kill()
    await lab.signal(old, 'postgres: 15/main: postgres postgres', 'SIGKILL')
    await session
    const gone = ['sh', '-c', '! pgrep -u postgres -x postgres']
    await eventually(async () => (await lab.exec(old, gone, { reject: false })).exitCode === 0, 60_000)
    // Somebody, or a boot, starts it again.
    await lab.exec(old, ['systemctl', 'reset-failed', 'postgresql@15-main'], { reject: false })
    await eventually(
      async () => (await lab.exec(old, ['systemctl', 'start', 'postgresql@15-main'], { reject: false })).exitCode === 0,
      60_000,
    )
    const recovering = async () => (await psql(lab, old, 'SELECT pg_is_in_recovery()').catch(() => '')) === 't'
    await eventually(recovering, 60_000)
    return { old, to, id: body.id }
  }

  await t.test('the old primary was started as a standby in the middle: it is the primary again', async t => {
    const { old, id } = await killedInTheMiddle()
    now.service = await start()
    const operation = await ended(() => now.service, id, 180_000)
    t.match(operation.error, { code: 'switchover-taken-back', outcome: 'failed_clean' })
    await healthy(old)
  })

  await t.test('the same once the standby was told: nobody goes back any more', async t => {
    const { to, id } = await killedInTheMiddle()
    await lab.exec(to, ['sh', '-c', `echo ${id} >/var/lib/understudy/orders.promotion`])
    now.service = await start()
    const operation = await ended(() => now.service, id, 180_000)
    t.equal(operation.state, 'succeeded', JSON.stringify(operation.error))
    await healthy(to)
    const mark = await lab.exec(to, ['test', '-e', '/var/lib/understudy/orders.promotion'], { reject: false })
    t.not(mark.exitCode, 0, 'the mark is gone')
  })
})
