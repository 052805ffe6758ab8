/**
 * Who may come in over the network besides the nodes and the service: the applications of a cluster. What becomes of it
 * on a server is in src/postgres/hba.ts.
 */
import { isIP } from 'node:net'
import ipaddr from 'ipaddr.js'
import { type Static, Type } from 'typebox'

const Name = (description: string, example: string) =>
  Type.String({ minLength: 1, maxLength: 63, description, examples: [example] })

export const ADDRESS_PATTERN = '^[A-Za-z0-9:][A-Za-z0-9.:/_-]{0,254}$'

export const Address = Type.String({
  pattern: ADDRESS_PATTERN,
  description:
    'An address, a range of them (`10.1.0.0/16`), or a host name, which counts only where the server finds the name for the address and the address for the name.',
  examples: ['10.1.0.0/16'],
})

/** Without `trust`, `password` and `md5`: who may come in proves it, and no password crosses the network readable. */
export const AccessMethod = Type.Enum(['scram-sha-256', 'reject'], {
  default: 'scram-sha-256',
  title: 'AccessMethod',
  description: 'scram-sha-256: with a password. reject: not at all.',
})

export const AccessEntry = Type.Object(
  {
    address: Address,
    databases: Type.Optional(
      Type.Array(Name('A database. Names only, no keywords: `all` is a database of that name.', 'orders'), {
        minItems: 1,
        description: 'At most 24. Left out: every database.',
      }),
    ),
    users: Type.Optional(
      Type.Array(Name('A role. Names only, no keywords: `all` is a role of that name.', 'app'), {
        minItems: 1,
        description: 'At most 24. Left out: every role.',
      }),
    ),
    replication: Type.Optional(
      Type.Boolean({
        description: 'true: for physical replication connections, as backup tools make them, in place of databases.',
      }),
    ),
    method: Type.Optional(AccessMethod),
  },
  {
    additionalProperties: false,
    title: 'AccessEntry',
    description: 'From where, to which databases, as which roles, and how they prove who they are.',
  },
)
export type AccessEntry = Static<typeof AccessEntry>

export const Access = Type.Array(AccessEntry, {
  description:
    'Who may come in over the network besides the nodes and this service; at most 100 entries. The first entry that fits decides; who fits none is decided by what else is in pg_hba.conf.',
})
export type Access = Static<typeof Access>

type Range = readonly [ipaddr.IPv4 | ipaddr.IPv6, number]
type Place = { kind: 'range'; range: Range } | { kind: 'name'; name: string }

