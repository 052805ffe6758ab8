import { NodeSSH } from 'node-ssh'
import type { Client } from 'ssh2'
import { AuthenticationFailed, HostKeyMismatch, HostUnreachable, type Where } from './errors.js'
import {
  ALGORITHMS,
  describeHostKey,
  familyOf,
  type HostKey,
  KEY_FAMILIES,
  type KeyFamily,
  matchesPin,
} from './host-key.js'

export type Identity = { privateKey: string } | { agent: string /* path of the agent's socket */ }

export interface HostAddress {
  host: string
  port: number
  user: string
  /** The pin: `SHA256:…` of any one of the host's keys. */
  hostKey: string
}

export interface ConnectOptions {
  identity: Identity
  connectTimeoutMs: number
  keepaliveIntervalMs: number
  keepaliveCountMax: number
  /** Which of the host's keys matched last time: asked for first. */
  family?: KeyFamily
}

/** Why a host is as good as not there that has only an SHA-1 or a DSA key to show. */
export const NO_HOST_KEY = `it has no host key of a type that is accepted: ${KEY_FAMILIES.join(', ')}`

export interface Connection {
  client: Client
  family: KeyFamily
}

/**
 * Opens one connection to the host that holds the pinned key.
 *
 * A host offers the key that the client likes best, so a pin of its RSA key would look like another host. The families
 * are therefore tried one after the other, and only a host that shows the pinned key in none of them is a stranger.
 * Throws HostUnreachable, HostKeyMismatch or AuthenticationFailed.
 */
export async function connect(address: HostAddress, options: ConnectOptions): Promise<Connection> {
  const offered: HostKey[] = []
  let families = [...KEY_FAMILIES].sort((a, b) => Number(b === options.family) - Number(a === options.family))
  for (;;) {
    const attempt = await handshake(address, families, key => matchesPin(key, address.hostKey), options)
    if ('client' in attempt) return { client: attempt.client, family: familyOf(attempt.key.type) }
    if (attempt.error) throw attempt.error
    const { refused } = attempt
    if (refused) offered.push(refused)
    const left = families.filter(family => refused && family !== familyOf(refused.type))
    // Also a host that shows a key of another type than it was asked for: every round must leave fewer.
    const noneLeft = left.length === 0 || left.length === families.length
    if (noneLeft && offered.length > 0) throw new HostKeyMismatch(address, address.hostKey, offered)
    if (noneLeft) throw new HostUnreachable(address, NO_HOST_KEY)
    families = left
  }
}

/** Returns the host's key of one family without logging in, undefined when it has none. Throws HostUnreachable. */
export async function offeredKey(
  where: { host: string; port: number },
  family: KeyFamily,
  timeoutMs: number,
): Promise<HostKey | undefined> {
  const limits = { connectTimeoutMs: timeoutMs, keepaliveIntervalMs: 0, keepaliveCountMax: 0 }
  const attempt = await handshake({ ...where, user: 'understudy' }, [family], () => false, limits)
  if ('client' in attempt) throw new Error('a connection came about that should have been refused')
  if (attempt.error) throw attempt.error
  return attempt.refused
}

type Attempt =
  | { client: Client; key: HostKey }
  | { refused?: HostKey; noSuchKey?: boolean; error?: HostUnreachable | AuthenticationFailed }

async function handshake(
  where: Where & { user: string },
  families: readonly KeyFamily[],
  accepts: (key: Buffer) => boolean,
  options: Omit<ConnectOptions, 'identity'> & { identity?: Identity },
): Promise<Attempt> {
  const ssh = new NodeSSH()
  let shown: HostKey | undefined
  let refused: HostKey | undefined
  const ready = ssh.connect({
    ...options.identity,
    host: where.host,
    port: where.port,
    username: where.user,
    readyTimeout: options.connectTimeoutMs,
    keepaliveInterval: options.keepaliveIntervalMs,
    keepaliveCountMax: options.keepaliveCountMax,
    algorithms: { serverHostKey: families.flatMap(family => ALGORITHMS[family]) },
    // Without this any key is accepted. Asked again at every re-keying of a connection.
    hostVerifier: (key: Buffer) => {
      shown = describeHostKey(key)
      if (accepts(key)) return true
      refused = shown
      return false
    },
  })
  // node-ssh takes its own listener away when the connection is ready: a reset would then end the process. The client
  // is there as soon as connect() has been called, so there is no moment without a listener.
  const client = ssh.connection
  client?.on('error', () => {})
  try {
    await ready
    if (!client || !shown) throw new Error('connected without a host key')
    // A command is several small packets each way. With Nagle's algorithm each waits 40 ms for a delayed acknowledgement.
    client.setNoDelay(true)
    return { client, key: shown }
  } catch (error) {
    client?.destroy()
    if (refused) return { refused }
    return explain(where, error as SshError, options.connectTimeoutMs)
  }
}

type SshError = Error & { level?: string; code?: string | number }

function explain(where: Where, error: SshError, timeoutMs: number): Attempt {
  if (/no matching host key format/.test(error.message)) {
    return { noSuchKey: true }
  }
  if (error.level === 'client-authentication' || error.level === 'agent' || /privateKey/.test(error.message))
    return { error: new AuthenticationFailed(where, lowerFirst(error.message), error) }
  return { error: new HostUnreachable(where, reason(error, timeoutMs), error) }
}

function reason(error: SshError, timeoutMs: number): string {
  if (error.level === 'client-timeout') return `no answer within ${timeoutMs} ms`
  switch (error.code) {
    case 'ECONNREFUSED':
      return 'the connection was refused'
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return 'its name could not be resolved'
    case 'EHOSTUNREACH':
    case 'ENETUNREACH':
      return 'there is no route to it'
    case 'ETIMEDOUT':
      // node-ssh's own code for a connection that closed before it was ready.
      return error.level === undefined ? 'it closed the connection at once' : 'the connection timed out'
    default:
      return lowerFirst(error.message)
  }
}

function lowerFirst(text: string): string {
  return text.slice(0, 1).toLowerCase() + text.slice(1)
}
