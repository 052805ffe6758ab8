import { existsSync, readFileSync, rmSync } from 'node:fs'
import t from 'tap'
import { callOff } from '../../src/host/call-off.js'
import type { Command } from '../../src/host/command.js'
import { inspectDetached, startDetached } from '../../src/host/detached.js'
import { Superseded } from '../../src/host/errors.js'
import { guarded } from '../../src/host/guard.js'
import { openHostPool } from '../../src/host/host.js'
import { processesWith, startSshd, until } from '../fixtures/sshd.js'

const DIRECTORY = '/var/lib/understudy'
const scope = `test-${process.pid}-off`
const other = `test-${process.pid}-neighbour`
const guard = (epoch: number, of = scope) => ({ scope: of, epoch, waitMs: 60_000 })

t.test('what a cancelled operation has on a host is ended', { timeout: 180_000 }, async t => {
  const sshd = await startSshd()
  const pool = openHostPool({ identity: { privateKey: sshd.privateKey } })
  const host = pool.host(sshd.address())
  const lines: string[] = []
  const log = (line: string) => void lines.push(line)
  t.teardown(async () => {
    await callOff(host, other, 100, log)
    await pool.close()
    await sshd.stop()
    for (const name of [scope, other])
      for (const end of ['lock', 'epoch']) rmSync(`${DIRECTORY}/${name}.${end}`, { force: true })
  })
  const sleeper = (name: string, as: Command['as'] = 'root'): Command => ({
    argv: ['sh', '-c', 'sleep 300; :', name],
    as,
    timeoutMs: 290_000,
  })
  /** Begun and left, as by a worker that is gone. */
  const leave = async (command: Command, epoch: number, of = scope) => {
    const ended = host.run(guarded(command, guard(epoch, of))).then(
      () => 'well',
      () => 'badly',
    )
    await until(() => processesWith(command.argv.at(-1) ?? '').length > 0)
    return ended
  }

  await t.test('where nothing is, nothing is done', async t => {
    await callOff(host, scope, 1, log)
    t.same(lines, [])
    t.equal(readFileSync(`${DIRECTORY}/${scope}.epoch`, 'utf8'), '2\n')
  })

  await t.test('a plain command that would go on for minutes, of an older worker and as another user', async t => {
    const name = `${scope}-plain`
    const left = leave(sleeper(name, 'postgres'), 3)
    await until(() => processesWith(name).length > 0)
    await callOff(host, scope, 5, log)
    t.strictSame(processesWith(name), [], 'when it returns, it is gone')
    t.equal(await left, 'badly')
    t.match(lines.join('\n'), /did not end by itself: SIGTERM to \d+/)
  })

  await t.test('a short command comes to its end', async t => {
    const flag = `/tmp/understudy-${scope}`
    t.teardown(() => rmSync(flag, { force: true }))
    const script = 'sleep 2; echo whole >"$1"; :'
    const left = leave({ argv: ['sh', '-c', script, `${scope}-short`, flag], as: 'root', timeoutMs: 60_000 }, 7)
    await until(() => processesWith(`${scope}-short`).length > 0)
    await callOff(host, scope, 8, log)
    t.equal(readFileSync(flag, 'utf8'), 'whole\n')
    t.equal(await left, 'well')
  })

  await t.test('detached commands, and not those of another cluster', async t => {
    const neighbour = `${other}-clone`
    for (const [id, of] of [
      [`${scope}-pg1-clone`, scope],
      [neighbour, other],
    ] as const) {
      await startDetached(host, { id, command: sleeper(`${id}-job`), guard: guard(10, of) })
      await until(() => processesWith(`${id}-job`).length > 0)
    }
    await callOff(host, scope, 11, log)
    t.strictSame(processesWith(`${scope}-pg1-clone-job`), [])
    t.notOk(existsSync(`${DIRECTORY}/jobs/${scope}-pg1-clone`), 'nor is a file of it left')
    t.same(await inspectDetached(host, neighbour), { state: 'running' })
  })

  await t.test('what was sent before and arrives late does nothing', async t => {
    await callOff(host, scope, 20, log)
    await t.rejects(host.run(guarded(sleeper('late'), guard(20))), Superseded)
    await host.run(guarded({ argv: ['true'], as: 'root', timeoutMs: 10_000 }, guard(21)))
  })

  await t.test('a worker that was replaced ends nothing of the newer one', async t => {
    await host.run(guarded({ argv: ['true'], as: 'root', timeoutMs: 10_000 }, guard(50)))
    await t.rejects(callOff(host, scope, 40, log), Superseded)
  })
})
