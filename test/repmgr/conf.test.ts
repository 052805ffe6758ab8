import { appendFile, chmod, chown, mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { slotName } from '../../src/cluster/status.js'
import { withServer } from '../../src/postgres/connect.js'
import { debianLayout, type Layout } from '../../src/postgres/layout.js'
import { passFile } from '../../src/postgres/pass-file.js'
import { scramVerifier } from '../../src/postgres/scram.js'
import { cloneStandby, registerPrimary, registerStandby } from '../../src/repmgr/commands.js'
import { nodeConninfo, type RepmgrNode, repmgrConf } from '../../src/repmgr/conf.js'
import { readMetadata } from '../../src/repmgr/metadata.js'
import { makePassword } from '../../src/store/secrets.js'
import {
  freePort,
  makeRepmgrRole,
  ownDirectory,
  POSTGRES_BIN,
  requireFile,
  runAsPostgres,
  serverIn,
  startPostgres,
} from '../fixtures/postgres.js'

const node = { nodeId: 3, name: 'pg3', host: '192.0.2.13', port: 5433 }

t.test('the file of a node', async t => {
  t.equal(
    repmgrConf(node, 'orders', debianLayout(15)),
    `# Managed by Understudy: cluster orders, node pg3. What is changed here is overwritten.
node_id=3
node_name='pg3'
conninfo='host=192.0.2.13 port=5433 user=repmgr dbname=repmgr connect_timeout=2 keepalives_idle=10 keepalives_interval=5 keepalives_count=3'
data_directory='/var/lib/postgresql/15/main'
config_directory='/etc/postgresql/15/main'
pg_bindir='/usr/lib/postgresql/15/bin'
passfile='/var/lib/postgresql/.pgpass'
use_replication_slots='yes'
location='default'
priority=100
failover='manual'
log_level='INFO'
service_start_command='sudo -n /usr/bin/systemctl start postgresql@15-main.service'
service_stop_command='sudo -n /usr/bin/systemctl stop postgresql@15-main.service'
service_restart_command='sudo -n /usr/bin/systemctl restart postgresql@15-main.service'
service_reload_command='sudo -n /usr/bin/systemctl reload postgresql@15-main.service'
`,
  )
  t.equal(
    nodeConninfo({ host: '2001:db8::1', port: 5432 }),
    'host=2001:db8::1 port=5432 user=repmgr dbname=repmgr connect_timeout=2 keepalives_idle=10 keepalives_interval=5 keepalives_count=3',
  )
})

t.test('its commands', async t => {
  const layout = debianLayout(15)
  const base = ['/usr/lib/postgresql/15/bin/repmgr', '-f', '/etc/repmgr.conf']
  t.match(registerPrimary(layout), { argv: [...base, 'primary', 'register', '--force'], as: 'postgres' })
  t.match(registerStandby(layout, 7), {
    argv: [...base, 'standby', 'register', '--upstream-node-id=7', '--wait-sync=30', '--force'],
    as: 'postgres',
  })
  t.match(cloneStandby(layout, { host: 'db1', port: 6000 }, 'copy', 1234), {
    argv: [
      ...base,
      '-d',
      `${nodeConninfo({ host: 'db1', port: 6000 }, 10)} application_name=copy`,
      ...['standby', 'clone', '--fast-checkpoint'],
    ],
    as: 'postgres',
    timeoutMs: 1234,
  })
})

t.test('repmgr itself', async t => {
  requireFile(join(POSTGRES_BIN, 'repmgr'), 'postgresql-15-repmgr')
  const shared = { shared_preload_libraries: 'repmgr', max_replication_slots: 10 }
  const server = await startPostgres(t, { settings: shared })
  const password = makePassword()
  await makeRepmgrRole(server, scramVerifier(password))
  const credentials = { user: 'repmgr', password, database: 'repmgr' }
  const metadata = () => withServer(server, credentials, { timeoutMs: 5000 }, readMetadata)

  /** A host of its own: a home whose path wants quoting, with the files that a node has there. */
  const settle = async (node: RepmgrNode, directory: string) => {
    const home = join(directory, "it's a home, with # and = in it")
    const dataDirectory = join(directory, 'data')
    const layout: Layout = {
      ...debianLayout(15),
      dataDirectory,
      configDirectory: dataDirectory,
      home,
      passFile: join(home, '.pgpass'),
      repmgrConf: join(home, 'repmgr.conf'),
    }
    await mkdir(home)
    await writeFile(layout.repmgrConf, repmgrConf(node, 'orders', layout))
    await writeFile(layout.passFile, passFile([server.host], server.port, password), { mode: 0o600 })
    await giveToPostgres(home, layout.repmgrConf, layout.passFile)
    const run = (argv: readonly string[]) =>
      runAsPostgres(argv[0] ?? '', argv.slice(1), { PGPASSFILE: layout.passFile })
    const ask = (...words: string[]) => run([layout.repmgr, '-f', layout.repmgrConf, ...words])
    return { node, layout, run, ask }
  }
  const address = { host: server.host, port: server.port }
  const primary = await settle({ ...address, nodeId: 1, name: 'pg1' }, server.socketDirectory)

  await t.test('reads the file, and registers the primary', async t => {
    await primary.run(registerPrimary(primary.layout).argv)
    t.strictSame(await metadata(), [
      { nodeId: 1, name: 'pg1', type: 'primary', active: true, upstreamNodeId: null, conninfo: nodeConninfo(address) },
    ])
    const [stored] = await server.query('SELECT config_file, location, priority, slot_name FROM repmgr.nodes', [], {
      database: 'repmgr',
    })
    t.strictSame(stored, {
      config_file: primary.layout.repmgrConf,
      location: 'default',
      priority: 100,
      slot_name: 'repmgr_slot_1',
    })
    t.match(await primary.ask('node', 'status'), /Node "pg1"/)
    t.match(
      await primary.ask('node', 'check', '--data-directory-config'),
      /OK/,
      'the path of the data is the right one',
    )
  })

  await t.test('clones a standby that streams with the password of the pass file, and registers it', async t => {
    const directory = await ownDirectory(t)
    const port = await freePort()
    const standby = await settle({ host: server.host, port, nodeId: 2, name: 'pg2' }, directory)
    await appendFile(standby.layout.passFile, passFile([server.host], port, password))
    await standby.run(cloneStandby(standby.layout, server, 'copy', 60_000).argv)
    const cloned = await serverIn(t, directory, { ...shared, port })
    await cloned.start()
    await standby.run(registerStandby(standby.layout, 1).argv)
    t.match((await metadata())?.[1], {
      ...{ nodeId: 2, name: 'pg2', type: 'standby', active: true, upstreamNodeId: 1 },
      conninfo: nodeConninfo({ host: server.host, port }),
    })
    t.strictSame(await server.query('SELECT application_name, state FROM pg_stat_replication'), [
      { application_name: 'pg2', state: 'streaming' },
    ])
    t.strictSame(await server.query('SELECT slot_name, active FROM pg_replication_slots'), [
      { slot_name: slotName(2), active: true },
    ])
    const [conninfo] = await cloned.query("SELECT current_setting('primary_conninfo') AS text")
    t.notMatch(String(conninfo?.text), password, 'the password is in no setting')
  })

  await t.test('refuses a file that is wrong: so it has read the right one', async t => {
    await appendFile(primary.layout.repmgrConf, 'node_id=0\n')
    const said = await primary.ask('node', 'status').catch((error: { stdout: string; stderr: string }) => error)
    t.match(typeof said === 'string' ? said : said.stdout + said.stderr, /"node_id": must be 1 or greater/)
  })
})

t.test('a database without repmgr’s extension has no metadata', async t => {
  const server = await startPostgres(t)
  await makeRepmgrRole(server, scramVerifier('x'))
  const credentials = { user: 'repmgr', password: 'x', database: 'repmgr' }
  t.equal(await withServer(server, credentials, { timeoutMs: 5000 }, readMetadata), undefined)
})

async function giveToPostgres(...paths: string[]): Promise<void> {
  if (process.getuid?.() !== 0) return
  const id = async (flag: string) => Number(await runAsPostgres('id', [flag]))
  const [uid, gid] = [await id('-u'), await id('-g')]
  for (const path of paths) {
    await chown(path, uid, gid)
    await chmod(path, path.endsWith('.pgpass') ? 0o600 : 0o700)
  }
}
