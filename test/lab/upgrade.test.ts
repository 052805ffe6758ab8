/** A minor upgrade from node to node, under a client that writes. */
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { goldenTree } from '../../lab/lab.js'
import type { Cluster } from '../../src/cluster/model.js'
import type { Operation, PlanPreview } from '../../src/operations/operation.js'
import { ended } from '../fixtures/lab.js'
import { startPackageMirror } from '../fixtures/package-mirror.js'
import { startRollingTest } from '../fixtures/rolling.js'

t.test('every server gets another minor version', { timeout: 880_000 }, async t => {
  const { lab, names, description, now, call, done, healthy, started, sh, states, writing, undisturbed } =
    await startRollingTest(t, 'upgrade')

  const installed = (host: string) => sh(host, 'dpkg-query -W postgresql-17 | cut -f2')
  const newer = '17.99-0+lab1'

  await t.test('an upgrade: a node that fails stops it with the primary as it was, and a retry goes on', async t => {
    const mirror = await startPackageMirror(t, lab, {
      from: join(goldenTree('trixie'), 'srv/debian'),
      suite: 'trixie-pgdg',
      packages: {
        'postgresql-17': newer,
        'postgresql-client-17': newer,
        'postgresql-17-repmgr': undefined,
        'repmgr-common': undefined,
      },
    })
    const packages = { source: 'mirror', mirror: { uri: mirror.uri, signingKey: mirror.signingKey }, hold: true }
    const { bootstrap: _bootstrap, ...described } = { ...description, packages }
    await done((await now.service.call<Operation>('PUT', '/v1/clusters/orders', { body: described })).body.id)
    const older = await installed('pg1')

    t.match(await call('upgrade', { version: '16.3-1' }), {
      status: 422,
      body: { detail: /no version of PostgreSQL 17/ },
    })
    const { body: plan } = await call<PlanPreview>('upgrade?dryRun=true')
    for (const name of ['pg2', 'pg3'])
      t.match(
        plan.steps.find(({ id }) => id === `${name}/upgrade`)?.reason,
        `postgresql-17 is ${older} and becomes ${newer}`,
      )
    t.equal(await installed('pg2'), older)

    const before = await started()
    const starts = () =>
      Promise.all(
        names.map(host => sh(host, 'grep -c "starting PostgreSQL" /var/log/postgresql/postgresql-17-main.log')),
      )
    const startsBefore = await starts()
    await sh('pg1', "printf '#!/bin/sh\\nexit 0\\n' >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d")
    await sh('pg3', "echo 'pre-invoke=false' >/etc/dpkg/dpkg.cfg.d/broken")
    const writer = await writing()
    await sleep(1000)
    const { body } = await call('upgrade')
    const failed = await ended(() => now.service, body.id, 400_000)
    t.match(failed.error, { step: 'pg3/upgrade', remedy: /the primary, were not touched.*retry the operation/s })
    t.same(await Promise.all(names.map(installed)), [older, newer, older])
    t.same(
      (await started()).map((time, index) => time === before[index]),
      [true, false, true],
    )
    await healthy('pg1')
    t.match(await sh('pg3', 'ls /usr/sbin/policy-rc.d* /run/understudy-upgrade 2>/dev/null'), /^$/, 'nothing is left')

    await sh('pg3', 'rm /etc/dpkg/dpkg.cfg.d/broken')
    await now.service.call('POST', `/v1/operations/${body.id}/retry`)
    const operation = await done(body.id)
    t.equal(states(operation)['pg2/restart'], 'changed')
    await healthy('pg2')
    t.same(await Promise.all(names.map(installed)), [newer, newer, newer])
    t.same(
      (await starts()).map((count, index) => Number(count) - Number(startsBefore[index])),
      [1, 1, 1],
      'each server was started once: by nobody but the service',
    )
    for (const name of names) {
      t.match(
        await sh(name, 'cat /var/log/apt/term.log'),
        /policy-rc\.d (?:denied|returned 101)/,
        `the package of ${name} wanted to`,
      )
      t.match(await sh(name, 'apt-mark showhold'), /^postgresql-17$/m, 'held as before')
    }
    t.equal(await sh('pg1', 'cat /usr/sbin/policy-rc.d'), '#!/bin/sh\nexit 0', 'what an owner has there is back')
    await undisturbed(t, writer, 'pg2')
    const { body: cluster } = await now.service.call<Cluster>('GET', '/v1/clusters/orders')
    t.same(
      cluster.nodes.map(({ installed }) => installed?.['postgresql-17']),
      [newer, newer, newer],
    )
    t.equal(cluster.handover, undefined)
    const again = await done((await call('upgrade')).body.id)
    t.equal(again.result?.changedSteps, 0, 'a second time nothing')
  })
})
