import { appendFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { parseSettingState, settingStateQuery } from '../../src/postgres/setting-state.js'
import { managedSettings, type Setting } from '../../src/postgres/settings.js'
import { startPostgres } from '../fixtures/postgres.js'
import { eventually } from '../fixtures/redis.js'

t.test('what a running server makes of our file', async t => {
  const server = await startPostgres(t)
  const managed = join(server.dataDirectory, "it's ours.conf")
  const write = (settings: Setting[]) =>
    writeFile(managed, managedSettings({ cluster: 'orders', node: 'pg1' }, settings), { mode: 0o644 })
  const look = async () => {
    const [row] = await server.query(settingStateQuery(managed))
    return parseSettingState(JSON.stringify(row?.json_build_object))
  }
  await write([{ name: 'work_mem', value: '5MB' }])
  await appendFile(join(server.dataDirectory, 'postgresql.conf'), `include 'it''s ours.conf'\n`)
  await server.query('SELECT pg_reload_conf()')
  const nothing = { pending: [], shadowed: [], wrong: [] }
  t.same(await eventually(async () => ((await look()).applied.includes('work_mem') ? look() : undefined)), {
    ...nothing,
    applied: ['work_mem'],
  })

  await write([
    { name: 'work_mem', value: '6MB' },
    { name: 'max_connections', value: 77 },
    { name: 'timezone', value: 'UTC' },
  ])
  await server.query('SELECT pg_reload_conf()')
  const waiting = await eventually(async () => {
    const state = await look()
    return state.pending.length > 0 ? state : undefined
  })
  t.same(waiting, { ...nothing, pending: ['max_connections'], applied: ['timezone', 'work_mem'] })

  await server.query("ALTER SYSTEM SET work_mem = '7MB'")
  await server.query("ALTER SYSTEM SET timezone = 'CET'")
  const { shadowed, applied } = await look()
  t.same(
    shadowed.map(({ name }) => name),
    ['timezone', 'work_mem'],
    'by whatever name it is set again: TimeZone is timezone',
  )
  t.match(shadowed[0]?.by, /postgresql\.auto\.conf line \d+$/)
  t.same(applied, [])
  await server.query('ALTER SYSTEM RESET ALL')

  await write([{ name: 'work_mem', value: 'much' }])
  t.match((await look()).wrong, [{ name: 'work_mem', error: String }])
})
