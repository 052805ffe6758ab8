/** The script for pipelines, as docs/ci.md gives it away, against the real application; the worker's part is played here. */

import { readFile, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { type AddressInfo, connect, createServer as createLink } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { execa } from 'execa'
import t, { type Test } from 'tap'
import { parse } from 'yaml'
import { built, failure, finish, node, queued } from './api/fixtures/requests.js'
import { startApp, type TestApp } from './fixtures/app.js'
import { eventually } from './fixtures/redis.js'
import { freePort } from './fixtures/sshd.js'

const SCRIPT = 'docs/rebuild-standby.sh'
/** Debian's sh is dash. */
const SHELLS = ['sh', 'bash']

type Settings = Record<string, string>

function launch(settings: Settings, args: string[], shell = 'sh') {
  const { PATH = '' } = process.env
  return execa(shell, [SCRIPT, ...args], {
    env: { PATH, ...settings },
    extendEnv: false,
    reject: false,
    stdin: 'ignore',
  })
}

async function startCluster(t: Test) {
  const test = await startApp(t)
  const api = await test.app.listen({ host: '127.0.0.1', port: 0 })
  const { store, token } = test
  const settings: Settings = { API: api, TOKEN: token, DEADLINE_S: '60' }
  let clusters = 0
  return {
    test,
    store,
    settings,
    /** A cluster of its own for each part. */
    async cluster() {
      clusters += 1
      const name = `orders-${clusters}`
      await built(test, name, [node('pg1'), node('pg2', { host: '127.0.0.2' })])
      return name
    },
    accepted: (name: string) => eventually(() => store.operations.activeOn(name)),
    operations: async (name: string) => (await store.operations.list({ cluster: name, limit: 100 })).items,
  }
}

/** Until it has said that on standard error. */
function says(run: ReturnType<typeof launch>, what: string): Promise<void> {
  let said = ''
  return new Promise(resolve =>
    run.stderr.on('data', chunk => {
      said += chunk
      if (said.includes(what)) resolve()
    }),
  )
}

const stateOf = async ({ store }: TestApp, id: string) => (await store.operations.get(id))?.state

t.test('shellcheck finds nothing', async t => {
  t.equal((await execa('shellcheck', [SCRIPT], { reject: false })).stdout, '')
})

t.test('how it ends', async t => {
  const { test, store, settings, cluster, accepted, operations } = await startCluster(t)

  await t.test('0: it succeeded; and the service knows which build asked', async t => {
    const name = await cluster()
    const reference = 'https://ci.example/builds/4711'
    const run = launch({ ...settings, KEY: 'build-1', REFERENCE: reference }, [name, 'pg2', '{"method":"clone"}'])
    const id = await accepted(name)
    await finish(test, id)
    const { exitCode, stdout, stderr } = await run
    t.equal(exitCode, 0, stderr)
    t.match(stdout, new RegExp(`^rebuild-node of ${name}: succeeded\\. Done\\.\n/v1/operations/${id}\n`))
    t.equal(stderr, `rebuild-standby: /v1/operations/${id}`)
    t.match(await store.operations.get(id), { type: 'rebuild-node', node: 'pg2', reference })
    t.same(await store.operations.input(id), { node: 'pg2', method: 'clone' })
  })

  await t.test('1: it failed, and what to do is in the log of the build', async t => {
    const name = await cluster()
    const run = launch(settings, [name, 'pg2'])
    await finish(test, await accepted(name), failure)
    const { exitCode, stdout } = await run
    t.equal(exitCode, 1)
    t.match(stdout, `Failed (command-failed, failed_partial): ${failure.detail}\nWhat to do: ${failure.remedy}`)
  })

  await t.test('1: somebody called it off', async t => {
    const name = await cluster()
    const run = launch(settings, [name, 'pg2'])
    const id = await accepted(name)
    await store.operations.cancel(id, { at: new Date().toISOString(), by: 'test' })
    const { exitCode, stderr } = await run
    t.equal(exitCode, 1)
    t.match(stderr, /"type":"\/problems\/cancelled"/)
  })

  await t.test('2: a host could not say how it ended', async t => {
    const name = await cluster()
    const run = launch(settings, [name, 'pg2'])
    // A text that looks like the field is none.
    const detail = 'It said {"outcome":"failed_clean"}.'
    await finish(test, await accepted(name), { ...failure, detail, outcome: 'unknown' })
    t.equal((await run).exitCode, 2)
    const other = launch(settings, [name, 'pg2'])
    await finish(test, await accepted(name), { ...failure, detail: 'It said {"outcome":"unknown"}.' })
    t.equal((await other).exitCode, 1)
  })

  await t.test('1: it was refused, at once', async t => {
    const name = await cluster()
    const refused = async (more: Settings, args: string[], message: RegExp) => {
      const { exitCode, stderr, stdout } = await launch({ ...settings, ...more }, args)
      t.equal(exitCode, 1)
      t.match(stderr, message)
      t.equal(stdout, '')
    }
    await refused({}, ['nowhere', 'pg2'], /refused \(404\): .*There is no cluster nowhere/)
    await refused({ TOKEN: 'wrong' }, [name, 'pg2'], /refused \(401\)/)
    await refused({}, [name, 'pg2', '{"method":"magic"}'], /refused \(400\)/)
    await refused({}, [name, 'pg2', '{"confirm":"pg1"}'], /refused \(409\): .*confirmation-required/)
    t.same(await operations(name), [])
  })

  await t.test('64: called wrongly', async t => {
    const { TOKEN: _token, ...without } = settings
    for (const [how, args] of [
      [settings, ['orders']],
      [without, ['orders', 'pg2']],
      [{ ...without, TOKEN_FILE: '/nowhere/token' }, ['orders', 'pg2']],
      [{ TOKEN: 'x' }, ['orders', 'pg2']],
      [{ ...settings, DEADLINE_S: '1h' }, ['orders', 'pg2']],
    ] as const)
      t.equal((await launch(how, [...args])).exitCode, 64)
  })

  await t.test('124: the deadline has passed; the same key goes on with the same operation', async t => {
    const name = await cluster()
    const begun = performance.now()
    const first = await launch({ ...settings, KEY: 'build-2', DEADLINE_S: '2' }, [name, 'pg2'])
    t.equal(first.exitCode, 124)
    t.ok(performance.now() - begun < 10_000)
    const id = await accepted(name)
    t.match(first.stderr, `not ended after 2 s: /v1/operations/${id}. The same KEY goes on with it: build-2`)
    t.equal(await stateOf(test, id), 'queued', 'it is not called off')
    const second = launch({ ...settings, KEY: 'build-2' }, [name, 'pg2'])
    const third = launch({ ...settings, KEY: 'build-2' }, [name, 'pg2'])
    await sleep(500)
    await finish(test, id)
    for (const { exitCode, stderr } of [await second, await third]) {
      t.equal(exitCode, 0)
      t.equal(stderr, `rebuild-standby: /v1/operations/${id}`)
    }
    const late = await launch({ ...settings, KEY: 'build-2' }, [name, 'pg2'])
    t.equal(late.exitCode, 0, 'and after its end')
    t.same(
      (await operations(name)).map(one => one.id),
      [id],
    )
  })

  await t.test('another operation has the cluster: it says so, and waits', async t => {
    const name = await cluster()
    const other = await queued(test, name)
    const late = await launch({ ...settings, DEADLINE_S: '2' }, [name, 'pg2'])
    t.equal(late.exitCode, 124)
    t.match(late.stderr, /waits for another operation: .*cluster-busy.*not accepted yet/s)
    const run = launch(settings, [name, 'pg2'])
    await says(run, 'waits for')
    await finish(test, other.id)
    const id = await eventually(async () => {
      const active = await store.operations.activeOn(name)
      return active !== other.id && active
    })
    await finish(test, id)
    const { exitCode, stderr } = await run
    t.equal(exitCode, 0)
    t.equal(stderr.split('waits for').length, 2, 'once')
    t.match(stderr, `/v1/operations/${other.id}`)
  })
})

t.test('the token is in no argument, and not in the environment of curl', async t => {
  const { test, settings, cluster, accepted } = await startCluster(t)
  for (const shell of SHELLS) {
    const name = await cluster()
    const run = launch(settings, [name, 'pg2'], shell)
    const id = await accepted(name)
    const curl = await asks(run, /rebuild/)
    t.ok(curl.args.includes('-H'))
    for (const { args, environment } of await children(run.pid)) {
      t.notOk(args.join(' ').includes(test.token), args[0] ?? '')
      t.notOk(environment.includes(test.token), args[0] ?? '')
    }
    await finish(test, id)
    t.equal((await run).exitCode, 0)
  }
})

async function children(parent: number | undefined) {
  const read = (file: string) => readFile(`/proc/${file}`, 'utf8').catch(() => '')
  const pids = (await read(`${parent}/task/${parent}/children`)).split(' ').filter(pid => pid !== '')
  return Promise.all(
    pids.map(async pid => ({
      args: (await read(`${pid}/cmdline`)).split('\0').slice(0, -1),
      environment: await read(`${pid}/environ`),
    })),
  )
}

/** Until its curl asks for something that fits. */
const asks = (run: { pid?: number | undefined }, what: RegExp) =>
  eventually(async () =>
    (await children(run.pid)).find(({ args }) => args[0] === 'curl' && what.test(args.at(-1) ?? '') && args),
  )

t.test('interrupted', async t => {
  const { test, store, settings, cluster, accepted, operations } = await startCluster(t)
  for (const shell of SHELLS) {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) {
      await t.test(`${signal} to ${shell}: it is called off, and the shell above sees the signal`, async t => {
        const name = await cluster()
        const run = launch(settings, [name, 'pg2'], shell)
        const id = await accepted(name)
        const turn = await store.operations.take(id, 'test', 30_000)
        if (!turn) throw new Error('not taken')
        await asks(run, /wait=[1-9]/)
        const begun = performance.now()
        run.kill(signal)
        const ended = await run
        t.equal(ended.signal, signal, ended.stderr)
        t.ok(performance.now() - begun < 5000, 'well within what runners leave to a job')
        t.match(ended.stderr, `interrupted; /v1/operations/${id} is called off`)
        t.match(await store.operations.cancelRequest(id), { by: 'test' })
      })
    }
  }

  await t.test(
    'before an answer: what was accepted is called off, and what was not is not asked for again',
    async t => {
      const name = await cluster()
      const link = await slowLink(t, Number(new URL(settings.API ?? '').port))
      const run = launch({ ...settings, API: link.address }, [name, 'pg2'])
      const id = await accepted(name)
      run.kill('SIGTERM')
      await sleep(300)
      link.release()
      const ended = await run
      t.equal(ended.signal, 'SIGTERM')
      t.equal(await stateOf(test, id), 'cancelled', ended.stderr)

      const busy = await queued(test, name)
      const waiting = launch(settings, [name, 'pg2'])
      await sleep(1000)
      waiting.kill('SIGTERM')
      t.match((await waiting).stderr, /interrupted; it was not accepted \(409\)/)
      await finish(test, busy.id)
      t.equal((await operations(name)).length, 2)
    },
  )
})

