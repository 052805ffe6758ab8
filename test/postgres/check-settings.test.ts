import t from 'tap'
import { openHostPool } from '../../src/host/host.js'
import { checkSettings, parseObjections } from '../../src/postgres/check-settings.js'
import { debianLayout } from '../../src/postgres/layout.js'
import { POSTGRES_BIN, requireFile } from '../fixtures/postgres.js'
import { createUser, startSshd } from '../fixtures/sshd.js'

t.test('the installed PostgreSQL is asked, without a server', async t => {
  requireFile(`${POSTGRES_BIN}/postgres`, 'postgresql-15')
  const sshd = await startSshd()
  const pool = openHostPool({ identity: { privateKey: sshd.privateKey } })
  const user = createUser({ sudo: true })
  t.teardown(async () => {
    await pool.close()
    await sshd.stop()
    user.remove()
  })
  const host = pool.host(sshd.address({ user: user.name }))
  const ask = (settings: Parameters<typeof checkSettings>[2]) => checkSettings(host, debianLayout(15), settings)

  t.same(
    await ask({
      work_mem: '64MB',
      random_page_cost: 1.1,
      jit: false,
      checkpoint_timeout: '15min',
      datestyle: 'ISO, DMY',
      synchronous_standby_names: 'ANY 1 (pg1, pg2)',
      shared_preload_libraries: 'repmgr, pg_stat_statements',
      'pg_stat_statements.max': 5000,
      search_path: '"$user", public',
      log_line_prefix: "%m 'it''s' \\ \"$HOME\" `id`",
    }),
    [],
    'what it takes, whatever the shell would make of it',
  )
  const wrong: [string, Parameters<typeof checkSettings>[2], RegExp][] = [
    ['unknown', { wrok_mem: '64MB' }, /^unrecognized configuration parameter "wrok_mem"\.$/],
    ['unit', { work_mem: '64XB' }, /^invalid value .*"64XB"\. Valid units for this parameter are .*\.$/],
    ['range', { work_mem: '6kB' }, /^6 kB is outside the valid range for parameter "work_mem" \(64 \.\. \d+\)\.$/],
    ['enumeration', { wal_level: 'some' }, /Available values: minimal, replica, logical\./],
    ['no boolean', { jit: 'maybe' }, /requires a Boolean value/],
    ['no whole number', { max_connections: '1GB' }, /^invalid value/],
    ['its own check', { timezone: 'Mars/Olympus' }, /^invalid value for parameter "TimeZone"/],
    ['its own syntax', { synchronous_standby_names: '2 (' }, /syntax error/],
    ['internal', { block_size: 8192 }, /cannot be changed/],
    ['of a session', { transaction_isolation: 'serializable' }, /has no place in a configuration/],
    ['for developers', { zero_damaged_pages: true }, /has no place in a configuration/],
    ['a library that is not there', { shared_preload_libraries: 'repmgr,nothing' }, /no library nothing\.so/],
    ['a way out of the shell', { work_mem: '$(touch /tmp/understudy-was-here)' }, /invalid value/],
  ]
  for (const [name, settings, words] of wrong) {
    const [objection, ...more] = (await ask(settings)) ?? []
    t.match(objection?.detail, words, name)
    t.equal(more.length, 0, name)
  }
  t.same(
    (await ask({ work_mem: '1', maintenance_work_mem: '64MB', wal_level: 'none' }))?.map(({ name }) => name),
    ['work_mem', 'wal_level'],
    'each is named',
  )
  t.equal(await checkSettings(host, debianLayout(99), { work_mem: '64MB' }), undefined, 'not installed')
})

t.test('what postgres prints, in sentences', async t => {
  const stamp = '2026-11-23 07:12:27.394 GMT [25345]'
  t.same(parseObjections(''), [])
  t.same(
    parseObjections(`objection=a ${stamp} LOG:  skipping it ${stamp} FATAL:  bad value ${stamp} HINT:  Try good.\n`),
    [{ name: 'a', detail: 'bad value. Try good.' }],
  )
  t.same(parseObjections('objection=a postgres: cannot run\n'), [{ name: 'a', detail: 'postgres: cannot run' }])
})
