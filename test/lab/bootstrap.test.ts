import { readFile } from 'node:fs/promises'
import { request } from 'node:http'
import t from 'tap'
import type { Problem } from '../../src/api/problems.js'
import type { Cluster } from '../../src/cluster/model.js'
import type { ClusterStatus } from '../../src/cluster/status.js'
import type { Operation, PlanPreview } from '../../src/operations/operation.js'
import { ended, psql, startLabTest } from '../fixtures/lab.js'
import { eventually } from '../fixtures/redis.js'

t.test('bare hosts become a replicating cluster, and one more standby', { timeout: 600_000 }, async t => {
  const { lab, node, addHosts, start, stateDirectory } = await startLabTest(t, 'boot')
  const hosts = await addHosts(['pg1', 'pg2', 'pg3'])
  const service = await start()
  const cluster = { name: 'orders', postgresVersion: 15, nodes: hosts.map(node), bootstrap: true }

  /** What would show that somebody had been there. */
  const traces = async (host: string) =>
    (
      await lab.exec(
        host,
        [
          'sh',
          '-c',
          'dpkg -l | grep -c postgresql; ls -d /etc/postgresql /var/lib/understudy /etc/repmgr.conf /etc/postgresql-common 2>/dev/null',
        ],
        { reject: false },
      )
    ).stdout.trim()

  await t.test('a dry run on bare hosts shows every command and does nothing', async t => {
    const { status, body } = await service.call<PlanPreview>('POST', '/v1/clusters?dryRun=true', { body: cluster })
    t.equal(status, 200)
    t.equal(
      body.stepsThatWouldRun,
      body.steps.length - 2 - hosts.length - (hosts.length - 1),
      'everything but the look, the proof, the firewalls, of which none runs, and slots of before would change something',
    )
    const commands = body.steps.flatMap(({ actions }) =>
      actions.flatMap(action => (action.kind === 'command' ? [action.text] : [])),
    )
    for (const words of [
      'apt-get',
      'pg_createcluster',
      'systemctl start --no-block postgresql@15-main',
      'primary register',
      'standby clone',
      'standby register',
    ]) {
      t.ok(
        commands.some(command => command.includes(words)),
        `a command with ${words}`,
      )
    }
    t.notMatch(JSON.stringify(body), /SCRAM-SHA-256\$/, 'no verifier is shown')
    for (const { name } of hosts) t.equal(await traces(name), '0', `${name} is as bare as before`)
    const { body: list } = await service.call<{ items: Cluster[] }>('GET', '/v1/clusters')
    t.same(list.items, [], 'and the cluster is not recorded')
  })

  let first: Operation | undefined
  await t.test('two bootstraps at once: one is accepted, the other is told which one runs', async t => {
    const answers = await Promise.all(
      [1, 2].map(() => service.call<Operation & Problem>('POST', '/v1/clusters', { body: cluster })),
    )
    t.same(answers.map(({ status }) => status).sort(), [202, 409])
    const accepted = answers.find(({ status }) => status === 202)
    const refused = answers.find(({ status }) => status === 409)
    t.equal(accepted?.headers.location, `/v1/operations/${accepted?.body.id}`)
    t.equal(refused?.body.operation, accepted?.headers.location)
    t.equal(refused?.body.type, '/problems/cluster-busy')
    first = accepted?.body
  })
  if (!first) throw new Error('nothing was started')
  const { id } = first

  await t.test('the events tell the story, live', async t => {
    const events: string[] = []
    const token = (await readFile(`${stateDirectory}/admin-token`, 'utf8')).trim()
    await new Promise<void>((resolve, reject) => {
      const get = request(
        {
          socketPath: service.socket,
          path: `/v1/operations/${id}/events`,
          headers: { authorization: `Bearer ${token}` },
        },
        answer => {
          let text = ''
          answer.setEncoding('utf8').on('data', chunk => {
            text += chunk
          })
          answer.on('end', () => {
            for (const block of text.split('\n\n')) {
              const [, name] = /^event: (.*)$/m.exec(block) ?? []
              if (name) events.push(name)
            }
            resolve()
          })
        },
      )
      get.on('error', reject)
      get.end()
    })
    t.equal(events.at(-1), 'end')
    t.ok(events.filter(name => name === 'step').length > 40, 'each step begins and ends')
    t.ok(events.includes('log'), 'what the hosts print is among them')
    t.equal(events.filter(name => name === 'state').length, 3, 'queued, running, succeeded')
  })

  await t.test('it succeeds, within three minutes', async t => {
    const operation = await ended(() => service, id)
    t.equal(operation.state, 'succeeded', JSON.stringify(operation.error))
    t.ok(Date.parse(operation.endedAt ?? '') - Date.parse(operation.createdAt) < 180_000)
    t.equal(operation.steps.find(step => step.id === 'cluster/proof')?.state, 'verified')
  })

  await t.test('the status is what the servers say', async t => {
    const { body } = await service.call<ClusterStatus>('GET', '/v1/clusters/orders/status')
    t.equal(body.diagnosis.code, 'healthy')
    t.equal(body.primary, 'pg1')
    t.same(
      body.nodes.map(({ name, role, state, upstream, slot }) => [name, role, state, upstream, slot?.active]),
      [
        ['pg1', 'primary', 'running', null, undefined],
        ['pg2', 'standby', 'streaming', 'pg1', true],
        ['pg3', 'standby', 'streaming', 'pg1', true],
      ],
    )
    const text = await service.call<string>('GET', '/v1/clusters/orders/status', { headers: { accept: 'text/plain' } })
    t.match(text.body, /pg2 +standby +streaming +pg1 +1/)
  })

  await t.test('the hosts are as a careful person would have left them', async t => {
    for (const { name } of hosts) {
      const shown = await lab.exec(name, ['sudo', '-u', 'postgres', 'repmgr', 'cluster', 'show'], { reject: false })
      t.equal(shown.exitCode, 0, `repmgr cluster show is content on ${name}: ${shown.stderr}`)
      t.notMatch(
        (await lab.exec(name, ['cat', '/etc/postgresql/15/main/pg_hba.conf'])).stdout.replaceAll(/^#.*$/gm, ''),
        /\btrust\b/,
        `${name} trusts nobody`,
      )
      t.equal(await psql(lab, name, 'SHOW data_checksums'), 'on')
      t.equal(
        (await lab.exec(name, ['stat', '-c', '%a %U', '/var/lib/postgresql/.pgpass'])).stdout.trim(),
        '600 postgres',
      )
      t.equal(
        (await lab.exec(name, ['ls', '-A', '/var/lib/understudy/jobs'])).stdout.trim(),
        '',
        'no detached command has left anything',
      )
      t.equal(
        (
          await lab.exec(name, ['sh', '-c', 'systemctl list-units --all --plain --no-legend "understudy-*"'])
        ).stdout.trim(),
        '',
      )
    }
    t.equal(
      await psql(lab, 'pg1', "SELECT count(*) FROM pg_class WHERE relname LIKE 'understudy%'"),
      '0',
      'the proof removed its table',
    )
    t.match(await psql(lab, 'pg1', "SELECT rolpassword FROM pg_authid WHERE rolname = 'repmgr'"), /^SCRAM-SHA-256\$/)
  })

  await t.test('the password is in the pass files and nowhere else', async t => {
    const pgpass = (await lab.exec('pg1', ['cat', '/var/lib/postgresql/.pgpass'])).stdout
    const password =
      pgpass
        .split('\n')
        .find(line => line.startsWith('192'))
        ?.split(':')
        .at(-1) ?? ''
    t.ok(password.length >= 32)
    const log = await service.call<string>('GET', `/v1/operations/${id}/log`)
    t.notOk(log.body.includes(password), 'not in the operation’s log')
    t.notOk(
      JSON.stringify((await service.call('GET', `/v1/operations/${id}`)).body).includes(password),
      'not in the operation',
    )
    t.notOk((await readFile(service.log, 'utf8')).includes(password), 'not in the service’s log')
    t.notOk(
      (await readFile(`${stateDirectory}/redis/appendonlydir/appendonly.aof.1.incr.aof`, 'latin1')).includes(password),
      'not in Redis',
    )
    for (const { name } of hosts) {
      const found = await lab.exec(
        name,
        ['grep', '-rlF', '--', password, '/var/log', '/etc', '/var/lib/understudy', '/tmp', '/home'],
        { reject: false },
      )
      t.equal(found.stdout.trim(), '', `not in a log or a configuration of ${name}`)
    }
  })

  await t.test('a standby that is rebooted comes back by itself', async t => {
    await lab.reboot('pg2')
    const back = await eventually(async () => {
      const { body } = await service.call<ClusterStatus>('GET', '/v1/clusters/orders/status')
      return body.diagnosis.code === 'healthy' && body
    }, 60_000)
    t.equal(back.nodes.find(({ name }) => name === 'pg2')?.state, 'streaming')
  })

  await t.test('the same call again changes nothing, and says so', async t => {
    const files =
      "find /etc/postgresql /etc/repmgr.conf /var/lib/postgresql/.pgpass /var/lib/understudy/*.json -type f -printf '%p %T@\\n'; head -n 3 /var/lib/postgresql/15/main/postmaster.pid"
    const before = await Promise.all(hosts.map(({ name }) => lab.exec(name, ['sh', '-c', files])))
    const { status, body } = await service.call<Operation>('POST', '/v1/clusters?wait=60', { body: cluster })
    t.equal(status, 200)
    t.equal(body.state, 'succeeded')
    t.equal(body.result?.changedSteps, 0)
    t.match(body.result?.summary, /Nothing had to be changed/)
    const after = await Promise.all(hosts.map(({ name }) => lab.exec(name, ['sh', '-c', files])))
    t.same(
      after.map(({ stdout }) => stdout),
      before.map(({ stdout }) => stdout),
      'no file was written, no server started again',
    )
    const plan = await service.call<PlanPreview>('POST', '/v1/clusters?dryRun=true', { body: cluster })
    t.equal(plan.body.stepsThatWouldRun, 0)
  })

  await t.test('another bare host becomes one more standby', async t => {
    const [pg4] = await addHosts(['pg4'])
    if (!pg4) throw new Error('no host')
    const { status, body } = await service.call<Operation>('POST', '/v1/clusters/orders/nodes', { body: node(pg4) })
    t.equal(status, 202)
    const operation = await ended(() => service, body.id)
    t.equal(operation.state, 'succeeded', JSON.stringify(operation.error))
    const { body: now } = await service.call<ClusterStatus>('GET', '/v1/clusters/orders/status')
    t.same(
      now.nodes.map(({ name, state }) => [name, state]),
      [
        ['pg1', 'running'],
        ['pg2', 'streaming'],
        ['pg3', 'streaming'],
        ['pg4', 'streaming'],
      ],
    )
    await psql(lab, 'pg1', "CREATE TABLE word AS SELECT 'hello' AS word")
    t.equal(await eventually(() => psql(lab, 'pg4', 'SELECT word FROM word').catch(() => undefined)), 'hello')
  })

  await t.test('a node that hangs costs the status its own row and little time', async t => {
    await lab.linkDown('pg3')
    const begun = performance.now()
    const { body } = await service.call<ClusterStatus>('GET', '/v1/clusters/orders/status')
    t.ok(performance.now() - begun < 4000)
    t.equal(body.diagnosis.code, 'standby_down')
    t.equal(body.nodes.find(({ name }) => name === 'pg3')?.state, 'unreachable')
    t.equal(body.nodes.find(({ name }) => name === 'pg2')?.state, 'streaming')
  })

  await t.test('a standby can be added while another one is away, and the journal says who was left out', async t => {
    const [pg5] = await addHosts(['pg5'])
    if (!pg5) throw new Error('no host')
    const { body } = await service.call<Operation>('POST', '/v1/clusters/orders/nodes', { body: node(pg5) })
    const operation = await ended(() => service, body.id)
    t.equal(operation.state, 'succeeded', JSON.stringify(operation.error))
    t.match(operation.steps.find(({ id }) => id === 'pg3/absent')?.note, /pg3|192\.0\.2\.13.*Once it is back/)
    await lab.linkUp('pg3')
    const all = (await lab.hosts()).map(node)
    const again = await service.call<Operation>('POST', '/v1/clusters?wait=60', { body: { ...cluster, nodes: all } })
    t.equal(again.body.state, 'succeeded')
    t.same(
      again.body.steps.filter(({ state }) => state === 'changed').map(({ id }) => id),
      ['pg3/access', 'pg3/pass-file'],
      'once it is back, it is told',
    )
  })
})
