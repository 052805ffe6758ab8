import { Ajv } from 'ajv'
import t from 'tap'
import { type Cluster, newCluster } from '../../src/cluster/model.js'
import {
  changed,
  librariesIn,
  objectionTo,
  SettingOverrides,
  type SettingValue,
  settingObjections,
} from '../../src/cluster/setting-overrides.js'
import { withSettings } from '../../src/cluster/settings-change.js'

t.test('what a cluster can have, and what not', async t => {
  const cases: [string, SettingValue, boolean][] = [
    ['work_mem', '64MB', true],
    ['made_up', 'x', true],
    ['wal_level', 'logical', true],
    ['wal_level', 'replica', true],
    ['wal_level', 'minimal', false],
    ['hot_standby', true, true],
    ['hot_standby', 'on', true],
    ['hot_standby', false, false],
    ['wal_log_hints', 'off', false],
    ['fsync', 'off', false],
    ['full_page_writes', false, false],
    ['password_encryption', 'md5', false],
    ['port', 5433, false],
    ['listen_addresses', '*', false],
    ['data_directory', '/x', false],
    ['hba_file', '/x', false],
    ['primary_conninfo', 'host=x', false],
    ['recovery_target_time', 'now', false],
    ['archive_command', 'true', false],
    ['max_wal_senders', 20, true],
    ['max_wal_senders', '0', false],
    ['shared_preload_libraries', 'repmgr', true],
    ['shared_preload_libraries', 'pg_stat_statements, repmgr', true],
    ['shared_preload_libraries', '"repmgr",auto_explain', true],
    ['shared_preload_libraries', 'pg_stat_statements', false],
    ['shared_preload_libraries', '', false],
    ['constructor', 'x', true],
  ]
  for (const [name, value, allowed] of cases) {
    const objection = objectionTo(name, value)
    t.equal(objection === undefined, allowed, `${name} = ${value}: ${objection}`)
    if (objection !== undefined) t.match(objection, /^[A-Z"].*\.$/, 'a sentence')
  }
  t.same(
    settingObjections({
      settings: { port: 1, work_mem: '4MB', fsync: null },
      nodes: [{}, { settings: { hot_standby: 'off' } }],
    }).map(({ pointer }) => pointer),
    ['/settings/port', '/nodes/1/settings/hot_standby'],
    'taking one away is never refused',
  )
  t.same(librariesIn(' repmgr , "pg_stat_statements",$libdir/auto_explain,'), [
    'repmgr',
    'pg_stat_statements',
    '$libdir/auto_explain',
  ])
})

t.test('names and values, as they may be written', async t => {
  const fits = new Ajv({ strict: false }).compile(SettingOverrides)
  for (const good of [
    {},
    { work_mem: '64MB' },
    { 'pg_stat_statements.max': 5000 },
    { jit: false },
    { search_path: '' },
  ])
    t.ok(fits(good), JSON.stringify(good))
  for (const bad of [
    { 'Work Mem': 1 },
    { 'work_mem ': 1 },
    { 'a=b': 1 },
    { '': 1 },
    { work_mem: null },
    { work_mem: ['64MB'] },
    { work_mem: "a\nlisten_addresses = '*'" },
    { [`a${'b'.repeat(63)}`]: 1 },
  ])
    t.notOk(fits(bad), JSON.stringify(bad))
})

t.test('a change of the record', async t => {
  const ssh = { user: 'admin', hostKey: `SHA256:${'A'.repeat(43)}` }
  const cluster: Cluster = newCluster(
    {
      name: 'orders',
      postgresVersion: 15,
      settings: { work_mem: '8MB', jit: true },
      nodes: [
        { name: 'pg1', host: '10.0.0.1', ssh },
        { name: 'pg2', host: '10.0.0.2', ssh, settings: { work_mem: '16MB' } },
      ],
    },
    '2026-03-01T12:00:00.000Z',
  )
  const change = {
    settings: { work_mem: '32MB', jit: null, unknown: null },
    nodes: { pg2: { work_mem: null }, pg1: { random_page_cost: 2 } },
    workload: 'dw',
  } as const
  const after = withSettings(cluster, change)
  t.same(after.settings, { work_mem: '32MB' })
  t.same(after.nodes[0]?.settings, { random_page_cost: 2 })
  t.notOk('settings' in (after.nodes[1] ?? {}), 'without any it says nothing')
  t.equal(after.workload, 'dw')
  t.same(withSettings(after, change), after, 'twice is once')
  t.same(withSettings(cluster, {}), cluster, 'nothing asked, nothing changed')
  t.equal(changed({ a: 1 }, { a: null }), undefined)
})
