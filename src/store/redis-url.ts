/** Where Redis is, as one text: a server, a socket, or the sentinels that know which server it is now. */
import type { RedisOptions } from 'ioredis'

/**
 * `redis://[user:password@]host[:port][/db]`, `rediss://…` over TLS, `unix:/path/to/socket`, or
 * `redis+sentinel://[user:password@]host:port,host:port,…/name[/db][?sentinelUsername=…&sentinelPassword=…]`, where `name`
 * is what the sentinels call the master, and `rediss+sentinel://` for TLS to the sentinels and to the servers.
 */
export type RedisUrl = string

export const REDIS_URL_PATTERN =
  '^(rediss?://|unix:/|rediss?\\+sentinel://([^@/?]*@)?[^@/?,]+(,[^@/?,]+)*/[^/?]+(/\\d{1,5})?(\\?.*)?$)'

const SENTINEL_PORT = 26_379

type Where = Pick<
  RedisOptions,
  | 'sentinels'
  | 'name'
  | 'role'
  | 'failoverDetector'
  | 'username'
  | 'password'
  | 'db'
  | 'sentinelUsername'
  | 'sentinelPassword'
  | 'tls'
  | 'enableTLSForSentinelMode'
>

/** What ioredis is given to connect: first a URL or a path where it reads that itself, then options. */
export function connectionOf(url: RedisUrl): { target: string | undefined; options: Where } {
  if (url.startsWith('unix:')) return { target: url.slice('unix:'.length), options: {} }
  const parts = /^(rediss?)\+sentinel:\/\/(?:([^@/?]*)@)?([^@/?]+)\/([^/?]+)(?:\/(\d+))?(?:\?(.*))?$/.exec(url)
  if (!parts) return { target: url, options: {} }
  const [, scheme, login = '', hosts = '', name = '', db, query = ''] = parts
  const [username = '', password = ''] = login.split(/:(.*)/s).map(decodeURIComponent)
  const more = new URLSearchParams(query)
  const sentinelUsername = more.get('sentinelUsername')
  const sentinelPassword = more.get('sentinelPassword')
  return {
    target: undefined,
    options: {
      sentinels: hosts.split(',').map(sentinelOf),
      name: decodeURIComponent(name),
      role: 'master',
      // A master that hangs keeps its connections open: told by the sentinels, we leave it.
      failoverDetector: true,
      ...(username === '' ? {} : { username }),
      ...(password === '' ? {} : { password }),
      ...(db === undefined ? {} : { db: Number(db) }),
      ...(sentinelUsername === null ? {} : { sentinelUsername }),
      ...(sentinelPassword === null ? {} : { sentinelPassword }),
      ...(scheme === 'rediss' ? { tls: {}, enableTLSForSentinelMode: true } : {}),
    },
  }
}

/** `host`, `host:port`, `[address]:port`. */
function sentinelOf(text: string): { host: string; port: number } {
  const [, bracketed, plain, port] = /^(?:\[([^\]]+)\]|([^:]+))(?::(\d+))?$/.exec(text) ?? []
  const host = bracketed ?? plain
  if (host === undefined) throw new TypeError(`${JSON.stringify(text)} is no address of a sentinel`)
  return { host, port: port === undefined ? SENTINEL_PORT : Number(port) }
}
