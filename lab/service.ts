/** The service in a lab: started in the lab's network, talked to over a Unix socket, which crosses namespaces. */
import type { ChildProcess } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { createReadStream, fstatSync, openSync } from 'node:fs'
import { mkdir, readFile } from 'node:fs/promises'
import { request } from 'node:http'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { LabError } from './command.js'
import type { Lab } from './lab.js'

export interface LabServiceOptions {
  stateDirectory: string
  /** Settings beside the state directory and the socket. */
  env?: Record<string, string>
  /** Let it outlive this process. */
  detached?: boolean
}

export interface Answer<T = unknown> {
  status: number
  headers: Record<string, string | string[] | undefined>
  body: T
}

export interface LabService {
  readonly pid: number
  readonly socket: string
  readonly log: string
  readonly process: ChildProcess
  /** JSON is parsed, anything else is text. */
  call<T = unknown>(
    method: string,
    path: string,
    options?: { body?: unknown; headers?: Record<string, string> },
  ): Promise<Answer<T>>
  /** Asks it to stop and waits. */
  stop(): Promise<void>
  /** As the kernel would: no goodbye. */
  kill(): Promise<void>
}

/** Two levels up from dist/lab, or one from lab where a loader runs the sources. */
export const projectRoot = fileURLToPath(
  new URL(import.meta.url.includes('/dist/') ? '../../' : '../', import.meta.url),
)
const START_TIMEOUT_MS = 30_000
/** Minutes for one operation. */
const MAX_WAITS = 8

export async function startLabService(
  lab: Lab,
  { stateDirectory, env = {}, detached = false }: LabServiceOptions,
): Promise<LabService> {
  await mkdir(stateDirectory, { recursive: true, mode: 0o700 })
  const socket = join(stateDirectory, `api-${process.pid}-${Date.now()}.sock`)
  const log = join(stateDirectory, 'service.log')
  const output = openSync(log, 'a', 0o600)
  // Others write there too, and have written a lot.
  const from = fstatSync(output).size
  const child = await lab.spawn([process.execPath, join(projectRoot, 'dist/src/main.js')], {
    env: { ...withoutSettings(process.env), UNDERSTUDY_STATE_DIR: stateDirectory, UNDERSTUDY_SOCKET: socket, ...env },
    stdio: ['ignore', output, output],
    detached,
  })
  const ended = once(child, 'exit')
  const end = async (signal: NodeJS.Signals) => {
    if (child.exitCode !== null || child.signalCode !== null) return
    child.kill(signal)
    await ended
  }
  const service: LabService = {
    pid: child.pid ?? -1,
    socket,
    log,
    process: child,
    call: async (method, path, options = {}) => {
      const token = (await readFile(join(stateDirectory, 'admin-token'), 'utf8').catch(() => '')).trim()
      const authorization = `Bearer ${token}`
      if (method === 'GET' || !/[?&]wait=60\b/.test(path) || options.headers?.['idempotency-key'] !== undefined)
        return callSocket(socket, method, path, { ...options, headers: { authorization, ...options.headers } })
      // As a client does that wants the end, however busy the machine is: with its key the call may be sent again.
      const headers = { authorization, 'idempotency-key': randomUUID(), ...options.headers }
      for (let turn = 1; ; turn += 1) {
        const answer = await callSocket<never>(socket, method, path, { ...options, headers })
        if (answer.status !== 202 || turn === MAX_WAITS) return answer
      }
    },
    stop: () => end('SIGTERM'),
    kill: () => end('SIGKILL'),
  }
  const wantsApi = (env.UNDERSTUDY_ROLES ?? 'api').includes('api')
  const deadline = Date.now() + START_TIMEOUT_MS
  for (;;) {
    if (child.exitCode !== null) throw new LabError(`the service ended at once:\n${await tail(log)}`)
    const ready = wantsApi
      ? await service.call('GET', '/readyz').then(
          ({ status }) => status === 200,
          () => false,
        )
      : (await text(createReadStream(log, { start: from })))
          .split('\n')
          .some(line => line.includes(`"pid":${child.pid},`) && line.includes('understudy is ready'))
    if (ready) return service
    if (Date.now() > deadline)
      throw new LabError(`the service is not ready after ${START_TIMEOUT_MS} ms:\n${await tail(log)}`)
    await sleep(50)
  }
}

/** The settings of whoever runs the lab are not the lab's. */
function withoutSettings(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(
    Object.entries(env).filter(
      ([name]) => name !== 'REDIS_URL' && (!name.startsWith('UNDERSTUDY_') || name.startsWith('UNDERSTUDY_LAB')),
    ),
  )
}

const tail = async (file: string) => (await readFile(file, 'utf8')).split('\n').slice(-20).join('\n')

function callSocket<T>(
  socketPath: string,
  method: string,
  path: string,
  options: { body?: unknown; headers?: Record<string, string> },
): Promise<Answer<T>> {
  const body =
    options.body === undefined
      ? undefined
      : typeof options.body === 'string'
        ? options.body
        : JSON.stringify(options.body)
  return new Promise((resolve, reject) => {
    const outgoing = request(
      {
        socketPath,
        method,
        path,
        headers: { ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...options.headers },
      },
      incoming => {
        const chunks: Buffer[] = []
        incoming.on('data', chunk => chunks.push(chunk))
        incoming.on('error', reject)
        incoming.on('end', () => {
          const text = Buffer.concat(chunks).toString('utf8')
          const isJson = /json/.test(incoming.headers['content-type'] ?? '')
          resolve({
            status: incoming.statusCode ?? 0,
            headers: incoming.headers,
            body: (isJson ? JSON.parse(text) : text) as T,
          })
        })
      },
    )
    outgoing.on('error', reject)
    outgoing.end(body)
  })
}
