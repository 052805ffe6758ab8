import { execFileSync } from 'node:child_process'
import { chmod, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { generateIdentity } from '../src/host/identity.js'
import { ensureAdminToken, openStateDirectory, readIdentity, readMasterKey } from '../src/state-directory.js'
import { keys } from '../src/store/keys.js'
import { connectRedis } from '../src/store/redis.js'
import { openTokenStore } from '../src/store/tokens.js'
import { startRedis } from './fixtures/redis.js'

async function stateDirectory(t: Test): Promise<string> {
  const parent = await mkdtemp(join(tmpdir(), 'understudy-state-'))
  t.teardown(() => rm(parent, { recursive: true, force: true }))
  const directory = join(parent, 'deep', 'state')
  await openStateDirectory(directory)
  return directory
}
const modeOf = async (path: string) => (await stat(path)).mode & 0o777
const own = { keyFile: undefined, agent: undefined }
const many = <T>(make: () => Promise<T>) => Promise.all(Array.from({ length: 20 }, make))

t.test('the directory is for nobody else, also where it was there before', async t => {
  const directory = await stateDirectory(t)
  t.equal(await modeOf(directory), 0o700)
  await chmod(directory, 0o755)
  await writeFile(join(directory, 'kept'), '')
  await openStateDirectory(directory)
  t.equal(await modeOf(directory), 0o700)
  t.strictSame(await readdir(directory), ['kept'])
  await t.rejects(openStateDirectory(join(directory, 'kept')), {
    name: 'StateFileUnusable',
    message: /kept: .*Set UNDERSTUDY_STATE_DIR/,
  })
  await t.rejects(openStateDirectory(join(directory, 'kept', 'below')), { name: 'StateFileUnusable' })
})

t.test('the master key is made once', async t => {
  const directory = await stateDirectory(t)
  const key = await readMasterKey(directory, undefined)
  t.equal(key.length, 32)
  t.strictSame(await readMasterKey(directory, undefined), key)
  t.equal(await modeOf(join(directory, 'master.key')), 0o600)
  t.notSame(await readMasterKey(await stateDirectory(t), undefined), key)
})

t.test('of many who start at once all have the same key, and nothing is left over', async t => {
  for (let round = 0; round < 10; round += 1) {
    const directory = await stateDirectory(t)
    const found = await many(() => readMasterKey(directory, undefined))
    t.equal(new Set(found.map(key => key.toString('hex'))).size, 1)
    t.strictSame(await readdir(directory), ['master.key'])
  }
  const directory = await stateDirectory(t)
  const identities = await many(() => readIdentity(directory, own))
  t.equal(new Set(identities.map(({ publicKey }) => publicKey)).size, 1)
})

t.test('a key file of one’s own', async t => {
  const directory = await stateDirectory(t)
  const path = join(directory, 'mine')
  await writeFile(path, `${'aB'.repeat(32)}\n\n`)
  t.equal((await readMasterKey(directory, path)).toString('hex'), 'ab'.repeat(32))
  t.strictSame(await readdir(directory), ['mine'], 'none is made beside it')
  for (const bad of ['', 'x', 'ab'.repeat(31), 'ab'.repeat(33), 'zz'.repeat(32), ` ${'ab'.repeat(32)}`]) {
    await writeFile(path, bad)
    await t.rejects(readMasterKey(directory, path), {
      name: 'StateFileUnusable',
      message: /mine: .*openssl rand -hex 32/,
    })
  }
  await rm(path)
  await t.rejects(readMasterKey(directory, path), {
    message: /mine: cannot be read \(UNDERSTUDY_MASTER_KEY_FILE\): ENOENT/,
  })
  t.strictSame(await readdir(directory), [], 'a file that was named is never made')
  await writeFile(join(directory, 'master.key'), '')
  await t.rejects(readMasterKey(directory, undefined), { name: 'StateFileUnusable' }, 'nor is a broken one replaced')
  t.equal(await readFile(join(directory, 'master.key'), 'utf8'), '')
})

t.test('the key to log in with', async t => {
  const directory = await stateDirectory(t)
  const first = await readIdentity(directory, own)
  t.match(first.publicKey, /^ssh-ed25519 [A-Za-z0-9+/=]+/)
  t.strictSame(await readIdentity(directory, own), first, 'is made once')
  const path = join(directory, 'ssh-key')
  t.equal(await modeOf(path), 0o600)
  const derived = execFileSync('ssh-keygen', ['-y', '-f', path], { encoding: 'utf8' })
  t.equal(derived.split(' ')[1]?.trim(), first.publicKey?.split(' ')[1], 'and OpenSSH reads the same in it')

  await t.test('one’s own, or an agent', async t => {
    const mine = generateIdentity('mine')
    const file = join(directory, 'id')
    await writeFile(file, mine.privateKey)
    t.match(await readIdentity(directory, { keyFile: file, agent: undefined }), {
      identity: { privateKey: mine.privateKey },
      publicKey: mine.publicKey.split(' ').slice(0, 2).join(' '),
    })
    t.strictSame(await readIdentity('/nowhere', { keyFile: undefined, agent: '/run/agent' }), {
      identity: { agent: '/run/agent' },
      publicKey: undefined,
    })
  })

  await t.test('one that cannot be used', async t => {
    const file = join(directory, 'bad')
    const locked = join(directory, 'locked')
    execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', 'a passphrase', '-f', locked])
    for (const [path, content] of [
      [file, ''],
      [file, 'no key'],
      [file, first.publicKey ?? ''],
      [locked, undefined],
    ] as const) {
      if (content !== undefined) await writeFile(path, content)
      await t.rejects(readIdentity(directory, { keyFile: path, agent: undefined }), {
        name: 'StateFileUnusable',
        message: /no SSH private key without a passphrase.*UNDERSTUDY_SSH_AGENT/,
      })
    }
    await t.rejects(readIdentity(directory, { keyFile: join(directory, 'missing'), agent: undefined }), {
      message: /UNDERSTUDY_SSH_KEY_FILE/,
    })
  })
})

t.test('the admin token', async t => {
  const redis = connectRedis((await startRedis(t)).url, { purpose: 'operations' })
  t.teardown(() => redis.disconnect())
  const tokens = openTokenStore(redis)

  await t.test('is shown once, and kept', async t => {
    await redis.del(keys.tokens)
    const directory = await stateDirectory(t)
    const { file, created } = await ensureAdminToken(directory, tokens)
    t.match(await tokens.verify(created ?? ''), { name: 'admin', role: 'admin' })
    t.equal(file, join(directory, 'admin-token'))
    t.equal((await readFile(file, 'utf8')).trim(), created)
    t.equal(await modeOf(file), 0o600)
    t.strictSame(await ensureAdminToken(directory, tokens), { file, created: undefined })
    t.equal(await redis.hlen(keys.tokens), 1)

    await redis.del(keys.tokens)
    t.strictSame(await ensureAdminToken(directory, tokens), { file, created: undefined }, 'an emptied store')
    t.match(await tokens.verify(created ?? ''), { name: 'admin' }, 'knows it again')
    t.equal(await redis.hlen(keys.tokens), 1)
  })

  await t.test('is not made where there are tokens', async t => {
    await redis.del(keys.tokens)
    await tokens.create('somebody')
    const directory = await stateDirectory(t)
    t.match(await ensureAdminToken(directory, tokens), { created: undefined })
    t.strictSame(await readdir(directory), [])
  })

  await t.test('a file that holds none is replaced', async t => {
    await redis.del(keys.tokens)
    const directory = await stateDirectory(t)
    await writeFile(join(directory, 'admin-token'), 'nonsense\n')
    const { file, created } = await ensureAdminToken(directory, tokens)
    t.ok(created)
    t.equal((await readFile(file, 'utf8')).trim(), created)
    t.equal(await modeOf(file), 0o600)
  })

  await t.test(
    'the store cannot be had when it is made: it is in the file, and the next start takes it in',
    async t => {
      await redis.del(keys.tokens)
      const directory = await stateDirectory(t)
      const away = {
        ...tokens,
        adopt: () => Promise.reject(new Error('away')),
        create: () => Promise.reject(new Error('away')),
      }
      await t.rejects(ensureAdminToken(directory, away), { message: 'away' })
      const { file } = await ensureAdminToken(directory, tokens)
      t.match(await tokens.verify((await readFile(file, 'utf8')).trim()), { name: 'admin' })
    },
  )

  await t.test('of many who start at once one shows it, and it is the one that counts', async t => {
    for (let round = 0; round < 5; round += 1) {
      await redis.del(keys.tokens)
      const directory = await stateDirectory(t)
      const shown = (await many(() => ensureAdminToken(directory, tokens))).flatMap(({ created }) => created ?? [])
      t.equal(shown.length, 1)
      t.equal((await readFile(join(directory, 'admin-token'), 'utf8')).trim(), shown[0])
      t.ok(await tokens.verify(shown[0] ?? ''))
      t.equal(await redis.hlen(keys.tokens), 1)
    }
  })
})
