/** Where Debian and Ubuntu put the parts of one PostgreSQL server (postgresql-common's layout). */

export interface Layout {
  version: number
  /** Debian's name of the database cluster: one is enough, and `main` is what people look for. */
  clusterName: 'main'
  binDirectory: string
  dataDirectory: string
  configDirectory: string
  managedSettings: string
  /** Whether Debian starts the server at boot and after upgrades: `auto` or `manual`. */
  startConf: string
  hbaFile: string
  unit: string
  /** The server, and repmgr for it. */
  packages: readonly [string, string]
  home: string
  passFile: string
  repmgr: string
  repmgrConf: string
  /** What we know of this server before it can tell itself: whose it is and how far it was built. */
  marker: string
  /** Keeps the package from making and starting a server of its own. */
  createClusterConf: string
}

export function debianLayout(version: number): Layout {
  return {
    version,
    clusterName: 'main',
    binDirectory: `/usr/lib/postgresql/${version}/bin`,
    dataDirectory: `/var/lib/postgresql/${version}/main`,
    configDirectory: `/etc/postgresql/${version}/main`,
    managedSettings: `/etc/postgresql/${version}/main/conf.d/understudy.conf`,
    startConf: `/etc/postgresql/${version}/main/start.conf`,
    hbaFile: `/etc/postgresql/${version}/main/pg_hba.conf`,
    unit: `postgresql@${version}-main.service`,
    packages: [`postgresql-${version}`, `postgresql-${version}-repmgr`],
    home: '/var/lib/postgresql',
    passFile: '/var/lib/postgresql/.pgpass',
    repmgr: `/usr/lib/postgresql/${version}/bin/repmgr`,
    repmgrConf: '/etc/repmgr.conf',
    marker: `/var/lib/understudy/postgresql-${version}-main.json`,
    createClusterConf: '/etc/postgresql-common/createcluster.d/understudy.conf',
  }
}
