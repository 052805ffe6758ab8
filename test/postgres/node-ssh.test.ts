import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { archiveConf, archiveSettings } from '../../src/postgres/archive.js'
import { debianLayout } from '../../src/postgres/layout.js'
import {
  authorizedLine,
  barePublicKey,
  configBlock,
  knownHostLine,
  lineOf,
  nodeSshFiles,
} from '../../src/postgres/node-ssh.js'
import { expandRestoreCommand } from '../../src/postgres/restore-command.js'

const KEY = `ssh-ed25519 ${'A'.repeat(68)}`
const files = nodeSshFiles(debianLayout(15))

t.test('a line of authorized_keys: bound to addresses, and to one program where it is for the archive', async t => {
  const peer = {
    name: 'pg2',
    addresses: ['192.0.2.12', 'pg2.example', '192.0.2.12', '2001:db8::2'],
    publicKey: `${KEY} whoever`,
  }
  t.equal(
    authorizedLine(peer, 'archive'),
    `from="192.0.2.12,2001:db8::2",restrict,command="/usr/local/bin/understudy-wal-archive serve" ${KEY} understudy:pg2`,
  )
  t.equal(authorizedLine(peer, 'full'), `from="192.0.2.12,2001:db8::2",restrict,pty ${KEY} understudy:pg2`)
  t.throws(() => authorizedLine({ ...peer, addresses: ['pg2.example'] }, 'full'), TypeError, 'never without an address')
})

t.test('what a host says is its key is not believed to be one', async t => {
  for (const text of [
    '',
    'ssh-rsa AAAA',
    `command="id" ${KEY}`,
    'ssh-ed25519 AAAA\nssh-ed25519 BBBB',
    'ssh-ed25519 AA"AA',
    'ssh-ed25519 ',
    `ssh-ed25519 ${'A'.repeat(10)};id`,
  ])
    t.ok([undefined, 'ssh-ed25519 AAAA'].includes(barePublicKey(text)), JSON.stringify(text))
  t.notMatch(barePublicKey('ssh-ed25519 AAAA\nssh-ed25519 BBBB') ?? '', /\n/)
})

t.test('known hosts, as ssh itself looks them up', async t => {
  const directory = mkdtempSync(join(tmpdir(), 'understudy-known-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const key = join(directory, 'key')
  execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', key])
  const hostKey = execFileSync('ssh-keygen', ['-y', '-f', key], { encoding: 'utf8' })
    .trim()
    .split(' ')
    .slice(0, 2)
    .join(' ')
  const lines = [
    knownHostLine({ name: 'pg1', host: '192.0.2.11', port: 22, hostKey }),
    knownHostLine({ name: 'pg2', host: '2001:db8::2', port: 2222, hostKey }),
  ]
  writeFileSync(join(directory, 'known'), `${lines.join('\n')}\n`)
  for (const name of ['192.0.2.11', '[2001:db8::2]:2222'])
    t.match(
      execFileSync('ssh-keygen', ['-F', name, '-f', join(directory, 'known')], { encoding: 'utf8' }),
      /found: line/,
      name,
    )
  t.equal(lineOf('pg2', lines.join('\n')), lines[1])
  t.equal(lineOf('g2', lines.join('\n')), undefined)
})

t.test('ssh reads our block of its configuration, and what stands behind it counts for all hosts', async t => {
  const directory = mkdtempSync(join(tmpdir(), 'understudy-config-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const config = join(directory, 'config')
  writeFileSync(config, `${configBlock([{ host: '192.0.2.12', port: 2222 }], files)}\nCompression yes\n`)
  const read = (host: string) => execFileSync('ssh', ['-G', '-F', config, host], { encoding: 'utf8' })
  for (const line of [
    'user postgres',
    'port 2222',
    `identityfile ${files.privateKey}`,
    'stricthostkeychecking true',
    'compression yes',
  ])
    t.ok(read('192.0.2.12').split('\n').includes(line), line)
  t.ok(read('192.0.2.99').includes('\ncompression yes\n'))
  t.notOk(read('192.0.2.99').includes(files.privateKey))
})

t.test('a shell reads the script’s configuration back as it was meant', async t => {
  const directory = mkdtempSync(join(tmpdir(), 'understudy-conf-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const conf = archiveConf(
    'orders',
    'pg1',
    [
      { name: 'pg2', host: '192.0.2.12', sshPort: 22 },
      { name: 'pg3', host: '2001:db8::3', sshPort: 2222 },
    ],
    {
      mode: 'ship',
      directory: '/srv/wal',
      minimumCopies: 1,
      maxWaitingBytes: 2 ** 40,
      retentionHours: 1,
      retentionBytes: 2 ** 41,
      timeoutSeconds: 0,
    },
    debianLayout(15),
    files,
  )
  writeFileSync(join(directory, 'conf'), conf)
  const read = execFileSync(
    'sh',
    ['-c', `. ${directory}/conf; echo "$directory|$max_waiting_bytes|$retention_bytes|$identity"; echo "$targets"`],
    { encoding: 'utf8' },
  )
  t.equal(
    read,
    `/srv/wal|${2 ** 40}|${2 ** 41}|/var/lib/postgresql/.ssh/understudy_ed25519\npg2 192.0.2.12 22\npg3 2001:db8::3 2222\n`,
  )
})

t.test('what PostgreSQL is told: archive_mode is on in every mode', async t => {
  const value = (mode: Parameters<typeof archiveSettings>[0], name: string) =>
    archiveSettings(mode).find(setting => setting.name === name)?.value
  const command = { mode: 'command', command: 'push %p', restoreCommand: 'get %f %p', timeoutSeconds: 60 } as const
  t.equal(value({ mode: 'none' }, 'archive_mode'), true)
  t.equal(value({ mode: 'none' }, 'archive_command'), '/bin/true')
  t.equal(value({ mode: 'none' }, 'restore_command'), undefined)
  t.equal(value(command, 'archive_command'), 'push %p')
  t.equal(value(command, 'archive_timeout'), 60)
})

t.test('a restore command, as PostgreSQL expands it', async t => {
  t.equal(
    expandRestoreCommand('get "%f" "%p" 100%% %r %x', 'NAME', '/tmp/x'),
    'get "NAME" "/tmp/x" 100% 000000010000000000000000 %x',
  )
  t.equal(expandRestoreCommand('get %%f %p', 'NAME', '/tmp/x'), 'get %f /tmp/x')
})
