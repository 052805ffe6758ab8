import t from 'tap'
import { makeAuthority, signRequest } from '../../src/certificates/authority.js'
import { compareDesired } from '../../src/cluster/desired.js'
import { type ClusterSpec, newCluster, specInconsistencies } from '../../src/cluster/model.js'
import { certificateNames, hasTls, type TlsPolicy, tlsProblems } from '../../src/cluster/tls.js'
import { makeRequest } from '../certificates/fixtures/request.js'

const { certificate: ca, key } = await makeAuthority('orders', new Date())
const files: TlsPolicy = { mode: 'files', certificateFile: '/etc/ssl/a.pem', keyFile: '/etc/ssl/a.key', ca }
const spec: ClusterSpec = {
  name: 'orders',
  postgresVersion: 15,
  nodes: [{ name: 'pg1', host: '192.0.2.11', ssh: { user: 'admin', hostKey: `SHA256:${'A'.repeat(43)}` } }],
}

t.test('what a policy may say', async t => {
  for (const good of [
    undefined,
    { mode: 'off' },
    { mode: 'own-ca', names: ['db'], clients: 'allowed' },
    files,
  ] as const)
    t.strictSame(tlsProblems(good as TlsPolicy), [])
  const pointers = (tls: TlsPolicy) => tlsProblems(tls).map(({ pointer }) => pointer)
  t.strictSame(pointers({ mode: 'files' }), ['/tls/certificateFile', '/tls/keyFile', '/tls/ca'])
  t.strictSame(pointers({ ...files, names: ['db'] }), ['/tls/names'])
  t.strictSame(pointers({ mode: 'own-ca', ca }), ['/tls/ca'])
  t.strictSame(pointers({ mode: 'off', clients: 'required' }), ['/tls/clients'])
  t.match(tlsProblems({ ...files, ca: 'words' }), [{ pointer: '/tls/ca', detail: /not PEM/ }])
  t.match(tlsProblems({ ...files, ca: `${ca}${key}` }), [{ detail: /private key/ }])
  const server = await signRequest({ certificate: ca, key }, (await makeRequest()).request, ['pg1'], new Date())
  t.match(tlsProblems({ ...files, ca: server }), [{ detail: /CN=pg1 is no CA’s certificate/ }])
  t.match(specInconsistencies({ ...spec, tls: { mode: 'files' } }), [{}, {}, {}])
})

t.test('what a certificate is for', async t => {
  t.strictSame(certificateNames({ tls: { mode: 'own-ca', names: ['db', '10.0.0.9'] } }, { host: 'h', name: 'pg1' }), [
    'h',
    'pg1',
    'db',
    '10.0.0.9',
  ])
  t.equal(hasTls({}), false)
  t.equal(hasTls({ tls: { mode: 'off' } }), false)
  t.equal(hasTls({ tls: files }), true)
})

t.test('a description does not change the TLS of a cluster that runs, and says what does', async t => {
  const described = newCluster({ ...spec, tls: { mode: 'own-ca' } }, '2026-11-23T07:00:00.000Z')
  const built = { ...described, builtAt: '2026-11-23T07:01:00.000Z' }
  t.strictSame(compareDesired({ ...spec, tls: { mode: 'own-ca' } }, built).refused, [])
  t.match(compareDesired(spec, built).refused, [
    { pointer: '/tls', detail: /^is own-ca there.*To keep that.*PUT \/v1\/clusters\/orders\/tls with {"mode":"off"}/ },
  ])
  t.match(compareDesired({ ...spec, tls: files }, built).refused, [{ detail: /with what is described here/ }])
  t.strictSame(compareDesired({ ...spec, tls: files }, described).refused, [], 'before it is built it does')
  const { tls: _tls, ...plain } = built
  t.strictSame(compareDesired({ ...spec, tls: { mode: 'off' } }, plain).differences, [], 'off is what nobody says')
  t.match(compareDesired({ ...spec, tls: { mode: 'own-ca' } }, plain).refused, [{ detail: /^is off there/ }])
})