interface Workflow {
  jobs: { rebuild: { steps: { run?: string; env?: Record<string, string> }[] } }
}
interface Pipeline {
  'rebuild-standby': { before_script: string[]; script: string[]; variables: Record<string, string> }
}

t.test('the examples do what the script does', async t => {
  const { test, store, settings, cluster, accepted } = await startCluster(t)
  const { API = '', TOKEN = '' } = settings
  const [github, gitlab] = [...(await readFile('docs/ci.md', 'utf8')).matchAll(/^```yaml\n(.*?)^```/gms)].map(
    ([, text = '']) => parse(text, { strict: true }),
  ) as [Workflow, Pipeline]
  /** What a platform puts in, of values that it is known to have. */
  const filledIn = (values: Record<string, string>, expression: RegExp, more: Record<string, string> = {}) =>
    Object.fromEntries(
      Object.entries(values).map(([name, text]) => [
        name,
        text.replaceAll(expression, (_, what: string) => {
          const value = more[what]
          if (value === undefined) throw new Error(`nobody sets ${what}`)
          return value
        }),
      ]),
    )
  const { PATH = '' } = process.env

  await t.test('GitHub Actions: the script itself gets the signal', async t => {
    const name = await cluster()
    const step = github.jobs.rebuild.steps.at(-1)
    const env = filledIn(step?.env ?? {}, /\$\{\{ (.*?) \}\}/g, {
      'inputs.cluster': name,
      'inputs.node': 'pg2',
      'vars.UNDERSTUDY_API': API,
      'secrets.UNDERSTUDY_TOKEN': TOKEN,
      'github.run_id': '4711',
      'github.run_attempt': '1',
      'github.server_url': 'https://github.com',
      'github.repository': 'owner/name',
    })
    // As its runner does: a file for `bash -e`.
    const file = join(t.testdir(), 'step.sh')
    await writeFile(file, step?.run ?? '')
    const run = execa('bash', ['-e', file], { env: { PATH, ...env }, extendEnv: false, reject: false })
    const id = await accepted(name)
    await asks(run, /wait=[1-9]/)
    run.kill('SIGINT')
    t.equal((await run).signal, 'SIGINT')
    t.match(await store.operations.get(id), {
      state: 'cancelled',
      reference: 'https://github.com/owner/name/actions/runs/4711',
    })
  })

  await t.test('GitLab CI: the token is in a file', async t => {
    const name = await cluster()
    const { script, variables } = gitlab['rebuild-standby']
    const job = { CLUSTER: name, NODE: 'pg2' }
    const file = join(t.testdir({ token: TOKEN }), 'token')
    const env = filledIn(variables, /\$(\w+)/g, {
      UNDERSTUDY_API: API,
      UNDERSTUDY_TOKEN: file,
      CI_JOB_ID: '4712',
      CI_JOB_URL: 'https://gitlab.example/jobs/4712',
    })
    const run = execa('sh', ['-e'], {
      input: `${script.join('\n')}\n`,
      env: { PATH, ...env, ...job },
      extendEnv: false,
      reject: false,
    })
    const id = await accepted(name)
    await finish(test, id)
    const { exitCode, stderr } = await run
    t.equal(exitCode, 0, stderr)
    t.match(await store.operations.get(id), { reference: 'https://gitlab.example/jobs/4712' })
  })
})

