import t from 'tap'
import type { Problem } from '../../src/api/problems.js'
import type { ClusterStatus } from '../../src/cluster/status.js'
import type { Operation, PlanPreview } from '../../src/operations/operation.js'
import { ended, psql, startLabTest } from '../fixtures/lab.js'
import { eventually } from '../fixtures/redis.js'

const SSH = '/var/lib/postgresql/.ssh'
const LIMIT_MS = 240_000

t.test('passwordless SSH between the postgres users, and ship_logs.sh made right', { timeout: 890_000 }, async t => {
  const { lab, node, addHosts, start } = await startLabTest(t, 'arch', { postgres: true })
  const hosts = await addHosts(['pg1', 'pg2', 'pg3'])
  const service = await start()
  const names = hosts.map(({ name }) => name)
  const address = (name: string) => hosts.find(host => host.name === name)?.address ?? ''
  const cluster = { name: 'orders', postgresVersion: 15, nodes: hosts.map(node), archive: { mode: 'ship' } }

  const shell = async (host: string, script: string) =>
    (await lab.exec(host, ['sh', '-c', script], { reject: false, timeoutMs: 60_000 })).stdout.trim()
  const asPostgres = (host: string, script: string) =>
    lab.exec(host, ['sudo', '-u', 'postgres', 'sh', '-c', `cd && ${script}`], { reject: false, timeoutMs: 60_000 })
  const status = async () => (await service.call<ClusterStatus>('GET', '/v1/clusters/orders/status')).body
  const done = async (method: string, path: string, body: unknown) => {
    const answer = await service.call<Operation & Problem>(method, path, { body })
    if (answer.status !== 202) return t.fail(`${method} ${path}: ${JSON.stringify(answer.body)}`) as never
    return ended(() => service, answer.body.id, 400_000)
  }
  /** Finishes a segment with something in it; gives its name. */
  const finishSegment = async (host = 'pg1') => {
    const name = await psql(lab, host, "SELECT pg_walfile_name(pg_create_restore_point('test'))")
    await psql(lab, host, 'SELECT pg_switch_wal()')
    return name
  }
  const archived = (host: string, segment: string) =>
    eventually(
      async () => (await shell(host, `ls /var/lib/postgresql/wal-archive/*/${segment} 2>/dev/null`)) !== '',
      LIMIT_MS,
    )

  const made = await done('POST', '/v1/clusters', { ...cluster, bootstrap: true })
  t.equal(made.state, 'succeeded', JSON.stringify(made.error))

  await t.test(
    'passwordless SSH between the postgres users: a key a host, bound to addresses, for the archive alone',
    async t => {
      t.match(made.steps.find(({ id }) => id === 'cluster/ssh-proof')?.note, /6 directions/)
      const keys = new Set<string>()
      for (const name of names) {
        t.equal(
          await shell(name, `stat -c '%U %a' ${SSH} ${SSH}/authorized_keys ${SSH}/understudy_ed25519 | sort -u`),
          'postgres 600\npostgres 700',
        )
        keys.add(await shell(name, `cut -d' ' -f2 ${SSH}/understudy_ed25519.pub`))
        const authorized = await shell(name, `cat ${SSH}/authorized_keys`)
        for (const other of names.filter(one => one !== name))
          t.match(
            authorized,
            new RegExp(
              `from="${address(other)}",restrict,command="/usr/local/bin/understudy-wal-archive serve" ssh-ed25519 .* understudy:${other}`,
            ),
          )
      }
      t.equal(keys.size, 3, 'each has a key of its own')
      const login = `ssh -i ${SSH}/understudy_ed25519 -o BatchMode=yes -o StrictHostKeyChecking=yes postgres@${address('pg2')}`
      const refused = await asPostgres('pg1', `${login} id`)
      t.equal(refused.exitCode, 5)
      t.match(refused.stderr, /this key is for the WAL archive only/)
      t.match(
        (await asPostgres('pg3', `ssh-keygen -lF ${address('pg1')} -f ${SSH}/known_hosts`)).stdout,
        hosts[0]?.hostKey ?? 'none',
      )
    },
  )

  await t.test(
    'WAL archive: proven before the cluster counts as built; the same call again changes nothing',
    async t => {
      t.match(made.steps.find(({ id }) => id === 'cluster/archive-proof')?.note, /read back on pg2, pg3/)
      const { archive, diagnosis } = await status()
      t.equal(diagnosis.code, 'healthy', diagnosis.detail)
      t.match(archive, { mode: 'ship', failing: false, missing: [], aloneSegments: 0 })
      t.match(archive?.lastArchivedWal, /^[0-9A-F]{24}/)
      const again = await done('POST', '/v1/clusters', { ...cluster, bootstrap: true })
      t.equal(again.state, 'succeeded', JSON.stringify(again.error))
      t.equal(again.result?.changedSteps, 0, JSON.stringify(again.steps.filter(({ state }) => state === 'changed')))
      for (const name of names)
        t.equal(
          await shell(name, "ls /var/lib/postgresql/wal-archive/*/ | grep -c '^[0-9A-F]*$'"),
          await shell('pg1', "ls /var/lib/postgresql/wal-archive/*/ | grep -c '^[0-9A-F]*$'"),
          `${name} has what pg1 has`,
        )
    },
  )

  await t.test('a standby is down: the archive goes on, and it is brought what it missed', async t => {
    await lab.linkDown('pg3')
    const segments = [await finishSegment(), await finishSegment()]
    for (const segment of segments) await archived('pg2', segment)
    const told = await eventually(async () => {
      const { archive } = await status()
      return archive?.missing.some(({ node, segments }) => node === 'pg3' && segments >= 2) && archive
    }, LIMIT_MS)
    t.equal(told.failing, false)
    await lab.linkUp('pg3')
    for (const segment of segments) await archived('pg3', segment)
    await eventually(async () => (await status()).archive?.missing.length === 0, LIMIT_MS)
    t.pass('and nothing is owed any more')
  })

  await t.test('another content under the same name is refused loudly, and diagnosed', async t => {
    const next = await psql(lab, 'pg1', 'SELECT pg_walfile_name(pg_current_wal_lsn())')
    const place = await shell('pg2', 'ls -d /var/lib/postgresql/wal-archive/[0-9]*')
    await asPostgres('pg2', `echo 'of somebody else' >${place}/${next}`)
    t.equal(await finishSegment(), next)
    const told = await eventually(async () => {
      const now = await status()
      return now.diagnosis.code === 'archive_failing' && now
    }, LIMIT_MS)
    t.match(told.diagnosis.detail, new RegExp(`pg1 cannot archive ${next}.*in the archive of pg2 with another content`))
    t.equal(await shell('pg2', `cat ${place}/${next}`), 'of somebody else', 'nothing was overwritten')
    const text = await service.call<string>('GET', '/v1/clusters/orders/status', { headers: { accept: 'text/plain' } })
    t.match(text.body, /WAL archive \(ship\)/)
    await shell('pg2', `rm ${place}/${next}`)
    // A newly finished segment wakes the archiver.
    await finishSegment()
    await eventually(async () => (await status()).diagnosis.code === 'healthy', LIMIT_MS)
    await archived('pg2', next)
  })

  await t.test('a standby that lost its slot and its WAL catches up from the archive of another node', async t => {
    await lab.exec('pg3', ['systemctl', 'stop', 'postgresql@15-main'], { timeoutMs: 120_000 })
    const missed = await psql(lab, 'pg1', 'SELECT pg_walfile_name(pg_current_wal_lsn())')
    await eventually(
      () =>
        psql(lab, 'pg1', "SELECT pg_drop_replication_slot('repmgr_slot_3')").then(
          () => true,
          () => false,
        ),
      LIMIT_MS,
    )
    await psql(lab, 'pg1', "CREATE TABLE lost AS SELECT 'found again' AS word")
    let last = ''
    for (let round = 0; round < 3; round += 1) last = await finishSegment()
    await archived('pg2', last)
    await psql(lab, 'pg1', 'CHECKPOINT')
    t.equal(
      await shell('pg1', `ls /var/lib/postgresql/15/main/pg_wal/${missed} 2>&1 | grep -c 'No such'`),
      '1',
      'the primary has it no more',
    )
    await shell('pg3', 'rm -rf /var/lib/postgresql/wal-archive/[0-9]*')
    await lab.exec('pg3', ['systemctl', 'start', 'postgresql@15-main'], { timeoutMs: 120_000 })
    t.equal(
      await eventually(() => psql(lab, 'pg3', 'SELECT word FROM lost').catch(() => undefined), LIMIT_MS),
      'found again',
    )
    await psql(lab, 'pg1', "SELECT pg_create_physical_replication_slot('repmgr_slot_3')")
    await eventually(async () => (await status()).diagnosis.code === 'healthy', LIMIT_MS)
  })

  await t.test(
    'changed while it runs: off and on again without a restart; a restart only where it was asked for',
    async t => {
      const startedAt = () => psql(lab, 'pg1', 'SELECT pg_postmaster_start_time()')
      const before = await startedAt()
      const off = await done('PUT', '/v1/clusters/orders/archive', { mode: 'none' })
      t.equal(off.state, 'succeeded', JSON.stringify(off.error))
      t.equal(await psql(lab, 'pg1', 'SHOW archive_command'), '/bin/true')
      for (const name of names) {
        t.equal(
          await shell(
            name,
            `ls ${SSH}/understudy* /usr/local/bin/understudy* /etc/systemd/system/understudy-wal* 2>/dev/null`,
          ),
          '',
          `nothing is left on ${name}`,
        )
        t.notMatch(await shell(name, `cat ${SSH}/authorized_keys ${SSH}/known_hosts`), /understudy/)
        t.not(await shell(name, 'ls -A /var/lib/postgresql/wal-archive'), '', 'but what was archived')
      }
      t.equal((await status()).archive, null)

      // A server that was started without archive_mode, as one from before would be.
      await shell(
        'pg3',
        "sed -i 's/^archive_mode = on/archive_mode = off/' /etc/postgresql/15/main/conf.d/understudy.conf && systemctl restart postgresql@15-main",
      )
      const wanted = { mode: 'ship', retention: { hours: 72 } }
      for (const path of ['/v1/clusters/orders/archive?dryRun=true', '/v1/clusters/orders/archive?wait=60']) {
        const refused = await service.call<Problem>('PUT', path, { body: wanted })
        t.equal(refused.status, 409, path)
        t.match(refused.body.detail, /pg3 has to be restarted.*"restart": true/)
      }
      const on = await done('PUT', '/v1/clusters/orders/archive', { ...wanted, restart: true })
      t.equal(on.state, 'succeeded', JSON.stringify(on.error))
      t.same(
        on.steps.filter(({ id, state }) => id.endsWith('/archive-restart') && state === 'changed').map(({ id }) => id),
        ['pg3/archive-restart'],
        'the one that needed it, and no other',
      )
      t.equal(await startedAt(), before, 'the primary was never restarted')
      t.match(await shell('pg2', 'cat /etc/understudy/wal-archive.conf'), /retention_hours=72/)
      const same = await service.call<PlanPreview>('PUT', '/v1/clusters/orders/archive?dryRun=true', { body: wanted })
      t.equal(same.body.stepsThatWouldRun, 0, 'the same again would change nothing')
    },
  )

  await t.test('commands of one’s own: what cannot be read back is no archive', async t => {
    const wrong = await service.call<Problem>('PUT', '/v1/clusters/orders/archive', {
      body: { mode: 'command', command: 'true' },
    })
    t.equal(wrong.status, 422)
    for (const name of names) await asPostgres(name, 'mkdir -p own')
    const own = {
      mode: 'command',
      command: 'cp "%p" "/var/lib/postgresql/own/%f"',
      restoreCommand: 'cp "/var/lib/postgresql/own/%f" "%p"',
    }
    const failed = await done('PUT', '/v1/clusters/orders/archive', own)
    t.equal(failed.state, 'failed')
    t.equal(failed.error?.code, 'archive-not-proven')
    t.match(failed.error?.detail, /pg2 cannot read [0-9A-F]{24} back/)
  })

  await t.test(
    'passwordless SSH: a login where it is asked for; what else is in the files stays; AllowUsers is told of',
    async t => {
      const mine = `ssh-ed25519 ${'A'.repeat(68)} backup@elsewhere`
      await asPostgres('pg2', `echo '${mine}' >>.ssh/authorized_keys`)
      await shell('pg2', "echo 'AllowUsers admin' >/etc/ssh/sshd_config.d/test.conf && systemctl reload ssh")
      const wanted = { ...cluster, sshBetweenNodes: true, archive: { mode: 'ship', retention: { hours: 72 } } }
      const failed = await done('PUT', '/v1/clusters/orders', wanted)
      t.equal(failed.error?.code, 'node-ssh-refused', JSON.stringify(failed.error))
      t.match(failed.error?.detail, /postgres on pg[13] cannot log in to pg2 .*allowusers admin/)
      await shell('pg2', 'rm /etc/ssh/sshd_config.d/test.conf && systemctl reload ssh')
      const full = await done('PUT', '/v1/clusters/orders', wanted)
      t.equal(full.state, 'succeeded', JSON.stringify(full.error))
      t.match(await shell('pg2', `cat ${SSH}/authorized_keys`), mine, 'what somebody else wrote stays')
      const crosscheck = await asPostgres('pg1', 'repmgr cluster crosscheck')
      t.equal(crosscheck.exitCode, 0, `${crosscheck.stdout}${crosscheck.stderr}`)
      t.equal((await asPostgres('pg3', `ssh ${address('pg1')} whoami`)).stdout.trim(), 'postgres')
      t.equal((await status()).archive?.failing, false, 'and the archive works with it too')
    },
  )

  await t.test('after a change of roles the new primary archives, to the old one’s host too', async t => {
    await lab.exec('pg1', ['systemctl', 'stop', 'postgresql@15-main'], { timeoutMs: 120_000 })
    await psql(lab, 'pg2', 'SELECT pg_promote()')
    const segment = await finishSegment('pg2')
    t.match(segment, /^00000002/)
    for (const name of names) {
      await archived(name, segment)
      await archived(name, '00000002.history')
    }
    t.equal(
      new Set(
        await Promise.all(names.map(name => shell(name, `sha256sum </var/lib/postgresql/wal-archive/*/${segment}`))),
      ).size,
      1,
      'the same on all three',
    )
  })
})
