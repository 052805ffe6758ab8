import { randomBytes } from 'node:crypto'
import fc from 'fast-check'
import t from 'tap'
import { keys } from '../../src/store/keys.js'
import { connectRedis } from '../../src/store/redis.js'
import { makePassword, openSecretStore, repmgrPassword } from '../../src/store/secrets.js'
import { startRedis } from '../fixtures/redis.js'

t.test('secrets', async t => {
  const { url } = await startRedis(t)
  const redis = connectRedis(url, { purpose: 'operations' })
  t.teardown(() => redis.disconnect())
  const masterKey = randomBytes(32)
  const secrets = openSecretStore(redis, masterKey)
  const never = () => {
    throw new Error('was made again')
  }

  await t.test('come back as they were', async t => {
    t.equal(await secrets.get('nothing'), undefined)
    await fc.assert(
      fc.asyncProperty(fc.string({ minLength: 1 }), fc.string({ unit: 'grapheme' }), async (name, value) => {
        await secrets.delete(name)
        return (await secrets.getOrCreate(name, () => value)) === value && (await secrets.get(name)) === value
      }),
      { numRuns: 300 },
    )
    t.equal(await secrets.getOrCreate('kept', () => 'first'), 'first')
    t.equal(await secrets.getOrCreate('kept', never), 'first')
    t.equal(await openSecretStore(redis, masterKey).get('kept'), 'first', 'for the next service with this key')
    await secrets.delete('kept')
    t.equal(await secrets.get('kept'), undefined)
  })

  await t.test('many who make the same one at once end with one value', async t => {
    const others = Array.from({ length: 5 }, () => {
      const connection = connectRedis(url, { purpose: 'operations' })
      t.teardown(() => connection.disconnect())
      return openSecretStore(connection, masterKey)
    })
    const values = await Promise.all(
      Array.from({ length: 50 }, (_, index) =>
        (others[index % 5] ?? secrets).getOrCreate(repmgrPassword('orders'), makePassword),
      ),
    )
    t.equal(new Set(values).size, 1)
    t.equal(await secrets.get(repmgrPassword('orders')), values[0])
  })

  await t.test('stand nowhere in Redis as they are', async t => {
    const value = 'correct-horse-battery-staple'
    await secrets.getOrCreate('clear?', () => value)
    const everything: string[] = []
    for (const key of await redis.keys('*')) {
      everything.push(key, ...Object.entries(await redis.hgetall(key)).flat())
    }
    t.ok(everything.includes('clear?'), 'we have looked in the right place')
    for (const form of [value, Buffer.from(value).toString('base64'), Buffer.from(value).toString('hex')]) {
      t.notOk(everything.some(text => text.includes(form.slice(0, 20))))
    }
    await secrets.getOrCreate('twin', () => value)
    t.not(
      (await redis.hget(keys.secrets, 'twin'))?.split('.')[3],
      (await redis.hget(keys.secrets, 'clear?'))?.split('.')[3],
      'nor can two equal ones be recognised',
    )
  })

  await t.test('another key does not open them, and overwrites nothing', async t => {
    const other = openSecretStore(redis, randomBytes(32))
    await t.rejects(other.get('clear?'), { name: 'SecretUnreadable', message: /clear\?.*key file/s })
    await t.rejects(
      other.getOrCreate('clear?', () => 'new'),
      { name: 'SecretUnreadable' },
    )
    t.equal(await secrets.get('clear?'), 'correct-horse-battery-staple')
  })

  await t.test('a single changed character is noticed, and one secret in another one’s place', async t => {
    const sealed = (await redis.hget(keys.secrets, 'clear?')) ?? ''
    const digits = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'
    for (const [part, text] of sealed.split('.').entries()) {
      for (const at of [0, Math.floor(text.length / 2)]) {
        const replaced = digits[(digits.indexOf(text[at] ?? '') + 1) % 64]
        const parts = sealed.split('.')
        parts[part] = text.slice(0, at) + replaced + text.slice(at + 1)
        await redis.hset(keys.secrets, 'clear?', parts.join('.'))
        await t.rejects(secrets.get('clear?'), { name: 'SecretUnreadable' }, `part ${part}, character ${at}`)
      }
    }
    const parts = sealed.split('.')
    for (const broken of [
      ...['', 'v1', 'x', sealed.slice(0, -4), sealed.replace('v1', 'v2'), parts.slice(0, 4).join('.')],
      // A shortened tag would be guessed.
      [
        ...parts.slice(0, 4),
        Buffer.from(parts[4] ?? '', 'base64')
          .subarray(0, 4)
          .toString('base64'),
      ].join('.'),
    ]) {
      await redis.hset(keys.secrets, 'clear?', broken)
      await t.rejects(secrets.get('clear?'), { name: 'SecretUnreadable' }, JSON.stringify(broken))
    }
    await redis.hset(keys.secrets, 'clear?', sealed)
    t.equal(await secrets.get('clear?'), 'correct-horse-battery-staple')
    await redis.hset(keys.secrets, 'moved', sealed)
    await t.rejects(secrets.get('moved'), { name: 'SecretUnreadable' })
  })
})

t.test('a password needs no escaping anywhere, and is long', async t => {
  const made = new Set(Array.from({ length: 1000 }, makePassword))
  t.equal(made.size, 1000)
  for (const password of made) if (!/^[A-Za-z0-9_-]{32}$/.test(password)) t.fail(password)
})
