import { appendFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import fc from 'fast-check'
import t from 'tap'
import { managedSettings, REPLICATION_SETTINGS, settingString } from '../../src/postgres/settings.js'
import { requireFile, runAsPostgres, startPostgres } from '../fixtures/postgres.js'
import { eventually } from '../fixtures/redis.js'

t.test('a real server reads back whatever was quoted', async t => {
  const server = await startPostgres(t)
  const value = fc.string({ unit: 'grapheme' }).map(text => text.replace(/[\n\r\0]/g, ''))
  const quotes = fc.string({ unit: fc.constantFrom("'", '\\', '"', 'n', '0', '#', ' ', '=') })
  const values = [
    ...fc.sample(value, 300),
    ...fc.sample(quotes, 300),
    ...['', "'", '\\', "\\'", "'\\", "it's", 'C:\\data\\', "''", '# no comment', '%p', '$1'],
  ]
  await appendFile(
    join(server.dataDirectory, 'postgresql.conf'),
    values.map((text, index) => `understudy.v${index} = ${settingString(text)}\n`).join(''),
  )
  t.strictSame(await server.query('SELECT sourceline, name, error FROM pg_file_settings WHERE error IS NOT NULL'), [])
  await server.query('SELECT pg_reload_conf()')
  const rows = await eventually(async () => {
    const found = await server.query(
      "SELECT n, current_setting('understudy.v' || n, true) AS value FROM generate_series(0, $1::int) AS n ORDER BY n",
      [values.length - 1],
    )
    return found.at(-1)?.value === null ? undefined : found
  })
  t.strictSame(
    rows.map(row => row.value),
    values,
  )
})

t.test('a real server starts with the managed settings', async t => {
  requireFile('/usr/lib/postgresql/15/lib/repmgr.so', 'postgresql-15-repmgr')
  const server = await startPostgres(t)
  await server.stop()
  const managed = join(server.dataDirectory, 'understudy.conf')
  await writeFile(managed, managedSettings({ cluster: 'orders', node: 'pg1' }, REPLICATION_SETTINGS), { mode: 0o644 })
  // Debian reads conf.d before what follows in the file; here it comes last, so that every line of it counts.
  await appendFile(
    join(server.dataDirectory, 'postgresql.conf'),
    `include '${managed}'\nlisten_addresses = '127.0.0.1'\n`,
  )
  const wanted = {
    password_encryption: 'scram-sha-256',
    shared_preload_libraries: 'repmgr',
    wal_level: 'replica',
    hot_standby: 'on',
    wal_log_hints: 'on',
    max_wal_senders: '10',
    max_replication_slots: '10',
  }
  for (const [name, value] of Object.entries(wanted)) {
    const shown = await runAsPostgres('postgres', ['-C', name, '-D', server.dataDirectory])
    t.equal(shown.trim(), value, name)
  }
  await server.start()
  t.strictSame(await server.query('SELECT name, error FROM pg_file_settings WHERE error IS NOT NULL'), [])
  for (const [name, value] of Object.entries(wanted)) {
    t.strictSame(await server.query('SELECT current_setting($1) AS value', [name]), [{ value }], name)
  }
  const [listen] = await server.query(
    "SELECT setting, error FROM pg_file_settings WHERE name = 'listen_addresses' AND sourcefile = $1",
    [managed],
  )
  t.strictSame(listen, { setting: '*', error: null })
})

t.test('whose they are stands in a comment, where nobody else reads it', async t => {
  const text = managedSettings({ cluster: 'orders', node: 'pg1' }, REPLICATION_SETTINGS)
  t.match(text, /^# Managed by Understudy: cluster orders, node pg1\./)
  t.equal(text, managedSettings({ cluster: 'orders', node: 'pg1' }, REPLICATION_SETTINGS))
  const settings = (node: string) =>
    managedSettings({ cluster: 'orders', node }, REPLICATION_SETTINGS)
      .split('\n')
      .filter(line => !line.startsWith('#'))
  t.strictSame(settings('pg1'), settings('pg2'), 'a standby has what its primary has')
})
