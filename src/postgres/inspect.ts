/** What is on a host where a server is to be: read in one round trip, changing nothing. */
import type { Host, RunOptions } from '../host/host.js'
import type { Layout } from './layout.js'

/**
 * How far a server of ours was built; written to the host before each change that could be cut short.
 * creating: half-made, holds nothing. created: fresh from initdb, never started. cloning: a copy is being made, or was
 * cut short. in-use: it was started, or holds a whole copy. Only what is not in-use, and was never started, is ever wiped.
 */
export interface Marker {
  cluster: string
  node: string
  state: 'creating' | 'created' | 'cloning' | 'in-use'
}

export interface ServerState {
  /** Versions of the packages that are installed. */
  packages: Record<string, string>
  configured: boolean
  directory: 'absent' | 'empty' | 'database' | 'other'
  marker: Marker | undefined
  systemIdentifier: string | undefined
  standbySignal: boolean
  /**
   * Whether a server was ever started on this very data directory: PostgreSQL writes `postmaster.opts` at each start and
   * neither initdb nor a base backup brings one. It tells what the marker cannot know: what somebody did meanwhile.
   */
  everStarted: boolean
  running: boolean
  /** Undefined where the server does not run or does not answer its own superuser. */
  inRecovery: boolean | undefined
  /** A server that the package made by itself and nobody has used. */
  untouched: boolean
  /** Where the configuration of this server says that its data are; undefined where there is no configuration. */
  livesIn: string | undefined
  /** Clusters whose servers of other versions are on this host. */
  otherClusters: string[]
  /** A repmgr.conf that we did not write. */
  foreignRepmgrConf: boolean
  /** Another server of this host that has the port: its `version/name`. */
  portTakenBy: string | undefined
}

/**
 * Counts what somebody could have made: databases, roles, tables, large objects. A package's own server has none. Asked
 * of `postgres` and `template1`, the two that an empty server lets one connect to.
 */
const USED = `SELECT (SELECT count(*) FROM pg_database WHERE datname NOT IN ('postgres','template0','template1'))
 + (SELECT count(*) FROM pg_roles WHERE rolname !~ '^pg_' AND rolname <> 'postgres')
 + (SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema')
 + (SELECT count(*) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
     WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema')
 + (SELECT count(*) FROM pg_largeobject_metadata)
 + (SELECT count(*) FROM pg_replication_slots) + (SELECT count(*) FROM pg_stat_replication)`

const SCRIPT = `
version=$1 data=$2 conf=$3 marker=$4 port=$5 used=$6 repmgr=$7 bin=/usr/lib/postgresql/$1/bin
shift 7
for package in "$@"; do
  dpkg-query -W -f 'package=\${Package} \${db:Status-Status} \${Version}\\n' "$package" 2>/dev/null || true
done
[ -f "$conf/postgresql.conf" ] && echo configured=yes
if [ ! -d "$data" ]; then echo directory=absent
elif [ -f "$data/PG_VERSION" ]; then echo directory=database
elif [ -z "$(ls -A "$data")" ]; then echo directory=empty
else echo directory=other; fi
[ -f "$marker" ] && echo "marker=$(tr -d '\\n' <"$marker")"
[ -f "$data/standby.signal" ] && echo standby=yes
[ -f "$data/global/pg_control" ] && [ -x "$bin/pg_controldata" ] &&
  "$bin/pg_controldata" "$data" | sed -n 's/^Database system identifier: */identifier=/p'
if [ -e "$data/postmaster.opts" ] || [ -e "$data/postmaster.pid" ]; then echo started=yes; fi
pid=$(head -n 1 "$data/postmaster.pid" 2>/dev/null || true)
# Not by its program, which an upgrade replaces under a living server: a postmaster stays in its data directory.
if [ -n "$pid" ] && [ "$(readlink "/proc/$pid/cwd" 2>/dev/null)" = "$(readlink -f "$data")" ]; then
  echo running=yes
  actual=$(sed -n 4p "$data/postmaster.pid")
  ask() { timeout 5 sudo -n -u postgres "$bin/psql" -XAtqw -p "$actual" -d "$1" -c "$2" 2>/dev/null; }
  echo "recovery=$(ask postgres 'SELECT pg_is_in_recovery()')"
  echo "used=$(ask postgres "$used") $(ask template1 "$used")"
fi
for other in /var/lib/understudy/postgresql-*-main.json; do
  [ "$other" = "$marker" ] || [ ! -f "$other" ] || echo "other=$(tr -d '\\n' <"$other")"
done
[ -f "$repmgr" ] && ! grep -q '^# Managed by Understudy' "$repmgr" && echo foreign-repmgr-conf=yes
if command -v pg_lsclusters >/dev/null; then
  pg_lsclusters -h | awk -v own="$version main" '($1 " " $2) == own { print "lives=" $6 }'
  pg_lsclusters -h | awk -v port="$port" -v own="$version main" '$3 == port && ($1 " " $2) != own { print "taken=" $1 "/" $2 }'
fi
exit 0
`

export async function inspectServer(
  host: Host,
  layout: Layout,
  port: number,
  options: RunOptions = {},
): Promise<ServerState> {
  const { stdout } = await host.run(
    {
      argv: [
        'sh',
        '-c',
        SCRIPT,
        'understudy-inspect',
        String(layout.version),
        layout.dataDirectory,
        layout.configDirectory,
        layout.marker,
        String(port),
        USED,
        layout.repmgrConf,
        ...layout.packages,
      ],
      as: 'root',
      timeoutMs: 30_000,
    },
    options,
  )
  const found = new Map<string, string>()
  const packages: Record<string, string> = {}
  const otherClusters: string[] = []
  for (const line of stdout.split('\n')) {
    const equals = line.indexOf('=')
    const [key, value] = [line.slice(0, equals), line.slice(equals + 1)]
    if (key === 'other') otherClusters.push((JSON.parse(value) as Marker).cluster)
    else if (key !== 'package') found.set(key, value)
    else {
      const [name, status, version] = value.split(' ')
      if (name && version && status === 'installed') packages[name] = version
    }
  }
  const recovery = found.get('recovery')
  const marker = found.get('marker')
  return {
    packages,
    configured: found.get('configured') === 'yes',
    directory: (found.get('directory') ?? 'other') as ServerState['directory'],
    marker: marker === undefined ? undefined : (JSON.parse(marker) as Marker),
    systemIdentifier: found.get('identifier'),
    standbySignal: found.get('standby') === 'yes',
    everStarted: found.get('started') === 'yes',
    running: found.get('running') === 'yes',
    inRecovery: recovery === 't' ? true : recovery === 'f' ? false : undefined,
    untouched: found.get('used') === '0 0' && recovery === 'f' && marker === undefined,
    livesIn: found.get('lives'),
    otherClusters,
    foreignRepmgrConf: found.get('foreign-repmgr-conf') === 'yes',
    portTakenBy: found.get('taken'),
  }
}
