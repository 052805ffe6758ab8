/** Which packages make a server with repmgr, on Debian and Ubuntu. */
import type { Packages, WantedPackage } from '../cluster/packages.js'
import type { Layout } from './layout.js'

/**
 * The layout's packages bring what they depend on. Where a version is named, those that are built with them are named
 * too: a dependency alone would take the newest that any source has.
 */
export function wantedPackages({ version, packages: [server, repmgr] }: Layout, packages?: Packages): WantedPackage[] {
  const { postgresql, repmgr: repmgrVersion } = packages?.versions ?? {}
  const at = (wanted: string | undefined, ...names: string[]): WantedPackage[] =>
    names.map(name => ({ name, ...(wanted === undefined ? {} : { version: wanted }) }))
  return [
    ...at(postgresql, server, ...(postgresql === undefined ? [] : [`postgresql-client-${version}`])),
    ...at(repmgrVersion, repmgr, ...(repmgrVersion === undefined ? [] : ['repmgr-common'])),
  ]
}
