/** pg_hba.conf: one managed block, first in the file, because the first line that matches decides. Pure. */
import { isIP } from 'node:net'
import type { AccessEntry } from '../cluster/access.js'
import { asManagedBlock } from './managed-block.js'

export interface HbaAccess {
  /** Addresses or names of the cluster's nodes: each is a client and a replication client of each. */
  nodes: readonly string[]
  /** Addresses under which the hosts see the service. */
  controllers: readonly string[]
  /** Who else may come in, in the order in which it counts. */
  applications?: readonly AccessEntry[]
}

/**
 * Only the local superuser comes in by being the postgres user; everybody else proves it by SCRAM. Ours come first: no
 * line of anybody else stands between a node and its primary.
 */
export function managedBlock({ nodes, controllers, applications = [] }: HbaAccess): string {
  const ours = (database: string, address: string) => line([database], ['repmgr'], address, 'scram-sha-256')
  return asManagedBlock([
    'local   all          postgres                           peer',
    ...unique(nodes).flatMap(address => [ours('repmgr', address), ours('replication', address)]),
    ...unique(controllers).map(address => ours('repmgr', address)),
    ...applications.map(({ address, databases, users, replication, method = 'scram-sha-256' }) =>
      line(
        replication ? ['replication'] : (databases?.map(name) ?? ['all']),
        users?.map(name) ?? ['all'],
        address,
        method,
      ),
    ),
  ])
}

const line = (databases: readonly string[], users: readonly string[], address: string, method: string) =>
  `host    ${databases.join(',').padEnd(12)} ${users.join(',').padEnd(9)} ${mask(address).padEnd(24)} ${method}`

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