/** What an address stands for, or in words why it is none. */
export function placeOf(address: string): Place | { kind: 'problem'; detail: string } {
  const problem = (detail: string) => ({ kind: 'problem', detail: `"${address}" ${detail}` }) as const
  const [host = '', prefix, ...more] = address.split('/')
  const family = isIP(host)
  if (family === 0) {
    if (prefix !== undefined) return problem('is no address before the slash.')
    // The server would read 10.1 as 10.0.0.1.
    if (/(^|\.)(\d+|0x[0-9a-f]*)$/i.test(host)) return problem('is neither a whole address nor a host name.')
    if (host.includes(':')) return problem('is no IPv6 address.')
    if (!/^[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*$/i.test(host))
      return problem('is no host name.')
    return { kind: 'name', name: host }
  }
  const parsed = ipaddr.parse(host)
  if (parsed instanceof ipaddr.IPv6 && parsed.isIPv4MappedAddress())
    return problem(`never fits: such a connection comes from ${parsed.toIPv4Address()}. Write that.`)
  const bits = family === 4 ? 32 : 128
  if (prefix === undefined) return { kind: 'range', range: [parsed, bits] }
  if (more.length > 0 || !/^(0|[1-9]\d{0,2})$/.test(prefix) || Number(prefix) > bits)
    return problem(`needs a number from 0 to ${bits} after the slash.`)
  const net = (family === 4 ? ipaddr.IPv4 : ipaddr.IPv6).networkAddressFromCIDR(address)
  if (net.toNormalizedString() !== parsed.toNormalizedString())
    return problem(
      `has bits set behind the first ${prefix}. Write ${net}/${prefix} for the range, or ${host} for the one address.`,
    )
  return { kind: 'range', range: [parsed, Number(prefix)] }
}

/** PostgreSQL 13 reads lines of up to 8191 bytes. */
const MAX_NAMES = 24
const MAX_ENTRIES = 100

/** Whether everybody at `inner` is at `outer` too. Of a name and an address nobody here can say. */
function covers(outer: Place, inner: Place): boolean {
  if (outer.kind === 'name') return inner.kind === 'name' && outer.name.toLowerCase() === inner.name.toLowerCase()
  if (inner.kind === 'name') return false
  const [net, bits] = outer.range
  const [address, innerBits] = inner.range
  if (net instanceof ipaddr.IPv4 && address instanceof ipaddr.IPv4) return innerBits >= bits && address.match(net, bits)
  if (net instanceof ipaddr.IPv6 && address instanceof ipaddr.IPv6) return innerBits >= bits && address.match(net, bits)
  return false
}

/** Whether some connection of ours, as repmgr to repmgr or as a replication client, fits the entry. */
const concernsUs = ({ users, databases, replication }: AccessEntry) =>
  (users === undefined || users.includes('repmgr')) &&
  (replication === true || databases === undefined || databases.includes('repmgr'))

/**
 * PostgreSQL cuts names after 63 bytes, so that a longer one never fits. One that begins with a slash is a regular
 * expression from version 16 on, quoted or not, and a line break cannot be written at all.
 *
 * @see https://www.postgresql.org/docs/current/auth-pg-hba-conf.html
 */
function wrongName(name: string): string | undefined {
  if (Buffer.byteLength(name) > 63 || /\p{Surrogate}/u.test(name)) return 'Names have at most 63 bytes of UTF-8.'
  if (/\p{Cc}/u.test(name)) return 'A control character cannot be written in pg_hba.conf.'
  return name.startsWith('/')
    ? 'What begins with a slash is read as a regular expression, and not as a name.'
    : undefined
}

/** Somebody that must always come in, and the address under which the servers see it. */
export interface Insider {
  name: string
  address: string
}

/**
 * What is wrong with a list that its schema cannot say: JSON pointer and sentence. Our own lines come before these, so
 * that an entry that says otherwise would not be obeyed; it is refused instead of being kept as a lie.
 */
export function accessProblems(
  access: Access,
  insiders: readonly Insider[],
  base = '/access',
): { pointer: string; detail: string }[] {
  return access.flatMap((entry, index) => {
    const at = `${base}/${index}`
    const found: { pointer: string; detail: string }[] = []
    const place = placeOf(entry.address)
    if (place.kind === 'problem') found.push({ pointer: `${at}/address`, detail: place.detail })
    if (index === MAX_ENTRIES) found.push({ pointer: base, detail: `There are more than ${MAX_ENTRIES} entries.` })
    for (const field of ['databases', 'users'] as const) {
      if ((entry[field]?.length ?? 0) > MAX_NAMES)
        found.push({ pointer: `${at}/${field}`, detail: `More than ${MAX_NAMES} names: use several entries.` })
      for (const [position, name] of (entry[field] ?? []).entries()) {
        const detail = wrongName(name)
        if (detail !== undefined) found.push({ pointer: `${at}/${field}/${position}`, detail })
      }
    }
    if (entry.replication === true && entry.databases !== undefined) {
      const detail = 'A replication connection has no database: leave "databases" out, and let another entry name them.'
      found.push({ pointer: `${at}/databases`, detail })
    }
    if (place.kind !== 'problem' && entry.method === 'reject' && concernsUs(entry)) {
      const locked = insiders.filter(({ address }) => {
        const inner = placeOf(address)
        return inner.kind !== 'problem' && (covers(place, inner) || covers(inner, place))
      })
      if (locked.length > 0) {
        const who = locked.map(({ name, address }) => `${name} (${address})`).join(', ')
        const detail = `It would lock out ${who}, which must come in as repmgr. Name the roles that are meant in "users", or a range without it.`
        found.push({ pointer: at, detail })
      }
    }
    return found
  })
}

/** Everybody that must always come in: the nodes, and the service from each address that the nodes have seen. */
export const insidersOf = (
  nodes: readonly { name: string; host: string }[],
  controllers: readonly string[],
): Insider[] => [
  ...nodes.map(({ name, host }) => ({ name, address: host })),
  ...[...new Set(controllers)].map(address => ({ name: 'this service', address })),
]
