import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import type { Problem } from '../../src/api/problems.js'
import { makeAuthority, signRequest } from '../../src/certificates/authority.js'
import type { Adoption } from '../../src/cluster/adoption.js'
import type { Checks } from '../../src/cluster/checks.js'
import type { Drift } from '../../src/cluster/drift.js'
import type { Cluster } from '../../src/cluster/model.js'
import type { SettingsReport } from '../../src/cluster/settings-report.js'
import type { ClusterStatus } from '../../src/cluster/status.js'
import type { TlsPolicy } from '../../src/cluster/tls.js'
import type { Operation, PlanPreview } from '../../src/operations/operation.js'
import { ended, psql, startLabTest, stepIn } from '../fixtures/lab.js'
import { eventually } from '../fixtures/redis.js'

const DIRECTORY = '/etc/postgresql/15/main/understudy-tls'

t.test('TLS: a CA of our own, switched on and off under a cluster that runs', { timeout: 600_000 }, async t => {
  const { lab, node, addHosts, start, stateDirectory } = await startLabTest(t, 'tls', { postgres: true })
  const hosts = await addHosts(['pg1', 'pg2', 'pg3', 'w1'])
  const [pg1, pg2, pg3, w1] = hosts
  if (!pg1 || !pg2 || !pg3 || !w1) throw new Error('no hosts')
  let service = await start()
  const access = [{ address: lab.gateway, users: ['app'] }]
  const cluster = { name: 'orders', postgresVersion: 15, nodes: [node(pg1), node(pg2)], access }
  const own: TlsPolicy = { mode: 'own-ca', names: ['db.example.net'] }

  type Answer = Operation & Problem & PlanPreview
  const put = (tls: TlsPolicy, query = '?wait=60') =>
    service.call<Answer>('PUT', `/v1/clusters/orders/tls${query}`, { body: tls })
  const changed = ({ steps }: Operation) => steps.filter(({ state }) => state === 'changed').map(({ id }) => id)
  const healthy = () =>
    eventually(async () => {
      const { body } = await service.call<ClusterStatus>('GET', '/v1/clusters/orders/status')
      return body.diagnosis?.code === 'healthy'
    }, 60_000)
  /** An application on the gateway. Gives what it is told. */
  const login = async (host: string, options: string) => {
    const conninfo = `host=${host} user=app dbname=postgres connect_timeout=10 ${options}`
    const sql = 'SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()'
    const { stdout, stderr } = await lab.run(['psql', '-XAtqw', '-d', conninfo, '-c', sql], {
      reject: false,
      env: { PGPASSWORD: 'app-password' },
    })
    return stdout.trim() || stderr.trim()
  }
  const caFile = async () => {
    const { status, body } = await service.call<string>('GET', '/v1/clusters/orders/ca.pem')
    t.equal(status, 200)
    const file = join(stateDirectory, 'orders-ca.pem')
    await writeFile(file, body)
    return file
  }
  /** Of everybody who is connected to it over the network. */
  const clear = (host: string) =>
    psql(
      lab,
      host,
      `SELECT string_agg(application_name, ',') FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid)
        WHERE NOT ssl AND client_addr IS NOT NULL AND usename = 'repmgr'`,
    )

  const GIVEN = { certificateFile: '/etc/ssl/private/given.crt', keyFile: '/etc/ssl/private/given.key' }
  /** What the owner's own tooling would do, with a CA and one below it, and what it may do wrong. Gives the CA. */
  const ownerMakesCertificates = async (): Promise<string> => {
    const at = (file: string) => join(stateDirectory, file)
    const openssl = (...args: string[]) => lab.run(['openssl', ...args])
    const make = async (name: string, subject: string, extension: string, days: number, ...signer: string[]) => {
      const signing = signer.length > 0 ? ['-CA', at(`${signer[0]}.crt`), '-CAkey', at(`${signer[0]}.key`)] : []
      const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', at(`${name}.key`)]
      const about = ['-subj', `/CN=${subject}`, '-addext', extension, '-days', String(days), '-out', at(`${name}.crt`)]
      await openssl('req', '-x509', ...key, ...about, ...signing)
    }
    const ca = 'basicConstraints=critical,CA:TRUE'
    await make('root', 'The root', ca, 3650)
    await make('between', 'The one between', ca, 3650, 'root')
    const text = async (...names: string[]) =>
      (await Promise.all(names.map(name => readFile(at(name), 'utf8')))).join('')
    for (const host of [pg1, pg2]) {
      const good = `subjectAltName=IP:${host.address}\nbasicConstraints=CA:FALSE`
      await make('server', host.name, good.split('\n')[0] ?? '', 90, 'between')
      const put = async (name: string, content: string) =>
        lab.exec(
          host.name,
          ['sh', '-c', `cd /etc/ssl/private && cat >${name} && chgrp ssl-cert ${name} && chmod 640 ${name}`],
          {
            stdin: content,
          },
        )
      await put('given.key', await text('server.key'))
      await put('given.crt', await text('server.crt', 'between.crt'))
      if (host !== pg2) continue
      const { stdout: request } = await openssl('req', '-new', '-key', at('server.key'), '-subj', '/CN=pg2')
      await writeFile(at('server.csr'), request)
      const again = async (name: string, address: string, ...args: string[]) => {
        await writeFile(at('extensions'), `subjectAltName=IP:${address}\n`)
        await openssl(
          'x509',
          '-req',
          '-in',
          at('server.csr'),
          '-extfile',
          at('extensions'),
          '-out',
          at(`${name}.crt`),
          ...args,
        )
        await put(`${name}.crt`, await text(`${name}.crt`, 'between.crt'))
      }
      const between = ['-CA', at('between.crt'), '-CAkey', at('between.key'), '-CAcreateserial']
      const longAgo = new Date(Date.now() - 800 * 86_400_000)
      const expired = await signRequest(await makeAuthority('orders', longAgo), request, [host.address], longAgo)
      await put('expired.crt', expired)
      await again('wrong-name', '192.0.2.99', '-days', '90', ...between)
      await again('self-signed', host.address, '-days', '90', '-key', at('server.key'))
      await put('other.key', await text('root.key'))
    }
    return text('root.crt')
  }

  await t.test('built with it: every stream and every connection of the service is encrypted', async t => {
    const described = { ...cluster, tls: own }
    const dry = await service.call<Answer>('POST', '/v1/clusters?dryRun=true', {
      body: { ...described, bootstrap: true },
    })
    t.equal(dry.status, 200, JSON.stringify(dry.body))
    t.match(JSON.stringify(dry.body.steps), /sign a certificate for 192\.0\.2\.11, pg1, db\.example\.net/)
    const { body } = await service.call<Operation>('POST', '/v1/clusters', { body: { ...described, bootstrap: true } })
    const operation = await ended(() => service, body.id)
    t.equal(operation.state, 'succeeded', JSON.stringify(operation.error))
    for (const { name } of [pg1, pg2]) {
      t.equal(await psql(lab, name, 'SHOW ssl'), 'on')
      t.equal(await clear(name), '')
      const { stdout } = await lab.exec(name, ['sh', '-c', `cd ${DIRECTORY} && stat -c '%n %U %a' *`])
      t.strictSame(stdout.trim().split('\n'), [
        'ca.pem postgres 644',
        'server.crt postgres 644',
        'server.key postgres 600',
      ])
      t.match(
        (
          await lab.exec(name, [
            'openssl',
            'verify',
            '-x509_strict',
            '-CAfile',
            `${DIRECTORY}/ca.pem`,
            `${DIRECTORY}/server.crt`,
          ])
        ).stdout,
        /OK/,
      )
    }
    t.equal(
      await psql(lab, 'pg1', 'SELECT count(*) FROM pg_stat_replication JOIN pg_stat_ssl USING (pid) WHERE ssl'),
      '1',
    )
    t.match(
      await psql(lab, 'pg2', 'SHOW primary_conninfo'),
      /sslmode='?verify-full'? .*understudy-tls\/ca\.pem|sslrootcert.*sslmode='?verify-full/,
    )
    const rows = (
      await lab.exec('pg1', ['sudo', '-u', 'postgres', 'psql', '-XAtqc', 'SELECT conninfo FROM repmgr.nodes', 'repmgr'])
    ).stdout
    t.match(rows, /(192\.0\.2\.11.*sslmode=verify-full[\s\S]*){1}192\.0\.2\.12.*sslmode=verify-full/)
    await healthy()
    const again = await service.call<Operation>('POST', '/v1/clusters?wait=60', {
      body: { ...described, bootstrap: true },
    })
    t.strictSame(changed(again.body), [], 'and again changes nothing')
    const { body: drift } = await service.call<Drift>('GET', '/v1/clusters/orders/drift')
    t.strictSame(drift.items, [])
    const { body: checks } = await service.call<Checks>('GET', '/v1/clusters/orders/checks')
    t.equal(checks.items.filter(({ kind, verdict }) => kind === 'certificate' && verdict === 'ok').length, 2)
  })

  await t.test('a client with the CA comes in, one without TLS is told so, and another CA is not believed', async t => {
    await psql(lab, 'pg1', "CREATE ROLE app LOGIN PASSWORD 'app-password'")
    const ca = await caFile()
    t.equal(await login(pg1.address, `sslmode=verify-full sslrootcert=${ca}`), 't')
    t.match(
      await login(pg1.address, 'sslmode=disable'),
      /pg_hba\.conf rejects connection for host "192\.0\.2\.1", user "app", database "postgres", no encryption/,
    )
    const other = join(stateDirectory, 'other-ca.pem')
    await lab.run([
      'openssl',
      'req',
      '-x509',
      '-newkey',
      'rsa:2048',
      '-nodes',
      '-subj',
      '/CN=Understudy CA of orders',
      '-keyout',
      '/dev/null',
      '-out',
      other,
    ])
    t.match(await login(pg1.address, `sslmode=verify-full sslrootcert=${other}`), /certificate verify failed/)
    t.match(
      await login('db.example.net', `hostaddr=${pg2.address} sslmode=verify-full sslrootcert=${ca}`),
      /^t$|password authentication failed/,
      'by a name that was asked for',
    )
    t.match(
      await login('else.example.net', `hostaddr=${pg1.address} sslmode=verify-full sslrootcert=${ca}`),
      /does not match host name "else\.example\.net"/,
    )
  })

  await t.test('a certificate that is near its end is drift, a warning, and made anew', async t => {
    const before = (await lab.exec('pg2', ['cat', `${DIRECTORY}/server.crt`])).stdout
    // Its host’s own, for a name that is no other’s: found like one that is about to end, and faster to make.
    await lab.exec('pg2', [
      'sh',
      '-c',
      `cd ${DIRECTORY} && openssl req -x509 -key server.key -days 10 -subj /CN=pg2 -addext subjectAltName=IP:192.0.2.12,DNS:pg2,DNS:db.example.net -out server.crt`,
    ])
    const { body: drift } = await service.call<Drift>('GET', '/v1/clusters/orders/drift')
    t.match(drift.items, [{ node: 'pg2', step: 'pg2/tls-certificate', detail: /another authority has signed/ }])
    const { body: checks } = await service.call<Checks>('GET', '/v1/clusters/orders/checks')
    t.match(
      checks.items.filter(({ kind, verdict }) => kind === 'certificate' && verdict !== 'ok'),
      [{ to: 'pg2', verdict: 'warning', detail: /ends in 9 days/ }],
    )
    const { body } = await service.call<Operation>('POST', '/v1/clusters/orders/nodes/pg2/provision?wait=60')
    t.strictSame(changed(body), ['pg2/tls-certificate'])
    const after = (await lab.exec('pg2', ['cat', `${DIRECTORY}/server.crt`])).stdout
    t.not(after, before)
    await healthy()
  })

  await t.test('a description cannot switch it off, and says what does', async t => {
    const { status, body } = await service.call<Problem>('PUT', '/v1/clusters/orders', { body: cluster })
    t.equal(status, 409, JSON.stringify(body))
    t.match(body, {
      type: '/problems/unchangeable',
      errors: [{ pointer: '/tls', detail: /PUT \/v1\/clusters\/orders\/tls/ }],
    })
  })

  await t.test('off, and on again: nobody who is connected notices, and the steps stand in order', async t => {
    // A reader that stays in one session throughout, and says at the end how often it has read.
    const reader = lab.run(
      [
        'sh',
        '-c',
        `for i in $(seq 250); do echo "SELECT 'read'; SELECT pg_sleep(0.1);"; done | psql -XAtqw -v ON_ERROR_STOP=1 -d "host=${pg2.address} user=app dbname=postgres sslmode=require"`,
      ],
      { reject: false, env: { PGPASSWORD: 'app-password' } },
    )
    const off = await put({ mode: 'off' })
    t.equal(off.status, 200, JSON.stringify(off.body))
    await healthy()
    t.equal(await login(pg1.address, 'sslmode=disable'), 'f')
    t.equal((await lab.exec('pg2', ['sh', '-c', `ls ${DIRECTORY} 2>&1 || true`])).stdout.includes('No such'), true)
    t.notMatch(await psql(lab, 'pg2', 'SHOW primary_conninfo'), /ssl(mode|rootcert)/)
    t.equal((await service.call<Problem>('GET', '/v1/clusters/orders/ca.pem')).status, 404)
    t.strictSame((await service.call<Drift>('GET', '/v1/clusters/orders/drift')).body.items, [])

    const plan = await put(own, '?dryRun=true')
    t.equal(plan.status, 200, JSON.stringify(plan.body))
    const on = await put(own, `?wait=60&planId=${plan.body.planId}`)
    t.equal(on.status, 200, JSON.stringify(on.body))
    const order = changed(on.body)
    const at = (id: string) => order.indexOf(id)
    t.ok(at('pg2/tls-certificate') < at('pg1/register') && at('pg1/register') < at('pg2/stream'), order.join(' '))
    t.ok(at('pg2/stream') < at('pg2/access') && at('pg2/access') < at('pg1/access'), order.join(' '))
    t.equal((await service.call<Cluster>('GET', '/v1/clusters/orders')).body.tls?.mode, 'own-ca')
    await healthy()
    t.equal(await clear('pg1'), '')
    t.match(await login(pg1.address, 'sslmode=disable'), /no encryption/)
    t.equal(await login(pg1.address, `sslmode=verify-full sslrootcert=${await caFile()}`), 't', 'the same CA as before')
    t.strictSame(changed((await put(own)).body), [])
    const { stdout, stderr } = await reader
    t.equal(stdout.split('\n').filter(line => line === 'read').length, 250, stderr)
  })

  await t.test('certificates of somebody else’s: each mistake has its own words, and nothing is written', async t => {
    const ca = await ownerMakesCertificates()
    const files: TlsPolicy = { mode: 'files', ...GIVEN, ca }
    const onPg2 = (script: string) => lab.exec('pg2', ['sh', '-c', `cd /etc/ssl/private && ${script}`])
    const before = await psql(lab, 'pg2', 'SELECT pg_conf_load_time()')
    for (const [spoil, mend, why] of [
      ['mv given.crt x', 'mv x given.crt', /pg2: there is no file \/etc\/ssl\/private\/given\.crt/],
      ['mv given.key x', 'mv x given.key', /there is no file \/etc\/ssl\/private\/given\.key/],
      ['chmod 644 given.key', 'chmod 640 given.key', /has mode 0644 and belongs to root/],
      ['chown nobody given.key', 'chown root:ssl-cert given.key', /belongs to nobody/],
      ['chgrp root given.key', 'chgrp ssl-cert given.key', /postgres may not read .*given\.key/],
      ['cp -p given.crt x; echo words >given.crt', 'mv x given.crt', /no certificate in PEM/],
      ['cp -p given.key x; cat other.key >given.key', 'mv x given.key', /the certificate is for another key/],
      [
        'cp -p given.key x; openssl ec -in x -aes128 -passout pass:secret -out given.key',
        'mv x given.key',
        /has a passphrase/,
      ],
      ['cp -p given.crt x; cp expired.crt given.crt', 'mv x given.crt', /the certificate has expired, at 20/],
      [
        'cp -p given.crt x; cp wrong-name.crt given.crt',
        'mv x given.crt',
        /not for 192\.0\.2\.12 but for .*192\.0\.2\.99/,
      ],
      [
        'cp -p given.crt x; cp self-signed.crt given.crt',
        'mv x given.crt',
        /not verified by the CA of the description/,
      ],
    ] as const) {
      await onPg2(spoil)
      const { status, body } = await put(files)
      await onPg2(mend)
      t.equal(status, 409, `${spoil}: ${JSON.stringify(body)}`)
      t.match(body.detail, why, spoil)
      const { body: failed } = await service.call<Operation>('GET', body.operation ?? '')
      t.match(failed.error, { code: 'certificate-unusable', outcome: 'not_started' })
    }
    t.equal(await psql(lab, 'pg2', 'SELECT pg_conf_load_time()'), before)

    await t.test('the good ones take the place of the service’s own, and no stream is ever refused', async t => {
      const { status, body } = await put(files)
      t.equal(status, 200, JSON.stringify(body))
      const order = changed(body)
      t.ok(order.indexOf('pg1/tls-both-cas') < order.indexOf('pg1/settings'), order.join(' '))
      t.ok(order.indexOf('pg2/settings') < order.indexOf('pg2/tls-ca'), order.join(' '))
      await healthy()
      t.equal(await caFile().then(file => login(pg1.address, `sslmode=verify-full sslrootcert=${file}`)), 't')
      t.equal((await service.call<string>('GET', '/v1/clusters/orders/ca.pem')).body, ca)
      t.strictSame(changed((await put(files)).body), [])
      t.strictSame((await service.call<Drift>('GET', '/v1/clusters/orders/drift')).body.items, [])
      const back = await put(own)
      t.equal(back.status, 200, JSON.stringify(back.body))
      await healthy()
      t.equal(await caFile().then(file => login(pg1.address, `sslmode=verify-full sslrootcert=${file}`)), 't')
    })
  })

  await t.test('forgotten, and taken over again: what its nodes verify each other by is kept', async t => {
    t.equal((await service.call('DELETE', '/v1/clusters/orders')).status, 200)
    const adopted = await service.call<Adoption & Problem>('POST', '/v1/clusters/adopt', {
      body: { name: 'orders', node: { host: pg1.address, ssh: node(pg1).ssh }, nodes: [node(pg2)] },
    })
    t.equal(adopted.status, 201, JSON.stringify(adopted.body))
    const { tls } = adopted.body.cluster
    t.match(tls, { mode: 'files', clients: 'allowed', certificateFile: `${DIRECTORY}/server.crt` })
    const described = { ...cluster, tls }
    const forgetful = await service.call<Problem>('PUT', '/v1/clusters/orders', { body: cluster })
    t.match(forgetful.body.errors, [{ pointer: '/tls', detail: /is files there/ }])
    const applied = await service.call<Operation>('PUT', '/v1/clusters/orders?wait=60', { body: described })
    t.equal(applied.status, 200, JSON.stringify(applied.body))
    t.notOk(
      changed(applied.body).some(id => /\/(stream|tls-)/.test(id)),
      changed(applied.body).join(' '),
    )
    await healthy()
    t.equal(await clear('pg1'), '')
    const { status, body } = await put(own)
    t.equal(status, 200, JSON.stringify(body))
    await healthy()
  })

  await t.test('a node that is away keeps it from being changed; one more standby joins by TLS', async t => {
    await lab.linkDown('pg2')
    const { status, body } = await put({ mode: 'off' })
    t.equal(status, 502, JSON.stringify(body))
    t.match(body.detail, /Every node must hear of it/)
    await lab.linkUp('pg2')
    await healthy()
    const added = await service.call<Operation>('POST', '/v1/clusters/orders/nodes', {
      body: node(pg3),
    })
    t.equal(added.status, 202, JSON.stringify(added.body))
    const operation = await ended(() => service, added.body.id)
    t.equal(operation.state, 'succeeded', JSON.stringify(operation.error))
    t.equal(
      await psql(lab, 'pg1', 'SELECT count(*) FROM pg_stat_replication JOIN pg_stat_ssl USING (pid) WHERE ssl'),
      '2',
    )
    t.equal(operation.steps.find(({ id }) => id === 'pg3/stream')?.state, 'unchanged', 'repmgr’s clone has it already')
    const witness = await service.call<Answer>('POST', '/v1/clusters/orders/nodes?wait=60', {
      body: { ...node(w1), kind: 'witness' },
    })
    t.equal(witness.status, 200, JSON.stringify(witness.body))
    const rotated = await service.call<Answer>('POST', '/v1/clusters/orders/rotate-credentials?wait=60')
    t.equal(rotated.status, 200, JSON.stringify(rotated.body))
    const settings = await service.call<SettingsReport>('GET', '/v1/clusters/orders/settings')
    t.ok(
      settings.body.nodes.every(({ problem }) => problem === undefined),
      JSON.stringify(settings.body).slice(0, 400),
    )
    const exchanged = await service.call<Answer>('POST', '/v1/clusters/orders/switchover?wait=60', {
      body: { to: 'pg2' },
    })
    t.equal(exchanged.status, 200, JSON.stringify(exchanged.body))
    await healthy()
    for (const { name } of [pg1, pg2]) t.equal(await clear(name), '')
    t.match(await psql(lab, 'pg1', 'SHOW primary_conninfo'), /sslmode=verify-full/)
  })

  await t.test('a worker that dies in the middle of it leaves it to the next one', async t => {
    const { status, body } = await put({ mode: 'off' }, '')
    t.equal(status, 202, JSON.stringify(body))
    await stepIn(() => service, body.id, 'pg2/register', ['running', 'changed'])
    await service.kill()
    service = await start()
    const operation = await ended(() => service, body.id)
    t.equal(operation.state, 'succeeded', JSON.stringify(operation.error))
    t.ok(operation.turns > 1, 'it was interrupted')
    await healthy()
    t.strictSame((await service.call<Drift>('GET', '/v1/clusters/orders/drift')).body.items, [])
    for (const { name } of [pg1, pg2, pg3, w1])
      t.equal((await lab.exec(name, ['sh', '-c', `ls ${DIRECTORY} 2>&1 || true`])).stdout.includes('No such'), true)
  })
})
