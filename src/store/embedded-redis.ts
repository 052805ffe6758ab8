/**
 * The embedded default: a `redis-server` of our own on a Unix socket, its data under the state directory. It is started
 * again when it dies, and stopped with the service.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdir } from 'node:fs/promises'
import { createConnection } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'

/** Thrown when `redis-server` is not installed or does not come up. */
export class EmbeddedRedisFailed extends Error {
  constructor(problem: string, cause?: unknown) {
    super(
      `The service could not start its own redis-server: ${problem} ` +
        'Install it (apt-get install redis-server), or set REDIS_URL to a Redis of yours.',
      { cause },
    )
    this.name = 'EmbeddedRedisFailed'
  }
}

export interface EmbeddedRedis {
  /** For `connectRedis`. */
  readonly url: string
  stop(): Promise<void>
}

/** sockaddr_un holds 108 bytes. */
const MAX_SOCKET_PATH = 107
const START_TIMEOUT_MS = 15_000

export async function startEmbeddedRedis(
  stateDirectory: string,
  options: { onExit?: (detail: string) => void } = {},
): Promise<EmbeddedRedis> {
  const directory = `${stateDirectory}/redis`
  const socket = `${directory}/redis.sock`
  if (socket.length > MAX_SOCKET_PATH) {
    throw new EmbeddedRedisFailed(
      `the socket's path ${socket} is longer than ${MAX_SOCKET_PATH} bytes; use a shorter UNDERSTUDY_STATE_DIR.`,
    )
  }
  await mkdir(directory, { recursive: true, mode: 0o700 })
  await chmod(directory, 0o700)
  await endOrphan(socket)

  let stopping = false
  let child = await launch(directory, socket)
  let relaunched: Promise<void> = Promise.resolve()
  const relaunch = async () => {
    for (let delayMs = 100; !stopping; delayMs = Math.min(delayMs * 2, 5000)) {
      try {
        child = await launch(directory, socket)
        supervise(child)
        return
      } catch (error) {
        options.onExit?.(error instanceof Error ? error.message : String(error))
        await sleep(delayMs)
      }
    }
  }
  const supervise = (running: ChildProcess) => {
    running.once('exit', (code, signal) => {
      if (stopping) return
      options.onExit?.(`redis-server ended (${signal ?? `exit ${code}`}); starting it again`)
      relaunched = relaunch()
    })
  }
  supervise(child)

  return {
    url: `unix:${socket}`,
    async stop() {
      stopping = true
      // One that is being started just now must not be left behind.
      await relaunched
      if (child.exitCode !== null || child.signalCode !== null) return
      const ended = once(child, 'exit')
      child.kill('SIGTERM')
      await ended
    },
  }
}

/**
 * `appendfsync always`: an answer 202 promises that the operation is known after a power cut too, and the journal says
 * what was done to a host. The service writes little enough for it not to be felt.
 */
async function launch(directory: string, socket: string): Promise<ChildProcess> {
  const child = spawn(
    'redis-server',
    ['--port', '0', '--unixsocket', socket, '--unixsocketperm', '700', '--dir', directory]
      .concat(['--appendonly', 'yes', '--appendfsync', 'always', '--save', '', '--maxmemory-policy', 'noeviction'])
      .concat(['--daemonize', 'no', '--logfile', 'redis.log', '--pidfile', '']),
    // Its own process group: Ctrl-C in a terminal reaches the service alone, which then stops Redis last.
    { stdio: 'ignore', detached: true },
  )
  let failure: string | undefined
  child.once('error', error => {
    failure = error.message
  })
  child.once('exit', code => {
    failure ??= `it ended with exit ${code}; see ${directory}/redis.log.`
  })
  const deadline = Date.now() + START_TIMEOUT_MS
  while (failure === undefined) {
    if (await answers(socket)) return child
    if (Date.now() > deadline) failure = `it did not answer within ${START_TIMEOUT_MS} ms; see ${directory}/redis.log.`
    await sleep(30)
  }
  child.kill('SIGKILL')
  throw new EmbeddedRedisFailed(failure)
}

async function answers(socket: string): Promise<boolean> {
  const redis = probe(socket)
  try {
    await redis.connect()
    // While it reads its file back it answers LOADING.
    return (await redis.ping()) === 'PONG'
  } catch {
    return false
  } finally {
    redis.disconnect()
  }
}

/**
 * A service that was killed leaves its redis-server behind. The caller holds the process lock, so it is nobody's. One that
 * is still reading its file back, or hangs, answers nothing yet: a second one on the same files would ruin them.
 */
async function endOrphan(socket: string): Promise<void> {
  if (!(await isListenedTo(socket))) return
  const redis = probe(socket, START_TIMEOUT_MS)
  try {
    await redis.connect()
    await redis.call('SHUTDOWN').catch(() => undefined)
  } catch {
    // It ended by itself in between.
  } finally {
    redis.disconnect()
  }
  const deadline = Date.now() + START_TIMEOUT_MS
  while (await isListenedTo(socket)) {
    if (Date.now() > deadline)
      throw new EmbeddedRedisFailed(`one that an earlier service left behind on ${socket} does not end.`)
    await sleep(30)
  }
}

function isListenedTo(socket: string): Promise<boolean> {
  return new Promise(resolve => {
    const connection = createConnection(socket)
    connection.once('connect', () => resolve(true)).once('error', () => resolve(false))
    connection.once('connect', () => connection.destroy())
  })
}

function probe(socket: string, commandTimeout = 1000): Redis {
  const redis = new Redis(socket, {
    lazyConnect: true,
    retryStrategy: () => null,
    maxRetriesPerRequest: 0,
    commandTimeout,
    enableReadyCheck: false,
  })
  redis.on('error', () => undefined)
  return redis
}
