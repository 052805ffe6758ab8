import fc from 'fast-check'
import t from 'tap'
import { generateIdentity } from '../src/host/identity.js'
import { scramVerifier } from '../src/postgres/scram.js'
import { redact, redactJson } from '../src/redact.js'
import { makeToken } from '../src/store/tokens.js'

const SECRET = 'hunter2-Xyz_9'
const token = makeToken()
const privateKey = generateIdentity('test').privateKey
const verifier = scramVerifier(SECRET)

/** Text, and what must not be left of it. */
const secrets: [string, string, string][] = [
  ['connection string', `host=db1 user=repmgr password=${SECRET} dbname=x`, SECRET],
  ['connection string, quoted', `password='it\\'s ${SECRET} ' host=db1`, SECRET],
  ['as a setting', `PGPASSWORD=${SECRET} psql`, SECRET],
  ['under a longer name', `repmgr_password=${SECRET}`, SECRET],
  ['under a longer name still', `MY_APP_SECRET: "${SECRET}"`, SECRET],
  ['spaces around it', `password = "${SECRET}"`, SECRET],
  ['with a backslash in it', `password=ab\\${SECRET}`, SECRET],
  ['YAML', `passwd: ${SECRET}`, SECRET],
  ['JSON', `{"user":"repmgr","password":"${SECRET}"}`, SECRET],
  ['JSON, with spaces', `{ "password" : "${SECRET}" }`, SECRET],
  ['JSON in JSON', JSON.stringify({ line: JSON.stringify({ password: SECRET }) }), SECRET],
  ['JSON in JSON in JSON', JSON.stringify(JSON.stringify(JSON.stringify({ password: SECRET }))), SECRET],
  ['a connection string in JSON', JSON.stringify({ line: `password="${SECRET}"` }), SECRET],
  ['cut in its quotes', `password="${SECRET}`, SECRET],
  ['cut in its escaped quotes', `{\\"password\\": \\"${SECRET}`, SECRET],
  ['SQL', `ALTER ROLE repmgr PASSWORD '${SECRET}';`, SECRET],
  ['URL', `postgresql://repmgr:${SECRET}@db1:5432/repmgr`, SECRET],
  ['URL of another kind', `rediss://:${SECRET}@redis:6379/0`, SECRET],
  ['verifier', `ALTER ROLE repmgr PASSWORD '${verifier}'`, verifier.slice(-20)],
  ['verifier alone', `rolpassword | ${verifier} |`, verifier.slice(-20)],
  ['md5', 'rolpassword | md5d41d8cd98f00b204e9800998ecf8427e |', 'd41d8cd98f00b204'],
  ['authorization', `Authorization: Bearer ${SECRET}.abc==`, SECRET],
  ['token', `curl -H 'X: ${token}'`, token.slice(-20)],
  ['private key', `before\n${privateKey}\nafter`, privateKey.slice(100, 120)],
  [
    'old private key',
    '-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n-----END RSA PRIVATE KEY-----',
    'MIIEpAIBAAKCAQEA',
  ],
]

t.test('what is secret is taken out', async t => {
  for (const [what, text, secret] of secrets) {
    t.ok(text.includes(secret), 'the example is one')
    const clean = redact(text)
    t.notOk(clean.includes(secret), `${what}: ${clean}`)
    t.match(clean, /\[(?:private key|(?:md5 )?redacted)\]/)
    t.equal(redact(clean), clean, 'twice is once')
  }
})

t.test('what stands around it stays', async t => {
  const around: [string, string][] = [
    [`host=db1 password=${SECRET} dbname=x`, 'host=db1 password=[redacted] dbname=x'],
    [`password='${SECRET}', host=db1`, 'password=[redacted], host=db1'],
    [`postgres://repmgr:${SECRET}@db1/x`, 'postgres://repmgr:[redacted]@db1/x'],
    [`before\n${privateKey.trim()}\nafter`, 'before\n[private key]\nafter'],
    [`${privateKey.trim()} and ${privateKey.trim()}`, '[private key] and [private key]'],
    [`Authorization: Bearer ${SECRET}`, 'Authorization: Bearer [redacted]'],
    ['{"password":"a","user":"b"}', '{"password":[redacted],"user":"b"}'],
  ]
  for (const [text, clean] of around) t.equal(redact(text), clean)
})

t.test('what is no secret stays', async t => {
  for (const text of [
    ...['', 'password', 'the password file of postgres', 'password authentication failed for user "repmgr"'],
    ...['passfile=/var/lib/postgresql/.pgpass', 'SHA256:kL4Sd0mNsCXzAVEoGUfOTlZeIkoQbBFNrHqJCrW9yZQ'],
    ...['http://127.0.0.1:7433/v1/clusters?mail=a@b', 'user@host:22', 'scp a@b:c@d', 'md5sum of x', '16/B374D848'],
    'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExample understudy',
  ]) {
    t.equal(redact(text), text)
  }
})

