import { spawnSync } from 'node:child_process'
import { existsSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import {
  cancelDetached,
  followDetached,
  forgetDetached,
  inspectDetached,
  startDetached,
} from '../../src/host/detached.js'
import { sweepDetached } from '../../src/host/detached-sweep.js'
import { openHostPool } from '../../src/host/host.js'
import { createUser, startSshd } from '../fixtures/sshd.js'

const JOBS = '/var/lib/understudy/jobs'

t.test('jobs that nobody asked about again go after a week', async t => {
  const sshd = await startSshd()
  const user = createUser({ sudo: true })
  const pool = openHostPool({ identity: { privateKey: sshd.privateKey }, connectTimeoutMs: 3000 })
  const host = pool.host(sshd.address())
  const id = (name: string) => `sweep-${process.pid}-${name}`
  const names = ['old', 'young', 'running', 'lost']
  const flag = join(t.testdir({}), 'run')
  writeFileSync(flag, '')
  t.teardown(async () => {
    rmSync(flag, { force: true })
    for (const name of names) {
      await cancelDetached(host, id(name)).catch(() => undefined)
      await forgetDetached(host, id(name)).catch(() => undefined)
    }
    await pool.close()
    user.remove()
    await sshd.stop()
  })
  const start = async (name: string, script: string) => {
    const command = { argv: ['sh', '-c', script, name], as: 'root' as const, timeoutMs: 1 }
    await startDetached(host, { id: id(name), command })
  }
  const ended = (name: string) => followDetached(host, id(name), { pollMs: 50, timeoutMs: 30_000 })
  const age = (name: string) =>
    spawnSync('find', [join(JOBS, id(name)), '-exec', 'touch', '-h', '-d', '8 days ago', '{}', '+'])
  const there = () => names.filter(name => existsSync(join(JOBS, id(name))))

  await start('old', 'exit 1')
  await start('young', 'exit 0')
  await start('running', `while [ -e ${flag} ]; do sleep 0.05; done`)
  await start('lost', 'exit 0')
  for (const name of ['old', 'young', 'lost']) await ended(name)
  rmSync(join(JOBS, id('lost'), 'exit'))
  t.match(await inspectDetached(host, id('lost')), { state: 'lost' })
  for (const name of ['old', 'running', 'lost']) age(name)

  const own = (swept: string[]) => swept.filter(one => one.startsWith(id(''))).sort()
  t.same(own(await sweepDetached(host)), [id('lost'), id('old')])
  t.same(there(), ['young', 'running'], 'what runs stays, however old its files are')
  t.notOk(existsSync(join(JOBS, `${id('old')}.lock`)))
  t.match(await inspectDetached(host, id('running')), { state: 'running' })
  t.same(own(await sweepDetached(host)), [], 'once')

  rmSync(flag)
  t.match(await ended('running'), { exitCode: 0 })
  t.same(own(await sweepDetached(host)), [], 'its end is young')
  t.same(there(), ['young', 'running'])
})
