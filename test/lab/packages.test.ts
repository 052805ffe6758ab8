/**
 * One lab with Debian 13. Everything that goes wrong comes first, on hosts that stay bare; then a cluster is built from a
 * mirror, with an older version than the distribution has.
 */
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { goldenTree } from '../../lab/lab.js'
import type { Problem } from '../../src/api/problems.js'
import type { Drift } from '../../src/cluster/drift.js'
import type { ClusterStatus } from '../../src/cluster/status.js'
import type { Operation, PlanPreview } from '../../src/operations/operation.js'
import { ended, psql, startLabTest } from '../fixtures/lab.js'
import { startPackageMirror } from '../fixtures/package-mirror.js'
import { eventually } from '../fixtures/redis.js'

// The first run on a machine builds the golden tree as well.
t.test('PGDG and repmgr packages: PostgreSQL 17 and repmgr 5.5', { timeout: 900_000 }, async t => {
  const { lab, node, addHosts, start } = await startLabTest(t, 'packages', { suite: 'trixie' })
  const hosts = await addHosts(['pg1', 'pg2'])
  const service = await start()
  const offered = join(goldenTree('trixie'), 'srv/debian')
  const newest = /^postgresql-17_(.*)_[^_]*\.deb$/m.exec((await readdir(offered)).join('\n'))?.[1] ?? ''
  t.match(newest, /^17\./)
  const older = '17.0-0+lab1'
  const mirror = await startPackageMirror(t, lab, {
    from: offered,
    suite: 'trixie-pgdg',
    packages: {
      'postgresql-17': older,
      'postgresql-client-17': older,
      'postgresql-17-repmgr': undefined,
      'repmgr-common': undefined,
    },
  })
  const fromMirror = { source: 'mirror', mirror: { uri: mirror.uri, signingKey: mirror.signingKey } }
  const describe = (name: string, packages?: object) => ({
    name,
    postgresVersion: 17,
    nodes: hosts.slice(0, 1).map(node),
    bootstrap: true,
    ...(packages ? { packages } : {}),
  })
  const sh = async (host: string, script: string) =>
    (await lab.exec(host, ['sh', '-c', script], { reject: false })).stdout.trim()
  const inApt = () => sh('pg1', 'ls /etc/apt/sources.list.d /etc/apt/keyrings /etc/apt/preferences.d')
  const before = await inApt()
  const fails = async (name: string, packages: object) => {
    const { body } = await service.call<Operation>('POST', '/v1/clusters', { body: describe(name, packages) })
    const operation = await ended(() => service, body.id)
    t.equal(operation.state, 'failed')
    return operation.error
  }

  await t.test('a version that no source has is refused before anything is touched', async t => {
    const body = { ...describe('eighteen'), postgresVersion: 18 }
    const { status, body: problem } = await service.call<Problem>('POST', '/v1/clusters?dryRun=true', { body })
    t.equal(status, 409)
    t.match(
      problem.detail,
      /pg1 \(Debian GNU\/Linux 13 \(trixie\)\) do not have postgresql-18 and postgresql-18-repmgr/,
    )
    t.match(problem.detail, /they have PostgreSQL 17 with repmgr/)
  })

  await t.test('PGDG, which a host without the internet cannot reach', async t => {
    const { body: plan } = await service.call<PlanPreview>('POST', '/v1/clusters?dryRun=true', {
      body: describe('pgdg', { source: 'pgdg' }),
    })
    const source = plan.steps.find(({ id }) => id === 'pg1/package-source')?.actions
    t.match(JSON.stringify(source), /URIs: https:\/\/apt.postgresql.org\/pub\/repos\/apt\\nSuites: trixie-pgdg\\n/)
    const error = await fails('pgdg', { source: 'pgdg' })
    t.equal(error?.code, 'package-source-unreachable')
    t.match(error?.detail, /from https:\/\/apt.postgresql.org\/pub\/repos\/apt: .*resolv/)
    t.equal(await inApt(), before, 'nothing was put in place')
  })

  await t.test('a mirror that is signed by another key', async t => {
    const error = await fails('strange', {
      source: 'mirror',
      mirror: { uri: mirror.uri, signingKey: mirror.strangersKey },
    })
    t.equal(error?.code, 'package-source-untrusted')
    t.match(error?.detail, /http:\/\/192\.0\.2\.1:8081\/: .*(?:Missing key|NO_PUBKEY)/)
    t.equal(await inApt(), before, 'nothing was put in place')
  })

  await t.test('a version that is not there, and those that are', async t => {
    const error = await fails('missing', { ...fromMirror, versions: { postgresql: '17.99-1' } })
    t.equal(error?.code, 'packages-unavailable')
    t.match(error?.detail, /do not have postgresql-17 17\.99-1/)
    t.ok(error?.detail.includes(`they have postgresql-17 ${newest}, ${older}`), error?.detail ?? '')
    t.equal(await sh('pg1', 'dpkg -l "postgresql*" | grep ^ii'), '', 'nothing was installed')
  })

  await t.test('a disk without room for them', async t => {
    await sh('pg1', 'mount -t tmpfs -o size=1m small /var/cache/apt/archives')
    const error = await fails('crowded', fromMirror)
    await sh('pg1', 'umount /var/cache/apt/archives')
    t.equal(error?.code, 'disk-full')
    t.match(error?.detail, /\/var\/cache\/apt\/archives/)
  })

  await t.test('an installation that was cut short before', async t => {
    await sh('pg1', 'echo "Package: x" > /var/lib/dpkg/updates/0001')
    const error = await fails('halfway', fromMirror)
    await sh('pg1', 'rm /var/lib/dpkg/updates/0001')
    t.equal(error?.code, 'package-manager-interrupted')
    t.match(error?.remedy, /dpkg --configure -a/)
  })

  const cluster = {
    ...describe('orders', { ...fromMirror, versions: { postgresql: older } }),
    nodes: hosts.map(node),
  }
  await t.test('a cluster from a mirror, in a version that is named; a busy package manager is waited for', async t => {
    const lock =
      'use Fcntl; open(F, ">>/var/lib/dpkg/lock-frontend") or die; my $lock = pack("s s x4 l! l! i x4", F_WRLCK, 0, 0, 0, 0); fcntl(F, F_SETLK, $lock) or die; $0 = "unattended-upgr"; sleep 600'
    const holder = lab.exec('pg2', ['perl', '-e', lock], { reject: false, timeoutMs: 700_000 })
    const { body } = await service.call<Operation>('POST', '/v1/clusters', { body: cluster })
    await eventually(async () => {
      const { body: log } = await service.call<string>('GET', `/v1/operations/${body.id}/log`)
      return /It is held by process \d+ \(unattended-upgr\)/.test(log)
    }, 120_000)
    await lab.signal('pg2', 'unattended-upgr', 'SIGKILL')
    await holder
    const operation = await ended(() => service, body.id, 300_000)
    t.equal(operation.state, 'succeeded', JSON.stringify(operation.error))
    for (const { name } of hosts) {
      t.match(operation.steps.find(({ id }) => id === `${name}/packages`)?.note, `postgresql-17 ${older}`)
      t.match(await sh(name, 'repmgr --version'), /^repmgr 5\.5/)
    }
    const { body: status } = await service.call<ClusterStatus>('GET', '/v1/clusters/orders/status')
    t.equal(status.diagnosis.code, 'healthy')
    t.same(
      status.nodes.map(({ name, state, upstream, serverVersion, slot }) => [
        name,
        state,
        upstream,
        serverVersion?.split('.')[0],
        slot?.active,
      ]),
      [
        ['pg1', 'running', null, '17', undefined],
        ['pg2', 'streaming', 'pg1', '17', true],
      ],
    )
  })

  await t.test('repmgr 5.5 is content with it', async t => {
    for (const { name } of hosts) {
      for (const check of ['cluster show', 'node check']) {
        const shown = await lab.exec(name, ['sudo', '-u', 'postgres', 'repmgr', ...check.split(' ')], { reject: false })
        t.equal(shown.exitCode, 0, `repmgr ${check} on ${name}: ${shown.stdout}${shown.stderr}`)
      }
    }
    t.equal(await psql(lab, 'pg1', 'SELECT count(*) FROM pg_settings WHERE pending_restart'), '0')
  })

  await t.test('nobody moves it to another version', async t => {
    const installed = 'dpkg-query -W postgresql-17 | cut -f2'
    await sh('pg2', 'apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q -y dist-upgrade')
    t.equal(await sh('pg2', installed), older)
    t.match(await sh('pg2', 'apt-mark showhold'), /^postgresql-17$/m)
    t.equal(
      await sh('pg2', 'grep -rl "^Trusted\\|trusted=" /etc/apt/sources.list.d'),
      '',
      'it is trusted by its key only',
    )
  })

  await t.test('the same call again changes nothing, also while the mirror is away', async t => {
    mirror.stop()
    const { body } = await service.call<Operation>('POST', '/v1/clusters?wait=60', { body: cluster })
    t.equal(body.state, 'succeeded', JSON.stringify(body))
    t.equal(body.result?.changedSteps, 0)
  })

  await t.test('one that was moved all the same is told of, and its server is left alone', async t => {
    await sh(
      'pg2',
      `DEBIAN_FRONTEND=noninteractive apt-get -q -y --allow-change-held-packages install postgresql-17=${newest} postgresql-client-17=${newest}`,
    )
    const restarted = await psql(lab, 'pg2', 'SELECT pg_postmaster_start_time()')
    const { body } = await service.call<Operation>('POST', '/v1/clusters?wait=60', { body: cluster })
    t.equal(body.state, 'succeeded', JSON.stringify(body))
    t.match(body.steps.find(({ id }) => id === 'pg2/packages')?.note, `postgresql-17 is ${newest} and not ${older}`)
    t.equal(await psql(lab, 'pg2', 'SELECT pg_postmaster_start_time()'), restarted)
    const { body: drift } = await service.call<Drift>('GET', '/v1/clusters/orders/drift')
    t.match(
      drift.items.find(({ kind }) => kind === 'package'),
      { node: 'pg2', detail: `postgresql-17 is ${newest}, and the description says ${older}.` },
      JSON.stringify(drift),
    )
  })
})
