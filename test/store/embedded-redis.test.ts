import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { access, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import t, { type Test } from 'tap'
import { type EmbeddedRedis, startEmbeddedRedis } from '../../src/store/embedded-redis.js'
import { takeProcessLock } from '../../src/store/process-lock.js'
import { checkRedis, connectRedis } from '../../src/store/redis.js'
import { eventually } from '../fixtures/redis.js'

async function stateDirectory(t: Test): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'understudy-state-'))
  t.teardown(() => rm(directory, { recursive: true, force: true }))
  return directory
}

async function start(t: Test, directory: string, onExit?: (detail: string) => void): Promise<EmbeddedRedis> {
  const embedded = await startEmbeddedRedis(directory, onExit ? { onExit } : {})
  t.teardown(() => embedded.stop())
  return embedded
}

function connect(t: Test, url: string) {
  const redis = connectRedis(url, { purpose: 'operations' })
  t.teardown(() => redis.disconnect())
  return redis
}

const pidOf = async (redis: ReturnType<typeof connect>) =>
  Number(/process_id:(\d+)/.exec(await redis.info('server'))?.[1])

/** Ended, whether or not somebody has waited for it. */
async function isGone(pid: number): Promise<boolean> {
  const status = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '')
  return status === '' || / Z /.test(status)
}

