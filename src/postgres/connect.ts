/** SQL connections to one server: short, bounded, named, and never without a time limit. */
import { Socket } from 'node:net'
import { checkServerIdentity } from 'node:tls'
import pg from 'pg'
import type { Trust } from '../cluster/tls.js'
import { OperationError } from '../operations/errors.js'

export interface ServerAddress {
  host: string
  port: number
  /** Whether by TLS, and whom to believe. Default: without. */
  trust?: Trust
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
    readonly reason:
      | 'refused'
      | 'timed_out'
      | 'starting_up'
      | 'too_many_connections'
      | 'authentication'
      | 'tls'
      | 'other',
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
  tls: 'The server has no TLS, or a certificate that is not of the cluster’s CA, has expired, or is for another name. PUT the description of the cluster mends what is managed; GET …/checks shows the certificates.',
  other: 'Look at the server’s log on the host.',
}

/** A connection that stays open. What goes wrong with it is heard of by the next question. */
export interface Connection {
  query: Query
  /** False once it has ended, from either side. */
  readonly open: boolean
  /** Says goodbye, and waits for half a second at most. */
  end(): Promise<void>
}

/**
 * Connects, runs `work`, disconnects. With TLS the certificate is verified, and that it is for this very host. Throws
 * `ServerUnreachable`; errors of the statements pass as they are.
 */
export async function withServer<T>(
  address: ServerAddress,
  credentials: Credentials,
  options: QueryOptions,
  work: (query: Query) => Promise<T>,
): Promise<T> {
  const connection = await openServer(address, credentials, options)
  try {
    return await work(connection.query)
  } catch (error) {
    // Who gave up waiting has learnt nothing of the server.
    options.signal?.throwIfAborted()
    throw error
  } finally {
    await connection.end()
  }
}

/** The same for more than one question. An aborted signal cuts it off at once. Throws `ServerUnreachable`. */
export async function openServer(
  address: ServerAddress,
  credentials: Credentials,
  options: QueryOptions & { name?: string },
): Promise<Connection> {
  const { tls, ca } = address.trust ?? { tls: 'as-asked' }
  if (tls === 'verified') {
    // With none of ours Node would believe those of the whole world.
    if (ca === undefined) throw new ServerUnreachable('tls', address, 'the CA of this cluster is not known here')
    return openConnection(address, credentials, options, ca)
  }
  try {
    return await openConnection(address, credentials, options, undefined)
  } catch (error) {
    if (ca === undefined || !wantsTls(error)) throw error
    return openConnection(address, credentials, options, ca)
  }
}

/** Refused by the rules of pg_hba.conf, and not for a password: in every language the file has this name. */
const wantsTls = (error: unknown) =>
  error instanceof ServerUnreachable &&
  error.reason === 'authentication' &&
  error.cause instanceof Error &&
  error.cause.message.includes('pg_hba.conf')

/** `ca`: by TLS, and only to a server that it vouches for. */
async function openConnection(
  address: ServerAddress,
  credentials: Credentials,
  options: QueryOptions & { name?: string },
  ca: string | undefined,
): Promise<Connection> {
  options.signal?.throwIfAborted()
  const { host, port } = address
  // Of our own, to be cut off: a goodbye waits for a server that may never have answered.
  const socket = new Socket()
  const client = new pg.Client({
    host,
    port,
    ...credentials,
    stream: () => socket,
    application_name: options.name ?? 'understudy',
    connectionTimeoutMillis: options.timeoutMs,
    statement_timeout: options.timeoutMs,
    query_timeout: options.timeoutMs + 500,
    // The name is told here: pg tells none where the host is an address.
    ...(ca === undefined ? {} : { ssl: { ca, checkServerIdentity: (_, peer) => checkServerIdentity(host, peer) } }),
  })
  let open = true
  client.once('end', () => {
    open = false
  })
  // A server that goes away between two statements is heard of by the next one.
  client.on('error', () => {
    open = false
  })
  const stop = () => void socket.destroy()
  options.signal?.addEventListener('abort', stop)
  const end = async () => {
    open = false
    options.signal?.removeEventListener('abort', stop)
    // Who gave up has no time for a goodbye either.
    if (!options.signal?.aborted)
      await Promise.race([
        client.end().catch(() => undefined),
        new Promise(resolve => setTimeout(resolve, 500).unref()),
      ])
    socket.destroy()
  }
  try {
    await client.connect()
  } catch (error) {
    await end()
    options.signal?.throwIfAborted()
    throw new ServerUnreachable(reasonOf(error), address, error)
  }
  return {
    query: async (text, values = []) => (await client.query(text, [...values])).rows as Row[],
    get open() {
      return open
    },
    end,
  }
}

function reasonOf(error: unknown): ServerUnreachable['reason'] {
  const { code, message = '' } = error as { code?: string; message?: string }
  if (code === 'ECONNREFUSED') return 'refused'
  if (code === 'ETIMEDOUT' || code === 'EHOSTUNREACH' || /timeout/i.test(message)) return 'timed_out'
  if (code === '57P03') return 'starting_up'
  if (code === '53300') return 'too_many_connections'
  if (code === '28P01' || code === '28000') return 'authentication'
  if (isOfTls(code, message)) return 'tls'
  return 'other'
}

/**
 * OpenSSL's words for why it does not believe a certificate (X509_V_ERR without its beginning), and Node's own.
 *
 * @see https://nodejs.org/docs/latest-v20.x/api/tls.html#x509-certificate-error-codes
 */
const isOfTls = (code = '', message: string) =>
  /^(ERR_TLS_|ERR_SSL_|CERT_|CRL_|UNABLE_TO_|SELF_SIGNED_|DEPTH_ZERO_|ERROR_IN_CERT|INVALID_(CA|PURPOSE)|HOSTNAME_MISMATCH|PATH_LENGTH)/.test(
    code,
  ) || message === 'The server does not support SSL connections'
