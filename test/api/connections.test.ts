import { once } from 'node:events'
import { request as httpRequest, type IncomingMessage } from 'node:http'
import { connect } from 'node:net'
import t from 'tap'
import { startApp } from '../fixtures/app.js'
import { eventually } from '../fixtures/redis.js'
import { spec } from './fixtures/requests.js'

t.test('over a real connection', async t => {
  const { app, headers, store } = await startApp(t)
  const address = await app.listen({ host: '127.0.0.1', port: 0 })
  const port = Number(new URL(address).port)

  /** Says something that need not be HTTP; returns all that comes back. */
  const say = async (text: string) => {
    const socket = connect(port, '127.0.0.1')
    let answer = ''
    socket.setEncoding('utf8').on('data', chunk => {
      answer += chunk
    })
    socket.on('error', () => undefined)
    socket.write(text)
    await once(socket, 'close')
    return answer
  }
  const bodyOf = (answer: string) => JSON.parse(answer.slice(answer.indexOf('\r\n\r\n') + 4))

  t.test('what is not HTTP gets a problem too', async t => {
    const answer = await say('hello there\r\n\r\n')
    t.match(answer, /^HTTP\/1\.1 400 Bad Request\r\nContent-Type: application\/problem\+json\r\n/)
    t.match(bodyOf(answer), { type: '/problems/bad-request', status: 400 })
  })

  t.test('headers without an end: 431', async t => {
    const answer = await say(`GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: ${'x'.repeat(40_000)}\r\n\r\n`)
    t.match(answer, /^HTTP\/1\.1 431 /)
    t.match(bodyOf(answer), { type: '/problems/headers-too-large', status: 431 })
  })

  t.test('10 MB: 413, told before they are all sent', async t => {
    const body = Buffer.alloc(10_000_000, 'x')
    const request = httpRequest(`${address}/v1/clusters`, {
      method: 'POST',
      agent: false,
      headers: { ...headers, 'content-type': 'application/json', 'content-length': body.length },
    })
    request.on('error', () => undefined)
    request.write(body)
    const [response] = (await once(request, 'response')) as [IncomingMessage]
    t.equal(response.statusCode, 413)
    t.match(response.headers['content-type'], 'application/problem+json')
    request.destroy()
  })

  t.test('10 MB in chunks of unknown number: 413', async t => {
    const request = httpRequest(`${address}/v1/clusters`, {
      method: 'POST',
      agent: false,
      headers: { ...headers, 'content-type': 'application/json' },
    })
    request.on('error', () => undefined)
    const answered = once(request, 'response') as Promise<[IncomingMessage]>
    let done = false
    const sending = (async () => {
      for (let at = 0; at < 160 && !done; at += 1) {
        request.write(Buffer.alloc(65_536, 'x'))
        await new Promise(resolve => setImmediate(resolve))
      }
    })()
    const [response] = await answered
    done = true
    await sending
    t.equal(response.statusCode, 413)
    request.destroy()
  })

  t.test('a caller that goes away in the middle of its body starts nothing', async t => {
    const text = JSON.stringify({ ...spec('half'), bootstrap: true })
    const socket = connect(port, '127.0.0.1')
    await once(socket, 'connect')
    socket.write(
      `POST /v1/clusters HTTP/1.1\r\nHost: x\r\nAuthorization: ${headers.authorization}\r\nContent-Type: application/json\r\nContent-Length: ${text.length}\r\n\r\n${text.slice(0, -5)}`,
    )
    socket.destroy()
    t.equal((await app.inject('/healthz')).statusCode, 200)
    await new Promise(resolve => setTimeout(resolve, 100))
    t.equal(await store.clusters.get('half'), undefined)
  })

  t.test('a caller that goes away once it has asked: what it asked for is done', async t => {
    const text = JSON.stringify({ ...spec('whole'), bootstrap: true })
    const socket = connect(port, '127.0.0.1')
    await once(socket, 'connect')
    socket.write(
      `POST /v1/clusters?wait=30 HTTP/1.1\r\nHost: x\r\nAuthorization: ${headers.authorization}\r\nContent-Type: application/json\r\nContent-Length: ${text.length}\r\n\r\n${text}`,
    )
    socket.on('error', () => undefined)
    setTimeout(() => socket.destroy(), 100)
    t.ok(await eventually(() => store.operations.activeOn('whole'), 5000))
  })
})
