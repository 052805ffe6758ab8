/** pg_hba.conf: one managed block, first in the file, because the first line that matches decides. Pure. */
import { isIP } from 'node:net'
import type { AccessEntry } from '../cluster/access.js'
import type { TlsPolicy } from '../cluster/tls.js'
import { asManagedBlock } from './managed-block.js'

export interface HbaAccess {
  /** Addresses or names of the cluster's nodes: each is a client and a replication client of each. */
  nodes: readonly string[]
  /** Addresses under which the hosts see the service. */
  controllers: readonly string[]
  /** Who else may come in, in the order in which it counts. */
  applications?: readonly AccessEntry[]
  /** Nodes and service by TLS only, and the applications too unless both are allowed. Undefined: with or without. */
  tls?: Pick<TlsPolicy, 'clients'>
}

/**
 * Only the local superuser comes in by being the postgres user; everybody else proves it by SCRAM. Ours come first: no
 * line of anybody else stands between a node and its primary.
 */
export function managedBlock({ nodes, controllers, applications = [], tls }: HbaAccess): string {
  const ours = (database: string, address: string) =>
    rule({ databases: [database], users: ['repmgr'], address, method: 'scram-sha-256' }, tls !== undefined)
  const clientsByTls = tls !== undefined && tls.clients !== 'allowed'
  return asManagedBlock([
    'local   all          postgres                           peer',
    ...unique(nodes).flatMap(address => [...ours('repmgr', address), ...ours('replication', address)]),
    ...unique(controllers).flatMap(address => ours('repmgr', address)),
    ...applications.flatMap(({ address, databases, users, replication, method = 'scram-sha-256' }) =>
      rule(
        {
          databases: replication ? ['replication'] : (databases?.map(name) ?? ['all']),
          users: users?.map(name) ?? ['all'],
          address,
          method,
        },
        clientsByTls,
      ),
    ),
  ])
}

interface Rule {
  databases: readonly string[]
  users: readonly string[]
  address: string
  method: string
}

/**
 * A rule for TLS alone does not fit a connection without, which would then be decided by what comes later: so a second line
 * turns that one away. Whoever is rejected is rejected either way.
 */
const rule = (what: Rule, byTls: boolean): string[] =>
  byTls && what.method !== 'reject'
    ? [line('hostssl', what), line('hostnossl', { ...what, method: 'reject' })]
    : [line('host', what)]

const line = (type: string, { databases, users, address, method }: Rule) =>
  `${type.padEnd(7)} ${databases.join(',').padEnd(12)} ${users.join(',').padEnd(9)} ${mask(address).padEnd(24)} ${method}`

/** Quoted, a keyword is a name, and so is what begins with a plus or an at sign; a quote is doubled. */
const quoted = (text: string) => `"${text.replaceAll('"', '""')}"`

const DATABASE_OR_ROLE_KEYWORD = /^(all|sameuser|samerole|samegroup|replication)$/
const name = (text: string) =>
  /^[a-z_][a-z0-9_]*$/.test(text) && !DATABASE_OR_ROLE_KEYWORD.test(text) ? text : quoted(text)

/** A host may be called "all", but its name must not let everybody in. */
const ADDRESS_KEYWORD = /^(all|samehost|samenet)$/i

function mask(address: string): string {
  const family = isIP(address)
  if (family !== 0) return `${address}/${family === 4 ? 32 : 128}`
  return ADDRESS_KEYWORD.test(address) ? quoted(address) : address
}

const unique = (values: readonly string[]) => [...new Set(values)].sort()
