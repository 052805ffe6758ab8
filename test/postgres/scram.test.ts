import { createHash, createHmac } from 'node:crypto'
import fc from 'fast-check'
import t from 'tap'
import { withServer } from '../../src/postgres/connect.js'
import { scramVerifier } from '../../src/postgres/scram.js'
import { makePassword } from '../../src/store/secrets.js'
import { makeRepmgrRole, startPostgres } from '../fixtures/postgres.js'

const FORM = /^SCRAM-SHA-256\$4096:([A-Za-z0-9+/]{22}==)\$([A-Za-z0-9+/]{43}=):([A-Za-z0-9+/]{43}=)$/

t.test('the example of RFC 7677: the keys answer for what client and server sent there', async t => {
  const salt = Buffer.from('W22ZaJ0SNY7soEsUEjb6gQ==', 'base64')
  const verifier = scramVerifier('pencil', salt)
  // Computed with Python's hashlib.
  t.equal(
    verifier,
    'SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=',
  )
  const [, , stored = '', server = ''] = FORM.exec(verifier) ?? []
  const nonce = 'rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0'
  const messages = `n=user,r=rOprNGfwEbeRWgbNEkqO,r=${nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r=${nonce}`
  const sign = (key: string) => createHmac('sha256', Buffer.from(key, 'base64')).update(messages).digest()
  t.equal(sign(server).toString('base64'), '6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=')
  const proof = Buffer.from('dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=', 'base64')
  const clientKey = sign(stored).map((byte, index) => byte ^ (proof[index] ?? 0))
  t.equal(createHash('sha256').update(clientKey).digest('base64'), stored)
})

t.test('a salt of its own each time, and nothing of the password in it', async t => {
  const verifiers = Array.from({ length: 20 }, () => scramVerifier('correct-horse'))
  t.equal(new Set(verifiers).size, 20)
  for (const verifier of verifiers) {
    t.match(verifier, FORM)
    t.notMatch(verifier, /correct-horse/)
  }
})

t.test('passwords that SASLprep would change are refused', async t => {
  for (const password of ['', 'pässword', 'with space', 'tab\t', 'new\nline', '\u00ad', '\u2168']) {
    t.throws(() => scramVerifier(password), RangeError, JSON.stringify(password))
  }
})

t.test('a real server', async t => {
  const server = await startPostgres(t)
  const login = (user: string, password: string) =>
    withServer(server, { user, password, database: 'postgres' }, { timeoutMs: 5000 }, query =>
      query('SELECT current_user AS me'),
    )

  await t.test('computes the same for the same password and salt', async t => {
    await server.query('CREATE ROLE reference')
    for (const password of ['pencil', makePassword(), 'it\'s:"a\\b$c']) {
      await server.query(`ALTER ROLE reference PASSWORD '${password.replaceAll("'", "''")}'`)
      const [row] = await server.query("SELECT rolpassword FROM pg_authid WHERE rolname = 'reference'")
      const salt = FORM.exec(String(row?.rolpassword))?.[1] ?? ''
      t.equal(scramVerifier(password, Buffer.from(salt, 'base64')), row?.rolpassword)
    }
  })

  await t.test('takes the verifier as it is, and lets in by that password and no other', async t => {
    const password = makePassword()
    const verifier = scramVerifier(password)
    await makeRepmgrRole(server, verifier)
    const [row] = await server.query("SELECT rolpassword FROM pg_authid WHERE rolname = 'repmgr'")
    t.equal(row?.rolpassword, verifier)
    const [rule] = await server.query(
      "SELECT auth_method FROM pg_hba_file_rules WHERE type = 'host' AND address = '127.0.0.1' AND database = '{all}'",
    )
    t.equal(rule?.auth_method, 'scram-sha-256')
    t.strictSame(await login('repmgr', password), [{ me: 'repmgr' }])
    for (const wrong of [`${password}x`, password.toLowerCase(), 'x', verifier]) {
      const outcome = await login('repmgr', wrong).catch(error => error.reason)
      t.equal(outcome, 'authentication', wrong === verifier ? 'nor by the verifier' : wrong)
    }
    t.notMatch(await server.log(), new RegExp(password.replaceAll('-', '\\-')), 'the server never saw the password')
  })

  await t.test('with any password that may be made here', async t => {
    await fc.assert(
      fc.asyncProperty(
        fc.string({
          unit: fc.integer({ min: 0x21, max: 0x7e }).map(code => String.fromCharCode(code)),
          minLength: 1,
          maxLength: 40,
        }),
        async password => {
          await server.query(`ALTER ROLE reference LOGIN PASSWORD '${scramVerifier(password)}'`)
          return (await login('reference', password)).length === 1
        },
      ),
      { numRuns: 40 },
    )
    t.pass()
  })
})
