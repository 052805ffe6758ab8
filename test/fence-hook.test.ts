import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import t from 'tap'
import { openFenceHook } from '../src/fence-hook.js'

const REQUEST = { cluster: 'orders', node: 'pg1', host: '192.0.2.11' }
const none = { command: undefined, url: undefined, tokenFile: undefined, timeoutMs: 2000 }
const quiet = new AbortController().signal

t.test('without a setting there is none', async t => {
  t.equal(openFenceHook(none), undefined)
})

t.test('a program: its exit status is the answer, what it prints the receipt', async t => {
  const directory = await mkdtemp(join(tmpdir(), 'understudy-fence-'))
  t.teardown(() => rm(directory, { recursive: true }))
  const program = async (script: string, timeoutMs = 2000) => {
    const command = join(directory, 'fence')
    await writeFile(command, `#!/bin/sh\n${script}\n`)
    await chmod(command, 0o755)
    const hook = openFenceHook({ ...none, command, timeoutMs })
    if (!hook) throw new Error('no hook')
    return hook(REQUEST, quiet)
  }
  t.equal(await program('echo "$1 $2 $3 is off"'), 'orders pg1 192.0.2.11 is off')
  t.match(await program('exit 0'), /ended with exit status 0/)
  await t.rejects(program('echo "no such outlet" >&2; exit 3'), /ended with 3: no such outlet/)
  await t.rejects(program('exec sleep 30', 200), /did not end within 200 ms/)
})

t.test('a call: only the answer that was agreed on counts', async t => {
  const seen: { headers: IncomingMessage['headers']; body: string }[] = []
  let answer: { status: number; body: string } | undefined
  const server = createServer(async (request, response) => {
    seen.push({ headers: request.headers, body: await text(request) })
    // Without an answer it hangs, as a switch that is stuck.
    if (answer) response.writeHead(answer.status).end(answer.body)
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const directory = await mkdtemp(join(tmpdir(), 'understudy-fence-'))
  t.teardown(async () => {
    server.closeAllConnections()
    server.close()
    await rm(directory, { recursive: true })
  })
  const tokenFile = join(directory, 'token')
  await writeFile(tokenFile, 'a secret of the switch\n')
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/off`
  const ask = (status: number, body: unknown, timeoutMs = 2000) => {
    answer = status === 0 ? undefined : { status, body: typeof body === 'string' ? body : JSON.stringify(body) }
    const hook = openFenceHook({ ...none, url, tokenFile, timeoutMs })
    if (!hook) throw new Error('no hook')
    return hook(REQUEST, quiet)
  }
  t.equal(await ask(200, { fenced: true, receipt: 'outlet 7 is off' }), 'outlet 7 is off')
  t.match(seen[0], {
    headers: { authorization: 'Bearer a secret of the switch', 'content-type': 'application/json' },
    body: JSON.stringify(REQUEST),
  })
  await t.rejects(ask(200, '<html>Welcome</html>'), /without \{"fenced": true/)
  await t.rejects(ask(200, { fenced: 'true', receipt: 'x' }), /without \{"fenced": true/)
  await t.rejects(ask(200, { fenced: true }), /without \{"fenced": true/)
  await t.rejects(ask(503, 'busy'), /answered 503: busy/)
  await t.rejects(ask(0, '', 200), /did not answer within 200 ms/)
})
