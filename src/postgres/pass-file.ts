/** Our part of the .pgpass file of the postgres user: what else stands in it is somebody's. */
import { asManagedBlock } from './managed-block.js'

const escapeField = (value: string) => value.replaceAll('\\', '\\\\').replaceAll(':', '\\:')

/** A line for each host, for the repmgr database and for replication. */
export function passFile(hosts: readonly string[], port: number, password: string): string {
  const line = (host: string, database: string) =>
    [host, String(port), database, 'repmgr', password].map(escapeField).join(':')
  return asManagedBlock([...hosts].sort().flatMap(host => [line(host, 'repmgr'), line(host, 'replication')]))
}
