/** The lab itself: are its hosts bare and real, do its faults do what they say, does it leave nothing behind? */
import { createHash } from 'node:crypto'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { command } from '../../lab/command.js'
import { bringUpLab, type Lab, type LabHost, openLab, takeLabDown, whatIsMissing } from '../../lab/lab.js'

const missing = await whatIsMissing()
// The first run on a machine builds the golden tree as well.
t.setTimeout(600_000)

t.test('a lab of two hosts', async t => {
  if (missing) throw new Error(missing)
  const [name, second] = [`t${process.pid}`, `u${process.pid}`]
  const directory = await mkdtemp(join(tmpdir(), 'understudy-lab-'))
  const key = join(directory, 'key')
  t.teardown(async () => {
    await takeLabDown(name)
    await takeLabDown(second)
    await rm(directory, { recursive: true })
  })
  // bringUpLab installs ssh-keygen where it is missing; the key is needed before.
  const { ensurePackages } = await import('../../lab/packages.js')
  await ensurePackages(line => t.comment(line))
  await command(['ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-f', key])
  const publicKeys = [await readFile(`${key}.pub`, 'utf8')]
  const log = (line: string) => t.comment(line)

  const lab = await bringUpLab({ name, publicKeys, log })
  // Side by side, as a test would.
  const [pg1, pg2] = await Promise.all([
    lab.addHost('pg1'),
    lab.addHost('pg2', { postgresDiskBytes: 64 * 1024 * 1024, sudo: false }),
  ])
  const succeeds = async (host: string, ...argv: string[]) =>
    (await lab.exec(host, argv, { reject: false })).exitCode === 0
  const reaches = (from: string, to: string) => succeeds(from, 'ping', '-q', '-c', '1', '-W', '1', to)

  t.test('its hosts are bare and different', async t => {
    t.notOk(await succeeds('pg1', 'sh', '-c', 'command -v psql || dpkg -s postgresql-15'), 'no PostgreSQL')
    t.equal((await lab.exec('pg1', ['hostname'])).stdout, 'pg1')
    t.equal((await lab.exec('pg1', ['systemctl', 'is-system-running', '--wait'])).stdout, 'running')
    const ids = await Promise.all(['pg1', 'pg2'].map(host => lab.exec(host, ['cat', '/etc/machine-id'])))
    t.not(ids[0]?.stdout, ids[1]?.stdout, 'each has a machine-id of its own')
    t.not(pg1.hostKey, pg2.hostKey)
    t.same(new Set([pg1.address, pg2.address]), new Set(['192.0.2.11', '192.0.2.12']))
    await t.rejects(lab.addHost('pg1'), { message: /has a host pg1 already/ })
    await t.rejects(lab.exec('pg1', ['ls', '/nowhere']), { message: /No such file/ })
  })

  t.test('they reach each other by name, and nothing else', async t => {
    t.ok(await reaches('pg1', 'pg2'))
    t.ok(await reaches('pg2', 'pg1'))
    t.ok(await reaches('pg1', lab.gateway))
    t.notOk(await reaches('pg1', '203.0.113.1'))
  })

  t.test('ssh with the given key, to the host key that was returned', async t => {
    const ssh = (host: LabHost, ...argv: string[]) =>
      lab.run(
        [
          'ssh',
          '-i',
          key,
          '-o',
          'BatchMode=yes',
          '-o',
          'StrictHostKeyChecking=no',
          '-o',
          `UserKnownHostsFile=${join(directory, 'known_hosts')}`,
          `${host.loginUser}@${host.address}`,
          ...argv,
        ],
        { reject: false },
      )
    t.match(await ssh(pg1, 'hostname; sudo -n id -un'), { exitCode: 0, stdout: 'pg1\nroot' })
    const refused = await ssh(pg2, 'sudo -n id -un')
    t.not(refused.exitCode, 0, 'no sudo on the host that was to have none')
    const { stdout } = await lab.run(['ssh-keyscan', '-t', 'ed25519', pg1.address])
    const blob = stdout.split(' ')[2] ?? ''
    const digest = createHash('sha256').update(Buffer.from(blob, 'base64')).digest('base64').replace(/=+$/, '')
    t.equal(`SHA256:${digest}`, pg1.hostKey)
    const password = await lab.run(
      [
        'ssh',
        '-v',
        '-o',
        'BatchMode=yes',
        '-o',
        'PubkeyAuthentication=no',
        '-o',
        'StrictHostKeyChecking=no',
        '-o',
        'UserKnownHostsFile=/dev/null',
        `admin@${pg1.address}`,
        'true',
      ],
      { reject: false },
    )
    t.match(password.stderr, /can continue: publickey$/m, 'keys only')
  })

  t.test('cable and firewall', async t => {
    await lab.linkDown('pg2')
    t.notOk(await reaches('pg1', 'pg2'))
    await lab.linkUp('pg2')
    t.ok(await reaches('pg1', 'pg2'))

    const tcp = (from: string, to: string) => succeeds(from, 'timeout', '1', 'bash', '-c', `exec 3<>/dev/tcp/${to}/22`)
    await lab.block('pg2', { from: 'pg1', port: 22 })
    t.notOk(await tcp('pg1', 'pg2'), 'blocked from pg1')
    t.ok(await tcp('pg2', 'pg1'), 'the other way is open')
    t.ok(await reaches('pg1', 'pg2'), 'and so is everything but the port')
    await lab.block('pg2', { to: 'gateway' })
    t.notOk((await reaches('pg2', 'gateway')) || (await reaches('pg2', lab.gateway)))
    await lab.unblock('pg2')
    t.ok(await tcp('pg1', 'pg2'))
  })

  t.test('signals reach the processes of one host', async t => {
    const sleeper = await lab.spawn(['sleep', '54321'])
    await Promise.all(['pg1', 'pg2'].map(host => lab.exec(host, ['systemd-run', '-q', 'sleep', '54321'])))
    const state = async (host: string) =>
      (await lab.exec(host, ['ps', '-C', 'sleep', '-o', 'state='], { reject: false })).stdout
    t.equal(await lab.signal('pg1', 'sleep 54321', 'SIGSTOP'), 1)
    t.same([await state('pg1'), await state('pg2')], ['T', 'S'])
    t.equal(await lab.signal('pg1', 'sleep 54321', 'SIGCONT'), 1)
    t.equal(await lab.signal('pg1', 'sleep 54321', 'SIGKILL'), 1)
    t.same([await state('pg1'), await state('pg2')], ['', 'S'])
    t.equal(await lab.signal('pg1', 'sleep 54321', 'SIGKILL'), 0)
    t.equal(sleeper.exitCode, null, 'the one outside goes on')
  })

  t.test('a full disk', async t => {
    const write = () =>
      lab.exec('pg2', ['dd', 'if=/dev/zero', 'of=/var/lib/postgresql/x', 'bs=64k', 'count=2'], { reject: false })
    t.equal((await write()).exitCode, 0)
    await lab.exec('pg2', ['rm', '/var/lib/postgresql/x'])
    await lab.fill('pg2', '/var/lib/postgresql', 65536)
    t.match(await write(), { exitCode: 1, stderr: /No space left on device/ })
    await lab.unfill('pg2', '/var/lib/postgresql')
    t.equal((await write()).exitCode, 0)
    await t.rejects(lab.fill('pg1', '/var', 0), { message: /not a disk of its own/ })
  })

  t.test('a power cut', async t => {
    await lab.exec('pg2', ['sh', '-c', 'echo kept > /etc/kept; echo kept > /var/lib/postgresql/kept'])
    await lab.powerOff('pg2')
    t.notOk(await reaches('pg1', 'pg2'))
    await t.rejects(lab.exec('pg2', ['true']), { message: /not running/ })
    // From another process, as it were.
    const again = await openLab(name)
    t.same(await again?.powerOn('pg2'), pg2)
    t.equal((await lab.exec('pg2', ['cat', '/etc/kept', '/var/lib/postgresql/kept'])).stdout, 'kept\nkept')
    t.ok(await reaches('pg1', 'pg2'))
    t.same(await lab.reboot('pg2'), pg2)
    t.equal((await lab.exec('pg2', ['cat', '/etc/kept', '/var/lib/postgresql/kept'])).stdout, 'kept\nkept')
  })

  t.test('a second lab beside it', async t => {
    const other = await bringUpLab({ name: second, hosts: ['pg1'], publicKeys })
    t.equal((await other.hosts())[0]?.address, '192.0.2.11', 'with the same addresses')
    t.notOk((await other.exec('pg1', ['ping', '-c1', '-W1', '192.0.2.12'], { reject: false })).exitCode === 0)
    await other.addHost('late')
    t.equal(
      (await other.exec('pg1', ['getent', 'hosts', 'late'])).exitCode,
      0,
      'the first learns the name of the second',
    )
    await other.removeHost('late')
    t.not((await other.exec('pg1', ['getent', 'hosts', 'late'], { reject: false })).exitCode, 0)
    await other.down()
    t.equal(await openLab(second), undefined)
    t.ok(await reaches('pg1', 'pg2'), 'the first goes on')
  })

  t.test('PostgreSQL and repmgr from its own repository', async t => {
    await lab.exec('pg1', ['apt-get', '-qq', 'update'])
    const argv = ['apt-get', 'install', '-y', '--no-install-recommends', 'postgresql-15', 'postgresql-15-repmgr']
    await lab.exec('pg1', argv, { timeoutMs: 120_000 })
    t.match((await lab.exec('pg1', ['repmgr', '--version'])).stdout, /^repmgr 5/)
    t.equal((await lab.exec('pg1', ['psql', '-Atc', 'SELECT 1'], { user: 'postgres' })).stdout, '1')
    t.notOk(await succeeds('pg2', 'sh', '-c', 'command -v repmgr'), 'on this host only')
  })

  t.test('down leaves nothing', async t => {
    t.ok((await left(lab)).length > 0, 'what is looked for is there before')
    await lab.down()
    t.same(await left(lab), [])
    await lab.down()
    t.equal(await openLab(name), undefined)
  })
})

/** Whatever there is of a lab on this machine: mounts, namespaces, processes, files. */
async function left(lab: Lab): Promise<string[]> {
  const found = (await readdir('/run/netns')).filter(it => it === lab.namespace || it.startsWith(`${lab.namespace}.`))
  const mounts = (await readFile('/proc/self/mounts', 'utf8')).split('\n')
  found.push(...mounts.filter(it => it.includes(`/${lab.name}/`) || it.includes(`/${lab.namespace}`)))
  for (const pid of (await readdir('/proc')).filter(it => /^\d+$/.test(it))) {
    const groups = await readFile(`/proc/${pid}/cgroup`, 'utf8').catch(() => '')
    // A process that has ended stays listed until its parent asks.
    const state = /^State:\t(\w)/m.exec(await readFile(`/proc/${pid}/status`, 'utf8').catch(() => ''))?.[1]
    if (groups.includes(`/understudy-lab/${lab.name}/`) && state !== 'Z') found.push(`process ${pid}`)
  }
  const labs = join(process.env.UNDERSTUDY_LAB_DIR ?? '/var/lib/understudy-lab', 'labs')
  found.push(...(await readdir(labs)).filter(it => it === lab.name))
  return found
}
