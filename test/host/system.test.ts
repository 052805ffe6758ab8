import { existsSync, readFileSync } from 'node:fs'
import { arch, cpus, hostname } from 'node:os'
import t from 'tap'
import { openHostPool } from '../../src/host/host.js'
import { checkSudo, diskFree, readSystemFacts } from '../../src/host/system.js'
import { createUser, startSshd } from '../fixtures/sshd.js'

t.test('what a host is', async t => {
  const sshd = await startSshd()
  const pool = openHostPool({ identity: { privateKey: sshd.privateKey } })
  const user = createUser({ sudo: true })
  t.teardown(async () => {
    await pool.close()
    await sshd.stop()
    user.remove()
  })
  const host = pool.host(sshd.address({ user: user.name }))

  await t.test('facts', async t => {
    const facts = await readSystemFacts(host)
    const release = readFileSync('/etc/os-release', 'utf8')
    t.match(release, new RegExp(`^ID=["']?${facts.osId}["']?$`, 'm'))
    t.match(release, new RegExp(`^VERSION_ID=["']?${facts.osVersionId}["']?$`, 'm'))
    t.ok(release.includes(facts.osName))
    t.equal(facts.family, existsSync('/etc/debian_version') ? 'debian' : 'rhel')
    t.equal(facts.architecture, arch() === 'arm64' ? 'aarch64' : 'x86_64')
    t.equal(facts.hostname, hostname())
    t.equal(facts.memoryBytes, Number(/MemTotal: +(\d+)/.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1]) * 1024)
    t.equal(facts.cpus, cpus().length)
    t.equal(facts.systemd, existsSync('/run/systemd/system'))
    t.ok(Math.abs(facts.clockOffsetMs) < 1000, `${facts.clockOffsetMs} ms`)
    t.equal(facts.controllerAddress, '127.0.0.1')
  })

  await t.test('disk', async t => {
    const root = await diskFree(host, '/')
    t.equal(root.mount, '/')
    t.ok(root.availableBytes > 0 && root.availableBytes < root.totalBytes)
    const below = await diskFree(host, '/no such/directory/yet')
    t.match(below, { mount: '/', totalBytes: root.totalBytes })
    t.equal((await diskFree(host, '/dev/shm/x')).mount, '/dev/shm')
    await t.rejects(diskFree(host, 'relative'), TypeError)
  })

  await t.test('sudo', async t => {
    await t.resolves(checkSudo(host))
  })
})
