/** SQL connections to one server: short, bounded, named, and never without a time limit. */
import { Socket } from 'node:net'
import pg from 'pg'
import { OperationError } from '../operations/errors.js'

export interface ServerAddress {
  host: string
  port: number
}

export interface Credentials {
  user: string
  password: string
  database: string
}

export interface QueryOptions {
  /** For connecting, and again for each statement. */
  timeoutMs: number
  signal?: AbortSignal
}

export type Row = Record<string, unknown>
export type Query = (text: string, values?: readonly unknown[]) => Promise<Row[]>

/** Thrown when a server cannot be connected to. `reason` tells a living server from a dead one. */
export class ServerUnreachable extends OperationError {
  constructor(
    readonly reason: 'refused' | 'timed_out' | 'starting_up' | 'too_many_connections' | 'authentication' | 'other',
    { host, port }: ServerAddress,
    cause: unknown,
  ) {
    const said = cause instanceof Error ? cause.message : String(cause)
    super(`PostgreSQL on ${host}:${port} cannot be connected to (${reason.replaceAll('_', ' ')}): ${said}`, {
      code: 'server-unreachable',
      outcome: 'not_started',
      remedy: REMEDIES[reason],
      cause,
    })
  }
}

const REMEDIES: Record<ServerUnreachable['reason'], string> = {
  refused: 'Look whether PostgreSQL runs on the host, and on this port.',
  timed_out: 'Look whether the host is up and a firewall lets this service reach the PostgreSQL port.',
  starting_up: 'Wait until its recovery has come far enough to accept connections.',
  too_many_connections: 'The server lives, but all its connections are taken.',
  authentication:
    'The managed block of pg_hba.conf, or the repmgr role’s password, is not as it should be: build the cluster again to mend it.',
  other: 'Look at the server’s log on the host.',
}

/** Connects, runs `work`, disconnects. Throws `ServerUnreachable`; errors of the statements pass as they are. */
export async function withServer<T>(
  address: ServerAddress,
  credentials: Credentials,
  options: QueryOptions,
  work: (query: Query) => Promise<T>,
): Promise<T> {
  options.signal?.throwIfAborted()
  // Of our own, to be cut off: a goodbye waits for a server that may never have answered.
  const socket = new Socket()
  const client = new pg.Client({
    ...address,
    ...credentials,
    stream: () => socket,
    application_name: 'understudy',
    connectionTimeoutMillis: options.timeoutMs,
    statement_timeout: options.timeoutMs,
    query_timeout: options.timeoutMs + 500,
  })
  // A server that goes away between two statements is heard of by the next one.
  client.on('error', () => undefined)
  const stop = () => void socket.destroy()
  options.signal?.addEventListener('abort', stop)
  try {
    await client.connect().catch(error => {
      throw new ServerUnreachable(reasonOf(error), address, error)
    })
    return await work(async (text, values = []) => (await client.query(text, [...values])).rows as Row[])
  } catch (error) {
    // Who gave up waiting has learnt nothing of the server.
    options.signal?.throwIfAborted()
    throw error
  } finally {
    options.signal?.removeEventListener('abort', stop)
    await Promise.race([client.end().catch(() => undefined), new Promise(resolve => setTimeout(resolve, 500).unref())])
    socket.destroy()
  }
}

function reasonOf(error: unknown): ServerUnreachable['reason'] {
  const { code, message = '' } = error as { code?: string; message?: string }
  if (code === 'ECONNREFUSED') return 'refused'
  if (code === 'ETIMEDOUT' || code === 'EHOSTUNREACH' || /timeout/i.test(message)) return 'timed_out'
  if (code === '57P03') return 'starting_up'
  if (code === '53300') return 'too_many_connections'
  if (code === '28P01' || code === '28000') return 'authentication'
  return 'other'
}
