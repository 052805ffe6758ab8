/** pg_hba.conf: one managed block, first in the file, because the first line that matches decides. Pure. */
import { isIP } from 'node:net'
import { asManagedBlock } from './managed-block.js'

export interface HbaAccess {
  /** Addresses or names of the cluster's nodes: each is a client and a replication client of each. */
  nodes: readonly string[]
  /** Addresses under which the hosts see the service. */
  controllers: readonly string[]
}

/** Every entry wants a password by SCRAM; only the local superuser comes in by being the postgres user. */
export function managedBlock({ nodes, controllers }: HbaAccess): string {
  const line = (database: string, address: string) =>
    `host    ${database.padEnd(12)} repmgr    ${mask(address).padEnd(24)} scram-sha-256`
  return asManagedBlock([
    'local   all          postgres                           peer',
    ...unique(nodes).flatMap(address => [line('repmgr', address), line('replication', address)]),
    ...unique(controllers).map(address => line('repmgr', address)),
  ])
}

/** A host may be called "all", but its name must not let everybody in: quoted, a keyword is a name. */
const KEYWORD = /^(all|samehost|samenet)$/i

function mask(address: string): string {
  const family = isIP(address)
  if (family !== 0) return `${address}/${family === 4 ? 32 : 128}`
  return KEYWORD.test(address) ? `"${address}"` : address
}

const unique = (values: readonly string[]) => [...new Set(values)].sort()
