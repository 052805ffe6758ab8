import t from 'tap'
import { buildApp } from '../../src/api/app.js'
import type { Services } from '../../src/api/services.js'
import { startApp } from '../fixtures/app.js'
import { problemOf, told } from './fixtures/requests.js'

const PUBLIC = ['/healthz', '/readyz', '/openapi.json', '/problems/{code}']

t.test('tokens', async t => {
  const { app, token } = await startApp(t)
  const get = (authorization?: string) =>
    app.inject({ url: '/v1/clusters', headers: authorization === undefined ? {} : { authorization } })

  const other = token.slice(0, -1) + (token.endsWith('A') ? 'B' : 'A')
  const unknown = token.replace(/^und_.{26}/, `und_${'0'.repeat(26)}`)
  for (const [what, header] of [
    ['none', undefined],
    ['empty', ''],
    ['the scheme alone', 'Bearer'],
    ['the scheme and a space', 'Bearer '],
    ['another scheme', `Basic ${token}`],
    ['no scheme', token],
    ['not the form of a token', 'Bearer hello'],
    ['a prefix of the token', `Bearer ${token.slice(0, -1)}`],
    ['a longer token', `Bearer ${token}x`],
    ['one character off', `Bearer ${other}`],
    ['the id of nobody', `Bearer ${unknown}`],
    ['a word behind it', `Bearer ${token} extra`],
    ['not ASCII', `Bearer ${'ü'.repeat(10)}`],
    ['very long', `Bearer ${'x'.repeat(10_000)}`],
  ] as const) {
    const response = await get(header)
    t.match(told(response), problemOf(401, 'unauthorized'), what)
    t.equal(response.headers['www-authenticate'], 'Bearer realm="understudy"', what)
    t.notMatch(response.body, token, 'the token is not repeated')
  }
  for (const scheme of ['Bearer', 'bearer', 'BEARER', 'Bearer '])
    t.equal((await get(`${scheme} ${token}`)).statusCode, 200, scheme)
})

t.test('every route but the public ones needs a token, before it looks at anything else', async t => {
  const { app } = await startApp(t)
  const { paths } = app.swagger() as { paths: Record<string, Record<string, { security?: unknown[] }>> }
  let guarded = 0
  for (const [path, operations] of Object.entries(paths)) {
    for (const [method, { security }] of Object.entries(operations)) {
      const response = await app.inject({
        method: method.toUpperCase() as 'GET',
        url: path.replaceAll(/\{\w+\}/g, '!'),
        ...(method === 'post' ? { payload: '{broken', headers: { 'content-type': 'application/json' } } : {}),
      })
      const open = PUBLIC.includes(path)
      t.equal(response.statusCode === 401, !open, `${method} ${path}: ${response.statusCode}`)
      t.same(security, open ? [] : undefined, `${method} ${path} says so in the contract`)
      if (!open) guarded += 1
    }
  }
  t.ok(guarded >= 9, `${guarded} guarded operations`)
  t.equal((await app.inject({ method: 'HEAD', url: '/v1/clusters' })).statusCode, 401, 'HEAD too')
})

t.test('the pages at /docs are public and hold no data', async t => {
  const { app } = await startApp(t)
  t.equal((await app.inject({ url: '/docs/' })).statusCode, 200)
  t.equal((await app.inject({ url: '/docs/json' })).statusCode, 200)
})

t.test('a route that does not say who may call it stops the start', async t => {
  const app = await buildApp({ services: { store: { tokens: {}, operations: {} } } as unknown as Services })
  t.teardown(() => app.close())
  t.throws(() => app.get('/v1/forgotten', async () => 'secret'), /GET \/v1\/forgotten does not say who may call it/)
})