/** Carries what is asked for at once, and what is answered only when it is released. */
async function slowLink(t: Test, port: number) {
  const held = new Set<() => void>()
  let released = false
  const server = createLink(from => {
    const to = connect(port, '127.0.0.1')
    const answer = () => to.pipe(from)
    from.on('error', () => to.destroy()).pipe(to.on('error', () => from.destroy()))
    if (released) answer()
    else held.add(answer)
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => server.close())
  return {
    address: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    release() {
      released = true
      for (const answer of held) answer()
    },
  }
}

t.test('the service goes away', async t => {
  const begin = async (more: Settings = {}) => {
    const port = await freePort()
    const first = await startApp(t)
    await first.app.listen({ host: '127.0.0.1', port })
    await built(first, 'orders', [node('pg1'), node('pg2', { host: '127.0.0.2' })])
    const { token } = first
    const run = launch({ API: `http://127.0.0.1:${port}`, TOKEN: token, DEADLINE_S: '60', ...more }, ['orders', 'pg2'])
    const id = await eventually(() => first.store.operations.activeOn('orders'))
    await asks(run, /wait=[1-9]/)
    first.app.server.closeAllConnections()
    await first.app.close()
    return { first, port, run, id }
  }

  await t.test('and comes back: nothing is lost', async t => {
    const { first, port, run, id } = await begin()
    await sleep(1000)
    const second = await startApp(t, { redis: first.redis })
    await finish(second, id)
    await second.app.listen({ host: '127.0.0.1', port })
    const { exitCode, stderr, stdout } = await run
    t.equal(exitCode, 0, stderr)
    t.match(stdout, `/v1/operations/${id}`)
    t.equal(stderr.split('no answer').length, 2, 'said once')
  })

  await t.test('2: and does not come back', async t => {
    const { run, id } = await begin({ AWAY_S: '2', KEY: 'build-3' })
    const { exitCode, stderr } = await run
    t.equal(exitCode, 2)
    t.match(stderr, `how it is with /v1/operations/${id} is not known. The same KEY goes on with it: build-3`)
  })

  await t.test('2: nor is it known at the deadline', async t => {
    const { run } = await begin({ DEADLINE_S: '3' })
    t.equal((await run).exitCode, 2)
  })

  await t.test('2: it was never there', async t => {
    const api = `http://127.0.0.1:${await freePort()}`
    const { exitCode, stderr } = await launch({ API: api, TOKEN: 'x', AWAY_S: '1' }, ['orders', 'pg2'])
    t.equal(exitCode, 2)
    t.match(stderr, /how it is with the call is not known/)
  })

  await t.test('an error page of a proxy is no answer', async t => {
    const proxy = createServer((_request, response) => response.writeHead(502).end('<html>Bad Gateway</html>'))
    await new Promise<void>(resolve => proxy.listen(0, '127.0.0.1', resolve))
    t.teardown(() => proxy.close())
    const api = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`
    const { exitCode } = await launch({ API: api, TOKEN: 'x', AWAY_S: '1' }, ['orders', 'pg2'])
    t.equal(exitCode, 2)
  })
})
