import { appendFile, chmod, chown, mkdir, readFile, writeFile } from 'node:fs/promises'
import { join as path } from 'node:path'
import t from 'tap'
import { slotName } from '../../src/cluster/slot.js'
import { withServer } from '../../src/postgres/connect.js'
import { debianLayout, type Layout } from '../../src/postgres/layout.js'
import { passFile } from '../../src/postgres/pass-file.js'
import { scramVerifier } from '../../src/postgres/scram.js'
import {
  cloneStandby,
  registerPrimary,
  registerStandby,
  registerWitness,
  unregisterNode,
} from '../../src/repmgr/commands.js'
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

const node = { nodeId: 3, name: 'pg3', host: '192.0.2.13', port: 5433, priority: 100, location: 'default' }

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
repmgr_bindir='/usr/lib/postgresql/15/bin'
replication_user='repmgr'
passfile='/var/lib/postgresql/.pgpass'
use_replication_slots='yes'
location='default'
priority=100
failover='manual'
promote_command='/usr/lib/postgresql/15/bin/repmgr -f /etc/repmgr.conf standby promote'
follow_command='/usr/lib/postgresql/15/bin/repmgr -f /etc/repmgr.conf standby follow --upstream-node-id=%n'
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
  t.match(registerStandby(layout, 7, false), {
    argv: [...base, 'standby', 'register', '--upstream-node-id=7', '--wait-sync=30', '--force'],
    as: 'postgres',
  })
  t.match(
    registerStandby(layout, 7, true),
    { argv: [...base, 'standby', 'register', '--upstream-node-id=7', '--force'] },
    'a delayed one has its own row late: not waited for',
  )
  t.match(registerWitness(layout, { host: 'db1', port: 6000 }), {
    argv: [...base, '-d', nodeConninfo({ host: 'db1', port: 6000 }), 'witness', 'register', '--force'],
    as: 'postgres',
  })
  t.match(unregisterNode(layout, 'witness', 4), {
    argv: [...base, 'witness', 'unregister', '--node-id=4'],
    as: 'postgres',
  })
  t.match(cloneStandby(layout, { nodeId: 2, host: 'db1', port: 6000 }, 'copy', 1234), {
    argv: [
      ...base,
      '-d',
      `${nodeConninfo({ host: 'db1', port: 6000 }, 10)} application_name=copy`,
      ...['standby', 'clone', '--upstream-node-id=2', '--fast-checkpoint'],
    ],
    as: 'postgres',
    timeoutMs: 1234,
  })
})

t.test('repmgr itself', async t => {
  requireFile(path(POSTGRES_BIN, 'repmgr'), 'postgresql-15-repmgr')
  const shared = { shared_preload_libraries: 'repmgr', max_replication_slots: 10 }
  const server = await startPostgres(t, { settings: shared })
  const password = makePassword()
  await makeRepmgrRole(server, scramVerifier(password))
  const credentials = { user: 'repmgr', password, database: 'repmgr' }
  const metadata = () => withServer(server, credentials, { timeoutMs: 5000 }, readMetadata)

  /** A host of its own: a home whose path wants quoting, with the files that a node has there. */
  const settle = async (node: RepmgrNode, directory: string) => {
    const home = path(directory, "it's a home, with # and = in it")
    const dataDirectory = path(directory, 'data')
    const layout: Layout = {
      ...debianLayout(15),
      dataDirectory,
      configDirectory: dataDirectory,
      home,
      passFile: path(home, '.pgpass'),
      repmgrConf: path(home, 'repmgr.conf'),
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
  const placed = { priority: 100, location: 'default' }
  const primary = await settle({ ...address, ...placed, nodeId: 1, name: 'pg1' }, server.socketDirectory)

  await t.test('reads the file, and registers the primary', async t => {
    await primary.run(registerPrimary(primary.layout).argv)
    t.strictSame(await metadata(), [
      {
        ...{ nodeId: 1, name: 'pg1', type: 'primary', active: true, upstreamNodeId: null },
        ...{ conninfo: nodeConninfo(address), priority: 100, location: 'default' },
      },
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

  const known = [server.port]
  /** Another node: each pass file has a line for each node. */
  const join = async (of: Omit<RepmgrNode, 'host' | 'port'>) => {
    const directory = await ownDirectory(t)
    const port = await freePort()
    const settled = await settle({ ...of, host: server.host, port }, directory)
    known.push(port)
    const lines = known.map(known => passFile([server.host], known, password)).join('')
    for (const { layout } of [primary, settled]) await writeFile(layout.passFile, lines)
    return { ...settled, directory, port }
  }

  await t.test('clones a standby that streams with the password of the pass file, and registers it', async t => {
    const standby = await join({ ...placed, nodeId: 2, name: 'pg2' })
    const { port, directory } = standby
    await standby.run(cloneStandby(standby.layout, { ...server, nodeId: 1 }, 'copy', 60_000).argv)
    const cloned = await serverIn(t, directory, { ...shared, port })
    await cloned.start()
    await standby.run(registerStandby(standby.layout, 1, false).argv)
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

    await t.test('and one that streams from that one, with its slot there', async t => {
      const cascading = await join({ nodeId: 3, name: 'pg3', priority: 0, location: 'attic' })
      await writeFile(standby.layout.passFile, await readFile(cascading.layout.passFile))
      const upstream = { nodeId: 2, host: server.host, port }
      await cascading.run(cloneStandby(cascading.layout, upstream, 'copy', 60_000).argv)
      const settings = { ...shared, port: cascading.port, recovery_min_apply_delay: '1h' }
      const delayed = await serverIn(t, cascading.directory, settings)
      await delayed.start()
      await cascading.run(registerStandby(cascading.layout, 2, true).argv)
      t.match((await metadata())?.[2], { upstreamNodeId: 2, priority: 0, location: 'attic' })
      const slots = 'SELECT slot_name, active FROM pg_replication_slots'
      t.strictSame(await cloned.query(slots), [{ slot_name: slotName(3), active: true }], 'on its upstream')
      t.strictSame(await server.query(slots), [{ slot_name: slotName(2), active: true }], 'and not on the primary')
    })
  })

  await t.test('makes a witness of a server of its own, with a copy of the metadata', async t => {
    const witness = await join({ nodeId: 9, name: 'eye', priority: 0, location: 'default' })
    await runAsPostgres(`${POSTGRES_BIN}/initdb`, ['-D', witness.layout.dataDirectory, '-A', 'trust'])
    const own = await serverIn(t, witness.directory, { ...shared, port: witness.port })
    await own.start()
    await makeRepmgrRole(own, scramVerifier(password))
    const copy = () =>
      withServer({ host: server.host, port: witness.port }, credentials, { timeoutMs: 5000 }, readMetadata)
    await witness.run(registerWitness(witness.layout, address).argv)
    const rows = await metadata()
    t.match(rows?.at(-1), { nodeId: 9, name: 'eye', type: 'witness', active: true, upstreamNodeId: 1, priority: 0 })
    t.strictSame(await copy(), rows)
    await server.query("UPDATE repmgr.nodes SET location = 'cellar' WHERE node_id = 2", [], { database: 'repmgr' })
    t.notSame(await copy(), await metadata(), 'nothing keeps the copy up to date by itself')
    await witness.run(registerWitness(witness.layout, address).argv)
    t.strictSame(await copy(), await metadata(), 'registered once more, it has a new one')
    await primary.run(unregisterNode(primary.layout, 'witness', 9).argv)
    t.notOk((await metadata())?.some(({ name }) => name === 'eye'))
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
