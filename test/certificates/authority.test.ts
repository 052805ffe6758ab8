import { execFile } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { checkServerIdentity, connect, createServer } from 'node:tls'
import { promisify } from 'node:util'
import t from 'tap'
import { type Authority, makeAuthority, publicHalf, signRequest } from '../../src/certificates/authority.js'
import {
  bundle,
  certificatesIn,
  daysLeft,
  isFor,
  normalPem,
  objectionTo,
  renewalReason,
} from '../../src/cluster/certificate.js'
import { makeRequest } from './fixtures/request.js'

const run = promisify(execFile)
const NOW = new Date()
const later = (days: number) => new Date(NOW.getTime() + days * 86_400_000)

const directory = await mkdtemp(join(tmpdir(), 'understudy-certificates-'))
t.teardown(() => rm(directory, { recursive: true, force: true }))
const inFile = async (name: string, content: string) => {
  await writeFile(join(directory, name), content, { mode: 0o600 })
  return join(directory, name)
}

const authority = await makeAuthority('orders', NOW)
const { key, request } = await makeRequest()
const NAMES = ['127.0.0.1', 'pg1', 'db.example.net'] as const
const certificate = await signRequest(authority, request, NAMES, NOW)

const verify = async (ca: Authority, pem: string, ...args: string[]) => {
  const caFile = await inFile('ca.pem', ca.certificate)
  const file = await inFile('certificate.pem', pem)
  return run('openssl', ['verify', '-x509_strict', '-purpose', 'sslserver', '-CAfile', caFile, ...args, file]).then(
    ({ stdout }) => stdout.trim(),
    (error: { stderr: string }) => error.stderr,
  )
}

t.test('openssl finds nothing to complain of, and the names in it', async t => {
  t.match(await verify(authority, certificate), /certificate\.pem: OK$/)
  t.match(await verify(authority, certificate, '-verify_ip', '127.0.0.1'), /OK$/)
  t.match(await verify(authority, certificate, '-verify_hostname', 'pg1'), /OK$/)
  t.match(await verify(authority, certificate, '-verify_hostname', 'db.example.net'), /OK$/)
  t.match(await verify(authority, certificate, '-verify_ip', '127.0.0.2'), /IP address mismatch/)
  t.match(await verify(authority, certificate, '-verify_hostname', 'pg2'), /hostname mismatch/i)
  const other = await makeAuthority('orders', NOW)
  t.match(await verify(other, certificate), /unable to get local issuer|signature failure/, 'not by its name alone')
  t.match(
    await verify(authority, certificate, '-attime', String(Math.floor(later(731).getTime() / 1000))),
    /certificate has expired/,
  )
  t.match(await verify(authority, authority.certificate, '-purpose', 'any'), /OK$/)
})

t.test('what a request asks for counts for nothing but its key', async t => {
  const made = new X509Certificate(certificate)
  t.equal(made.subject, 'CN=127.0.0.1')
  t.equal(made.ca, false)
  t.equal(made.publicKey.export({ type: 'spki', format: 'pem' }), publicHalf(key))
  t.strictSame(made.keyUsage, ['1.3.6.1.5.5.7.3.1'], 'a server’s')
  t.equal(daysLeft(made, NOW), 729, 'and some hours, for it ends at a whole second')
  const forged = request.replace(/^(-+BEGIN[^\n]*\n.{40})(.)/, (_all, head, char) => head + (char === 'A' ? 'B' : 'A'))
  await t.rejects(signRequest(authority, forged, NAMES, NOW))
  const long = `${'a'.repeat(60)}.${'b'.repeat(60)}`
  t.ok(isFor(new X509Certificate(await signRequest(authority, request, [long], NOW)), long), 'longer than a CN may be')
})

t.test('a client of Node that verifies it comes in, and one with another authority or name does not', async t => {
  const server = createServer({ key, cert: certificate }, socket => socket.end('hello'))
  server.on('tlsClientError', () => undefined)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  const { port } = server.address() as AddressInfo
  const meet = (ca: string, host = '127.0.0.1') =>
    new Promise<string>(resolve => {
      // Over the same address always: it is only the name to look for that differs.
      const socket = connect({ port, ca, checkServerIdentity: (_, cert) => checkServerIdentity(host, cert) }, () => {
        resolve('authorized')
        socket.end()
      })
      socket.on('error', (error: NodeJS.ErrnoException) => resolve(String(error.code)))
    })
  t.equal(await meet(authority.certificate), 'authorized')
  t.equal(await meet(authority.certificate, 'pg1'), 'authorized')
  t.equal(await meet(authority.certificate, 'pg2'), 'ERR_TLS_CERT_ALTNAME_INVALID')
  t.equal(await meet((await makeAuthority('orders', NOW)).certificate), 'UNABLE_TO_VERIFY_LEAF_SIGNATURE')
})

t.test('when a certificate of ours is made anew', async t => {
  const expected = { publicKey: publicHalf(key), names: [...NAMES] as string[], now: NOW }
  const reason = (change: Partial<typeof expected>, pem = certificate, ca = authority.certificate) =>
    renewalReason(pem, ca, { ...expected, ...change })
  t.equal(reason({}), undefined)
  t.equal(reason({ now: later(699) }), undefined)
  t.match(reason({ now: later(701) }), /the certificate ends at /)
  t.match(reason({ now: later(731) }), /has expired/)
  t.match(reason({ now: later(-1) }), /not valid before/)
  t.match(reason({ names: ['127.0.0.1', 'pg9', '192.0.2.1'] }), /not for pg9, 192\.0\.2\.1 but for .*pg1/)
  t.match(reason({ publicKey: publicHalf((await makeRequest()).key) }), /another key/)
  t.match(reason({}, certificate, (await makeAuthority('orders', NOW)).certificate), /another authority/)
  t.match(reason({}, 'nothing of the kind'), /no certificate in PEM/)
  t.strictSame(objectionTo('', expected), { kind: 'unreadable', detail: 'it holds no certificate in PEM' })
  const broken = certificate.replace(/\n[A-Za-z0-9+/]{20}/, '\n')
  t.equal(objectionTo(broken, expected)?.kind, 'unreadable')
})

t.test('texts of several certificates', async t => {
  const other = await makeAuthority('other', NOW)
  const both = bundle([authority.certificate, undefined, `words\r\n${other.certificate}`, authority.certificate])
  t.equal(certificatesIn(both)?.length, 2)
  t.equal(normalPem(both.replaceAll('\n', '\r\n')), both)
  t.equal(bundle([]), '')
})
