import { chown, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { makeAuthority, signRequest } from '../../src/certificates/authority.js'
import type { Trust } from '../../src/cluster/tls.js'
import { withServer } from '../../src/postgres/connect.js'
import { managedBlock } from '../../src/postgres/hba.js'
import { scramVerifier } from '../../src/postgres/scram.js'
import { servedFiles, tlsSettings } from '../../src/postgres/tls.js'
import { nodeConninfo } from '../../src/repmgr/conf.js'
import { makeRequest } from '../certificates/fixtures/request.js'
import { makeRepmgrRole, ownDirectory, POSTGRES_BIN, runAsPostgres, startPostgres } from '../fixtures/postgres.js'
import { eventually } from '../fixtures/redis.js'

const NOW = new Date()
const LAYOUT = { configDirectory: '/etc/postgresql/15/main' }

t.test('which files a server presents, and its settings', async t => {
  t.strictSame(tlsSettings({ mode: 'off' }, LAYOUT), [])
  t.strictSame(
    tlsSettings({ mode: 'own-ca' }, LAYOUT).map(({ name, value }) => [name, value]),
    [
      ['ssl', true],
      ['ssl_cert_file', '/etc/postgresql/15/main/understudy-tls/server.crt'],
      ['ssl_key_file', '/etc/postgresql/15/main/understudy-tls/server.key'],
    ],
  )
  const given = { mode: 'files', certificateFile: '/etc/ssl/a.pem', keyFile: '/etc/ssl/a.key', ca: '…' } as const
  t.match(servedFiles(given, LAYOUT), { certificate: '/etc/ssl/a.pem', key: '/etc/ssl/a.key' })
  t.strictSame(servedFiles({ mode: 'off' }, LAYOUT), undefined)
})

t.test('a rule for TLS has one beside it that turns the others away; a rejection is for all', async t => {
  const lines = (clients: 'required' | 'allowed') =>
    managedBlock({
      nodes: ['10.0.0.2'],
      controllers: ['192.0.2.1'],
      applications: [
        { address: '10.1.0.7', method: 'reject' },
        { address: '10.1.0.0/16', users: ['app'] },
      ],
      tls: { clients },
    })
      .split('\n')
      .slice(2, -2)
      .map(line => line.replace(/ +/g, ' '))
  const nodes = [
    'hostssl repmgr repmgr 10.0.0.2/32 scram-sha-256',
    'hostnossl repmgr repmgr 10.0.0.2/32 reject',
    'hostssl replication repmgr 10.0.0.2/32 scram-sha-256',
    'hostnossl replication repmgr 10.0.0.2/32 reject',
    'hostssl repmgr repmgr 192.0.2.1/32 scram-sha-256',
    'hostnossl repmgr repmgr 192.0.2.1/32 reject',
  ]
  t.strictSame(lines('required'), [
    ...nodes,
    'host all all 10.1.0.7/32 reject',
    'hostssl all app 10.1.0.0/16 scram-sha-256',
    'hostnossl all app 10.1.0.0/16 reject',
  ])
  t.strictSame(lines('allowed'), [
    ...nodes,
    'host all all 10.1.0.7/32 reject',
    'host all app 10.1.0.0/16 scram-sha-256',
  ])
})

t.test('a real server with a certificate of ours: who comes in, and who is told why not', async t => {
  const server = await startPostgres(t)
  await server.query('CREATE ROLE observer LOGIN SUPERUSER')
  await makeRepmgrRole(server, scramVerifier('right'))
  const ask = (sql: string) => server.query(sql, [], { user: 'observer' })
  const authority = await makeAuthority('orders', NOW)
  const other = await makeAuthority('orders', NOW)
  const directory = await ownDirectory(t)
  const { uid, gid } = await stat(directory)
  const put = async (name: string, content: string) => {
    const path = join(directory, name)
    await writeFile(path, content, { mode: 0o600 })
    await chown(path, uid, gid)
    return path
  }
  const { key: text, request } = await makeRequest()
  const key = await put('server.key', text)
  const serve = async (pem: string) => {
    const certificate = await put('server.crt', pem)
    for (const [name, value] of [
      ['ssl_cert_file', certificate],
      ['ssl_key_file', key],
      ['ssl', 'on'],
    ])
      await ask(`ALTER SYSTEM SET ${name} = '${value}'`)
    await ask('SELECT pg_reload_conf()')
  }
  const path = join(server.dataDirectory, 'pg_hba.conf')
  const rules = async (tls: boolean) => {
    const block = managedBlock({ nodes: ['127.0.0.1'], controllers: [], ...(tls ? { tls: {} } : {}) })
    // What stands behind the block lets everybody in: it must not come to that.
    await writeFile(path, `${block}local all observer trust\nhost all all all scram-sha-256\n`)
    t.strictSame(await ask('SELECT line_number, error FROM pg_hba_file_rules WHERE error IS NOT NULL'), [])
    await ask('SELECT pg_reload_conf()')
  }
  const login = (trust: Trust | undefined, host = '127.0.0.1') =>
    withServer(
      { host, port: server.port, ...(trust ? { trust } : {}) },
      { user: 'repmgr', password: 'right', database: 'repmgr' },
      { timeoutMs: 5000 },
      async query => {
        const [row] = await query('SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()')
        return row?.ssl ? 'by TLS' : 'in the clear'
      },
    ).catch((error: Error) => error.message)
  const becomes = (wanted: RegExp, trust: Trust | undefined, host?: string) =>
    eventually(async () => wanted.test(await login(trust, host)) && login(trust, host), 10_000)
  const ours = { ca: authority.certificate }

  await rules(false)
  t.match(await login({ tls: 'verified', ...ours }), /cannot be connected to \(tls\): The server does not support SSL/)
  t.match(await login({ tls: 'verified' }), /\(tls\): the CA of this cluster is not known here/)
  t.equal(await login({ tls: 'as-asked', ...ours }), 'in the clear', 'as long as it is let in so')

  await serve(await signRequest(authority, request, ['127.0.0.1', 'pg1'], NOW))
  t.equal(await becomes(/by TLS/, { tls: 'verified', ...ours }), 'by TLS')
  t.equal(await login(undefined), 'in the clear')
  t.match(await login({ tls: 'verified', ca: other.certificate }), /\(tls\): unable to verify|\(tls\): .*signature/)
  t.equal(await login({ tls: 'verified', ca: other.certificate + authority.certificate }), 'by TLS', 'either of two')
  t.match(await login({ tls: 'verified', ...ours }, 'localhost'), /\(tls\): Hostname\/IP does not match.*localhost/)

  await rules(true)
  t.match(
    await becomes(/authentication/, undefined),
    /\(authentication\): pg_hba\.conf rejects connection for host "127\.0\.0\.1", user "repmgr".*no encryption/,
  )
  t.equal(await login({ tls: 'as-asked', ...ours }), 'by TLS', 'where it is asked for')
  t.match(await login({ tls: 'as-asked' }), /\(authentication\)/)
  t.equal(await login({ tls: 'verified', ...ours }), 'by TLS')

  const pass = await put('pass', '*:*:*:repmgr:right\n')
  const psql = async (ca: string, address: string) => {
    const conninfo = nodeConninfo({ host: address, port: server.port, rootCertificate: await put('ca.pem', ca) })
    const args = ['-XAtqw', '-d', conninfo, '-c', 'SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()']
    return runAsPostgres(join(POSTGRES_BIN, 'psql'), args, { PGPASSFILE: pass, HOME: directory }).then(
      said => said.trim(),
      (error: { stderr: string }) => error.stderr,
    )
  }
  t.equal(await psql(authority.certificate, '127.0.0.1'), 't', 'libpq believes it too')
  t.match(await psql(other.certificate, '127.0.0.1'), /certificate verify failed/)
  t.match(await psql(authority.certificate, 'localhost'), /certificate for .* does not match host name "localhost"/)

  const old = new Date(NOW.getTime() - 800 * 86_400_000)
  await serve(await signRequest(authority, request, ['127.0.0.1'], old))
  t.match(await becomes(/expired/, { tls: 'verified', ...ours }), /\(tls\): certificate has expired/)
  t.match(await psql(authority.certificate, '127.0.0.1'), /certificate verify failed/)
  t.match(await readFile(path, 'utf8'), /hostnossl/)
})