/** The redis-servers that work in this directory. */
async function serversIn(directory: string): Promise<number[]> {
  const pids = (await readdir('/proc')).filter(name => /^\d+$/.test(name)).map(Number)
  const commands = await Promise.all(pids.map(pid => readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')))
  // A redis-server shows its socket in place of what it was started with.
  return pids.filter((_, index) => /redis-server/.test(commands[index] ?? '') && commands[index]?.includes(directory))
}

t.test('it starts, is fit to be the store, and is for nobody else', async t => {
  const directory = await stateDirectory(t)
  const embedded = await start(t, directory)
  t.equal(embedded.url, `unix:${directory}/redis/redis.sock`)
  const redis = connect(t, embedded.url)
  await checkRedis(redis)
  t.equal((await redis.config('GET', 'appendfsync'))[1], 'always')
  t.equal((await redis.config('GET', 'port'))[1], '0', 'no TCP')
  t.equal((await stat(`${directory}/redis`)).mode & 0o777, 0o700)
  t.equal((await stat(`${directory}/redis/redis.sock`)).mode & 0o777, 0o700)
})

t.test('killed, it is started again with its data', async t => {
  const directory = await stateDirectory(t)
  const told: string[] = []
  const embedded = await start(t, directory, detail => told.push(detail))
  const redis = connect(t, embedded.url)
  for (let round = 1; round <= 2; round += 1) {
    await redis.set('round', round)
    const pid = await pidOf(redis)
    process.kill(pid, 'SIGKILL')
    await eventually(async () => told.length === round)
    t.equal(await redis.get('round'), String(round))
    t.not(await pidOf(redis), pid)
  }
  t.match(told, [/redis-server ended \(SIGKILL\); starting it again/, /SIGKILL/])
  t.equal((await serversIn(directory)).length, 1)
})

t.test('stopped, it is gone, and its data are there at the next start', async t => {
  const directory = await stateDirectory(t)
  const told: string[] = []
  const embedded = await start(t, directory, detail => told.push(detail))
  const redis = connect(t, embedded.url)
  await redis.set('kept', 'yes')
  const pid = await pidOf(redis)
  redis.disconnect()
  await embedded.stop()
  t.ok(await isGone(pid))
  await embedded.stop()
  t.strictSame(told, [], 'a stop is no accident')
  const again = await start(t, directory)
  t.equal(await connect(t, again.url).get('kept'), 'yes')
})

t.test('stopped while it is being started again, nothing is left behind', async t => {
  const directory = await stateDirectory(t)
  const died = new Promise<void>(resolve => {
    startEmbeddedRedis(directory, { onExit: () => resolve() }).then(async embedded => {
      t.teardown(() => embedded.stop())
      process.kill(await pidOf(connect(t, embedded.url)), 'SIGKILL')
      await died
      await new Promise(setImmediate)
      await embedded.stop()
      stopped()
    })
  })
  let stopped: () => void = () => undefined
  await new Promise<void>(resolve => {
    stopped = resolve
  })
  t.strictSame(await serversIn(directory), [])
})

t.test('what a killed service has left behind is ended, and its data are kept', async t => {
  const directory = await stateDirectory(t)
  const service = await startService(t, directory)
  const url = `unix:${directory}/redis/redis.sock`
  const first = connect(t, url)
  await first.set('kept', 'yes')
  const orphan = await pidOf(first)
  first.disconnect()

  await t.rejects(takeProcessLock(directory), {
    name: 'StateDirectoryInUse',
    message: new RegExp(`in use by process ${service.pid}.*UNDERSTUDY_STATE_DIR`),
  })
  const ended = once(service, 'exit')
  service.kill('SIGKILL')
  await ended
  t.notOk(await isGone(orphan), 'its Redis lives on')

  const release = await takeProcessLock(directory)
  t.teardown(release)
  const embedded = await start(t, directory)
  const redis = connect(t, embedded.url)
  t.equal(await redis.get('kept'), 'yes')
  t.not(await pidOf(redis), orphan)
  t.ok(await isGone(orphan))
})

t.test('one that is left behind and still reads its data is ended too: two would ruin them', async t => {
  const directory = await stateDirectory(t)
  const embedded = await start(t, directory)
  const redis = connect(t, embedded.url)
  const fill = redis.pipeline()
  for (let index = 0; index < 500; index += 1) fill.set(`key ${index}`, 'value')
  await fill.exec()
  redis.disconnect()
  await embedded.stop()

  const socket = `${directory}/redis/redis.sock`
  const loading = spawn(
    'redis-server',
    ['--port', '0', '--unixsocket', socket, '--dir', `${directory}/redis`, '--appendonly', 'yes', '--save', '']
      // Five milliseconds a key: it takes 2.5 s.
      .concat([
        '--key-load-delay',
        '5000',
        '--loading-process-events-interval-bytes',
        '1024',
        '--logfile',
        'redis.log',
      ]),
    { stdio: 'ignore' },
  )
  t.teardown(() => loading.kill('SIGKILL'))
  await eventually(async () =>
    access(socket).then(
      () => true,
      () => false,
    ),
  )

  const again = connect(t, (await start(t, directory)).url)
  t.ok(await isGone(loading.pid ?? 0))
  t.equal(await again.dbsize(), 500)
})

t.test('what is in the way is told', async t => {
  const deep = join(await stateDirectory(t), 'x'.repeat(100))
  await t.rejects(startEmbeddedRedis(deep), {
    name: 'EmbeddedRedisFailed',
    message: /longer than 107 bytes.*STATE_DIR/,
  })
  await t.rejects(access(deep), 'and nothing was made')

  const path = process.env.PATH
  t.teardown(() => {
    process.env.PATH = path
  })
  process.env.PATH = await stateDirectory(t)
  await t.rejects(startEmbeddedRedis(await stateDirectory(t)), {
    name: 'EmbeddedRedisFailed',
    message: /redis-server ENOENT.*apt-get install redis-server.*REDIS_URL/s,
  })
  process.env.PATH = path ?? ''

  const broken = await stateDirectory(t)
  await mkdir(`${broken}/redis/appendonlydir`, { recursive: true })
  await writeFile(`${broken}/redis/appendonlydir/appendonly.aof.manifest`, 'nonsense\n')
  await t.rejects(startEmbeddedRedis(broken), { name: 'EmbeddedRedisFailed', message: /exit 1; see .*redis\.log/ })
})

t.test('a state directory is had by one', async t => {
  const attempt = (directory: string) =>
    takeProcessLock(directory).then(
      release => ({ release }),
      (error: Error) => ({ error }),
    )
  const release = async (outcome: Awaited<ReturnType<typeof attempt>>) => {
    if ('release' in outcome) await outcome.release()
  }

  await t.test('of many at once', async t => {
    const directory = await stateDirectory(t)
    for (let round = 0; round < 5; round += 1) {
      const outcomes = await Promise.all(Array.from({ length: 20 }, () => attempt(directory)))
      const winners = outcomes.filter(outcome => 'release' in outcome)
      t.equal(winners.length, 1)
      for (const outcome of outcomes) if ('error' in outcome) t.match(outcome.error, { name: 'StateDirectoryInUse' })
      for (const winner of winners) await release(winner)
    }
  })

  await t.test('until it is given back', async t => {
    const directory = await stateDirectory(t)
    const first = await attempt(directory)
    t.match(await attempt(directory), { error: { name: 'StateDirectoryInUse' } })
    t.equal((await stat(`${directory}/service.lock`)).mode & 0o777, 0o600)
    await release(first)
    const second = await attempt(directory)
    t.ok('release' in second)
    await release(second)
  })

  await t.test('whatever stands in the file: it is the lock that counts', async t => {
    const directory = await stateDirectory(t)
    await writeFile(`${directory}/service.lock`, `${process.ppid}\n`)
    const outcome = await attempt(directory)
    t.ok('release' in outcome)
    t.equal(await readFile(`${directory}/service.lock`, 'utf8'), `${process.pid}\n`)
    await release(outcome)
  })

  await t.test('without flock nobody has it', async t => {
    const path = process.env.PATH
    process.env.PATH = await stateDirectory(t)
    try {
      await t.rejects(takeProcessLock(await stateDirectory(t)), { code: 'ENOENT', syscall: 'spawn flock' } as never)
    } finally {
      process.env.PATH = path ?? ''
    }
  })
})

/** A process that does what the service does at its start, until it is killed. */
async function startService(t: Test, directory: string): Promise<ChildProcess> {
  const source = new URL('../../src/store/', import.meta.url)
  const script = `
    import { startEmbeddedRedis } from '${new URL('embedded-redis.js', source)}'
    import { takeProcessLock } from '${new URL('process-lock.js', source)}'
    await takeProcessLock(process.argv[1])
    await startEmbeddedRedis(process.argv[1])
    console.log('ready')`
  const args = [...process.execArgv, '--input-type=module', '-e', script, directory]
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  t.teardown(async () => {
    child.kill('SIGKILL')
    for (const pid of await serversIn(directory)) process.kill(pid, 'SIGKILL')
  })
  for await (const line of createInterface(child.stdout)) if (line === 'ready') break
  return child
}
