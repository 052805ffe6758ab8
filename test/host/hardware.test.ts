import { readFileSync, statfsSync, statSync } from 'node:fs'
import { cpus } from 'node:os'
import t from 'tap'
import { parseHardware, readHardware } from '../../src/host/hardware.js'
import { openHostPool } from '../../src/host/host.js'
import { createUser, startSshd } from '../fixtures/sshd.js'

const GB = 1024 ** 3

t.test('this host, as it is', async t => {
  const sshd = await startSshd()
  const pool = openHostPool({ identity: { privateKey: sshd.privateKey } })
  const user = createUser({ sudo: true })
  t.teardown(async () => {
    await pool.close()
    await sshd.stop()
    user.remove()
  })
  const host = pool.host(sshd.address({ user: user.name }))
  const facts = await readHardware(host, ['/', '/no such/directory/yet', '/dev/shm/x'])
  const total = Number(/MemTotal: +(\d+)/.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1]) * 1024
  t.ok(facts.memoryBytes > 0 && facts.memoryBytes <= total, `${facts.memoryBytes} of ${total}`)
  t.ok(facts.cpus >= 1 && facts.cpus <= cpus().length)
  const [root, below, shm] = facts.disks
  const { blocks, bsize } = statfsSync('/')
  t.equal(root?.totalBytes, blocks * bsize)
  t.equal(root?.fileSystem, String(statSync('/').dev))
  t.same(below, root, 'what is not there yet is on the disk of its parent')
  t.not(shm?.fileSystem, root?.fileSystem)
  t.equal(shm?.kind, 'unknown', 'memory is no disk')
  await t.rejects(readHardware(host, ['relative']), TypeError)
})

t.test('what a host says of itself, read', async t => {
  const bare = 'memory=16384000 kB\ncpus=8\n'
  const read = (text: string) => parseHardware(`${bare}${text}`)
  t.same(read(''), { memoryBytes: 16_384_000 * 1024, cpus: 8, disks: [] })

  const limits: [string, string, Partial<ReturnType<typeof parseHardware>>][] = [
    ['no limit, version 2', 'limit=max\nquota=max 100000\n', { cpus: 8, memoryBytes: 16_384_000 * 1024 }],
    [
      'no limit, version 1',
      'limit=9223372036854771712\nquota=-1 100000\n',
      { cpus: 8, memoryBytes: 16_384_000 * 1024 },
    ],
    ['a container of 2 GB and 1.5 CPUs', `limit=${2 * GB}\nquota=150000 100000\n`, { cpus: 1, memoryBytes: 2 * GB }],
    ['less than a CPU is one', 'quota=20000 100000\n', { cpus: 1 }],
    ['the least of several groups', `limit=max\nlimit=${3 * GB}\nlimit=${4 * GB}\n`, { memoryBytes: 3 * GB }],
    ['more CPUs than there are', 'quota=1600000 100000\n', { cpus: 8 }],
  ]
  for (const [name, text, expected] of limits) t.match(read(text), expected, name)

  const disks: [string, string, string][] = [
    ['a solid one', 'path=1 100\ndevice=nvme0n1 0\n', 'ssd'],
    ['a spinning one', 'path=1 100\ndevice=sda 1\n', 'hdd'],
    ['a RAID of both kinds', 'path=1 100\ndevice=sda 0\ndevice=sdb 1\n', 'hdd'],
    ['a virtual one that says that it spins', 'virtual=yes\npath=1 100\ndevice=vda 1\n', 'unknown'],
    ['a virtual one that says that it does not', 'virtual=yes\npath=1 100\ndevice=vda 0\n', 'ssd'],
    ['a file', 'path=1 100\ndevice=loop3 0\n', 'unknown'],
    ['nothing to ask', 'path=1 100\n', 'unknown'],
  ]
  for (const [name, text, kind] of disks) t.same(read(text).disks, [{ kind, totalBytes: 100, fileSystem: '1' }], name)
  t.same(
    read('path=1 100\ndevice=sda 1\npath=2 50\ndevice=nvme0n1 0\n').disks.map(({ kind, fileSystem }) => [
      kind,
      fileSystem,
    ]),
    [
      ['hdd', '1'],
      ['ssd', '2'],
    ],
    'each path has its own',
  )
})
