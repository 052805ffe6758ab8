import t from 'tap'
import { keys } from '../../src/store/keys.js'
import { connectRedis } from '../../src/store/redis.js'
import { looksLikeToken, makeToken, openTokenStore } from '../../src/store/tokens.js'
import { startRedis } from '../fixtures/redis.js'

t.test('tokens', async t => {
  const { url } = await startRedis(t)
  const redis = connectRedis(url, { purpose: 'operations' })
  t.teardown(() => redis.disconnect())
  const tokens = openTokenStore(redis, () => new Date('2026-03-01T12:00:00.000Z'))

  t.equal(await tokens.isEmpty(), true)
  const token = await tokens.create('ci')
  t.equal(await tokens.isEmpty(), false)
  const [id = ''] = /[0-9a-z]{26}/.exec(token) ?? []

  await t.test('the one that was made is known by its name', async t => {
    t.ok(looksLikeToken(token))
    t.strictSame(await tokens.verify(token), { tokenId: id, name: 'ci', role: 'admin' })
    t.not(await tokens.create('ci'), token)
  })

  await t.test('no other one is', async t => {
    const [, , secret = ''] = token.split('_')
    const changed = `${secret.startsWith('A') ? 'B' : 'A'}${secret.slice(1)}`
    const another = makeToken()
    for (const wrong of [
      ...['', 'und_', 'Bearer', token.slice(0, -1), `${token}x`, ` ${token}`, `${token}\n`, token.toUpperCase()],
      token.replace(secret, changed),
      another,
      another.replace(/[0-9a-z]{26}/, id),
      `und_${id}_${'A'.repeat(43)}`,
      '__proto__',
    ]) {
      t.equal(await tokens.verify(wrong), undefined, wrong)
    }
  })

  await t.test('only its hash is kept', async t => {
    const kept = await redis.hgetall(keys.tokens)
    t.match(JSON.parse(kept[id] ?? ''), {
      name: 'ci',
      role: 'admin',
      sha256: /^[0-9a-f]{64}$/,
      createdAt: '2026-03-01T12:00:00.000Z',
    })
    t.notMatch(JSON.stringify(kept), token.slice(-43))
  })

  await t.test('one that was made before is taken in, also twice; anything else is not', async t => {
    await redis.del(keys.tokens)
    t.equal(await tokens.verify(token), undefined)
    await tokens.adopt('admin', token)
    await tokens.adopt('admin', token)
    t.match(await tokens.verify(token), { tokenId: id, name: 'admin' })
    t.equal(await redis.hlen(keys.tokens), 1)
    await t.rejects(tokens.adopt('admin', 'letmein'), TypeError)
  })
})
