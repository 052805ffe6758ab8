import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import ssh2 from 'ssh2'
import t from 'tap'
import { generateIdentity, publicKeyOf } from '../../src/host/identity.js'

t.test('ssh-keygen reads the pair, and makes the same public key of it', async t => {
  const directory = mkdtempSync(join(tmpdir(), 'understudy-identity-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const identity = generateIdentity('understudy for cluster main')
  const path = join(directory, 'key')
  writeFileSync(path, identity.privateKey, { mode: 0o600 })
  const derived = execFileSync('ssh-keygen', ['-y', '-f', path], { encoding: 'utf8' }).trim()
  t.match(identity.publicKey, /^ssh-ed25519 [A-Za-z0-9+/=]+ understudy for cluster main$/)
  t.equal(derived.split(' ')[1], identity.publicKey.split(' ')[1])
  t.equal(publicKeyOf(identity.privateKey).split(' ').slice(0, 2).join(' '), derived.split(' ').slice(0, 2).join(' '))
})

t.test('a thousand pairs, and each signs: ssh2 alone makes a bad one in about 150', async t => {
  let bad = 0
  for (let count = 0; count < 1000; count += 1) {
    const { privateKey, publicKey } = generateIdentity('x')
    const key = ssh2.utils.parseKey(privateKey)
    const other = ssh2.utils.parseKey(publicKey)
    if (key instanceof Error || other instanceof Error) bad += 1
    else if (other.verify('text', key.sign('text')) !== true) bad += 1
  }
  t.equal(bad, 0)
})

t.test('what is no private key, and a comment that would add a line to authorized_keys', async t => {
  t.throws(() => publicKeyOf('nonsense'), TypeError)
  t.throws(() => publicKeyOf(generateIdentity('x').publicKey), TypeError)
  t.throws(() => generateIdentity('x\nssh-rsa AAAA evil'), TypeError)
})