t.test('known values, wherever they stand', async t => {
  t.equal(redact('xx correct horse xx', ['correct horse']), 'xx [redacted] xx')
  t.equal(redact('a.b a.b axb', ['a.b', '']), 'a.b a.b axb', 'one that is too short would be found everywhere')
  t.equal(redact('a.bc a.bc axbc', ['a.bc']), '[redacted] [redacted] axbc', 'as it is, and no pattern')
  t.equal(redact('$& $1 cost', ['$& $1']), '[redacted] cost')
  t.equal(
    redactJson('{"a":"x\\nyz1"}', ['x\nyz1']),
    '{"a":"[redacted]"}',
    'also where JSON has written it in another way',
  )
})

const text = fc.oneof(
  { weight: 3, arbitrary: fc.constantFrom(...secrets.map(([, text]) => text)) },
  { weight: 2, arbitrary: fc.string({ unit: 'grapheme' }) },
  {
    weight: 3,
    arbitrary: fc
      .array(
        fc.constantFrom(
          ...['password=', 'password="', "password='", '"password":', '\\"', '"', "'", '\\', '\n', ' ', ':', '@', ','],
          ...[
            'postgres://u:',
            'SCRAM-SHA-256$',
            'Bearer ',
            'und_x_',
            '-----BEGIN PRIVATE KEY-----',
            '\u2028',
            '{',
            ']',
          ],
          '-----END PRIVATE KEY-----',
        ),
        { maxLength: 8 },
      )
      .map(parts => parts.join('')),
  },
)
const value = fc.letrec(tie => ({
  any: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    text,
    fc.integer(),
    fc.boolean(),
    fc.constant(null),
    fc.array(tie('any'), { maxLength: 4 }),
    fc.dictionary(fc.oneof(text, fc.constantFrom('msg', 'password', 'token')), tie('any'), { maxKeys: 4 }),
  ),
})).any

t.test('JSON stays JSON, of the same shape', async () => {
  const shape = (value: unknown): unknown =>
    Array.isArray(value)
      ? value.map(shape)
      : value !== null && typeof value === 'object'
        ? Object.values(value).map(shape)
        : typeof value === 'string'
          ? 'text'
          : value
  fc.assert(
    fc.property(value, value => {
      const line = `${JSON.stringify(value)}\n`
      const clean = JSON.parse(redactJson(line)) as unknown
      // Keys are redacted as well, and two of them may become one.
      const keysDiffer = /redacted\]|private key\]/.test(JSON.stringify(clean))
      return keysDiffer || JSON.stringify(shape(clean)) === JSON.stringify(shape(value))
    }),
    { numRuns: 5000 },
  )
})

t.test('every string in it is as clean as it would be alone', async () => {
  const strings = (value: unknown): string[] =>
    typeof value === 'string'
      ? [value]
      : value !== null && typeof value === 'object'
        ? Object.values(value).flatMap(strings)
        : []
  fc.assert(
    fc.property(fc.array(text, { maxLength: 5 }), values => {
      const clean = strings(JSON.parse(redactJson(JSON.stringify({ msg: values, nested: { values } }))))
      return JSON.stringify(clean) === JSON.stringify([...values, ...values].map(value => redact(value)))
    }),
    { numRuns: 3000 },
  )
})

t.test('JSON: names say what is secret, however deep', async t => {
  const line = JSON.stringify({
    ...{ level: 30, password: 'a', note: 'b', headers: { authorization: 'c', host: 'd' }, adminTokenFile: '/e' },
    ...{ deep: [{ deeper: { deepest: { repmgrPassword: 'f' } } }], token: 7, after: 'g', privateKey: ['h', 'i'] },
  })
  t.strictSame(JSON.parse(redactJson(line)), {
    ...{ level: 30, password: '[redacted]', note: 'b', headers: { authorization: '[redacted]', host: 'd' } },
    ...{
      adminTokenFile: '/e',
      deep: [{ deeper: { deepest: { repmgrPassword: '[redacted]' } } }],
      token: 7,
      after: 'g',
    },
    privateKey: ['[redacted]', 'i'],
  })
  t.equal(redactJson('{ "a" : 1.50 ,\t"b":"\\u0041" }'), '{ "a" : 1.50 ,\t"b":"\\u0041" }', 'nothing else is touched')
})

t.test('it does not take long, whatever a host prints', async t => {
  const long = 64 * 1024
  for (const [what, line] of Object.entries({
    letters: 'a'.repeat(long),
    words: 'password '.repeat(long / 9),
    settings: 'password='.repeat(long / 9),
    quotes: `password="${'\\"'.repeat(long / 2)}`,
    backslashes: `password=${'\\'.repeat(long)}`,
    'escaped names': `password${'\\'.repeat(long)}`,
    dots: 'a.'.repeat(long / 2),
    schemes: 'a+a:'.repeat(long / 4),
    urls: 'a://b:'.repeat(long / 6),
    bearer: `Bearer ${' '.repeat(long)}`,
    hex: 'md5'.repeat(long / 3),
    spaces: `password${' '.repeat(long)}x`,
  })) {
    const begun = performance.now()
    redact(line)
    const ms = performance.now() - begun
    t.ok(ms < 1000, `${what}: ${ms.toFixed(0)} ms`)
  }
})
