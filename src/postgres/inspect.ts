/** What is on a host where a server is to be: read in one round trip, changing nothing. */
import type { Host, RunOptions } from '../host/host.js'
import { ARCHIVE_PROGRAM } from './archive.js'
import type { Layout } from './layout.js'
import { nodeSshFiles } from './node-ssh.js'
import { type InForce, SHARED_SETTINGS } from './shared-settings.js'
import { HELD_MARK } from './start-conf.js'

/**
 * How far a server of ours was built; written to the host before each change that could be cut short.
 * creating: half-made, holds nothing. created: fresh from initdb, never started. cloning: a copy is being made, or was
 * cut short. in-use: it was started, or holds a whole copy. removed: it was taken out of its cluster, and its data are kept.
 * wiping: it is being wiped on demand. Only what is not in-use, and was never started, is ever emptied without being asked.
 */
export interface Marker {
  cluster: string
  node: string
  state: 'creating' | 'created' | 'cloning' | 'in-use' | 'removed' | 'wiping'
}

export interface ServerState {
  /** Versions of the packages that are installed. */
  packages: Record<string, string>
  configured: boolean
  directory: 'absent' | 'empty' | 'database' | 'other'
  marker: Marker | undefined
  /** The marker is not on the host yet: it is an adopted server that no operation has marked so far. */
  unmarked?: boolean
  systemIdentifier: string | undefined
  /**
   * Of a primary that answers, the timeline that it writes. Otherwise the newest that this copy has seen: in its control
   * file, in the names of its WAL and history files, from the server that it streams from. The control file alone lags
   * until the next checkpoint. Undefined where there is nothing to read.
   */
  timeline?: number
  standbySignal: boolean
  /** The slot that this copy streams through, where its clone was told one: it has the number of the node that it was made for. */
  upstreamSlot?: string
  /**
   * Whether a server was ever started on this very data directory: PostgreSQL writes `postmaster.opts` at each start and
   * neither initdb nor a base backup brings one. It tells what the marker cannot know: what somebody did meanwhile.
   */
  everStarted: boolean
  running: boolean
  /** Undefined where the server does not run or does not answer its own superuser. */
  inRecovery: boolean | undefined
  /**
   * What it runs with of the settings that a standby must match (`SHARED_SETTINGS`). Of a server that is stopped, what its
   * control file has: with a primary what it ran with last, with a standby what its primary did.
   */
  inForce: InForce
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
  /** A key of ours for SSH between the nodes. */
  hasNodeKey?: boolean
  /** The script of our WAL archive. */
  hasArchive?: boolean
  /** What Debian does with it at a boot, by its start.conf. held: `manual`, written when this service was told to stop it. */
  startMode?: 'auto' | 'manual' | 'disabled' | 'held'
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

/** Promoted since this was read: it is an error, and the next look says more. */
const TIMELINE = `SELECT CASE WHEN pg_is_in_recovery()
  THEN 'timeline=' || (SELECT received_tli FROM pg_stat_wal_receiver)
  ELSE 'writes=' || ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint END`

const SCRIPT = `
version=$1 data=$2 conf=$3 marker=$4 port=$5 used=$6 repmgr=$7 key=$8 archive=$9 bin=/usr/lib/postgresql/$1/bin
shift 9
dpkg-query -W -f 'package=\${Package} \${db:Status-Status} \${Version}\\n' "$@" 2>/dev/null
# In words of the shell itself: to start a program costs more than what it does here.
joined() {
  whole=
  while IFS= read -r line || [ -n "$line" ]; do whole=$whole$line; done <"$1"
  printf '%s\\n' "$whole"
}
[ -f "$conf/postgresql.conf" ] && echo configured=yes
if [ ! -d "$data" ]; then echo directory=absent
elif [ -f "$data/PG_VERSION" ]; then echo directory=database
elif [ -z "$(ls -A "$data")" ]; then echo directory=empty
else echo directory=other; fi
[ -f "$marker" ] && echo "marker=$(joined "$marker")"
[ -f "$data/standby.signal" ] && echo standby=yes
[ -f "$data/postgresql.auto.conf" ] &&
  sed -n -e "/^primary_slot_name *= *'\\([a-z0-9_]*\\)'.*/{s//slot=\\1/;h;}" -e '\${x;/./p;}' "$data/postgresql.auto.conf"
[ -f "$data/global/pg_control" ] && [ -x "$bin/pg_controldata" ] &&
  "$bin/pg_controldata" "$data" | sed -n -e 's/^Database system identifier: */identifier=/p' \\
    -e "s/^Latest checkpoint's TimeLineID: */timeline=/p" -e "s/^Min recovery ending loc's timeline: */timeline=/p" \\
    -e '/^max_/{s/ setting: */ /;s/xacts/transactions/;s/xact/transaction/;s/^/setting=/p;}'
if [ -d "$data/pg_wal" ]; then
  newest=$(ls -r "$data/pg_wal/" | sed -n -E '/^([0-9A-F]{8})([0-9A-F]{16}(\\.partial)?|\\.history)$/{s//\\1/p;q;}')
  [ -z "$newest" ] || echo "timeline=$((0x$newest))"
fi
if [ -e "$data/postmaster.opts" ] || [ -e "$data/postmaster.pid" ]; then echo started=yes; fi
pid= actual=
[ -f "$data/postmaster.pid" ] && { read -r pid; read -r _; read -r _; read -r actual; } <"$data/postmaster.pid"
# Not by its program, which an upgrade replaces under a living server: a postmaster stays in its data directory.
if [ -n "$pid" ] && [ "/proc/$pid/cwd" -ef "$data" ]; then
  echo running=yes
  # One psql for all of it. A statement that fails is left out.
  printf '%s\\n' "SELECT 'recovery=' || CASE WHEN pg_is_in_recovery() THEN 't' ELSE 'f' END;" "SELECT 'used=' || ($used);" \\
    "${TIMELINE};" "SELECT 'setting=' || name || ' ' || setting FROM pg_settings
      WHERE name IN (${SHARED_SETTINGS.map(name => `'${name}'`).join(', ')});" \\
    '\\c template1' "SELECT 'used=' || ($used);" |
    timeout 10 sudo -n -u postgres "$bin/psql" -XAtqw -p "$actual" -d postgres 2>/dev/null
fi
for other in /var/lib/understudy/postgresql-*-main.json; do
  [ "$other" = "$marker" ] || [ ! -f "$other" ] || echo "other=$(joined "$other")"
done
[ -f "$repmgr" ] && ! grep -q '^# Managed by Understudy' "$repmgr" && echo foreign-repmgr-conf=yes
[ -e "$key" ] && echo node-key=yes
[ -e "$archive" ] && echo archive=yes
# As Debian reads it: the first word that is no comment, and none is auto.
[ -f "$conf/start.conf" ] && awk -v mark='${HELD_MARK}' 'index($0, mark) == 1 { held = 1 }
  { sub(/#.*/, ""); gsub(/^ +| +$/, "") }
  mode == "" && /^(auto|manual|disabled)$/ { mode = $0 }
  END { if (mode != "") print "start=" (held && mode == "manual" ? "held" : mode) }' "$conf/start.conf"
if command -v pg_lsclusters >/dev/null; then
  alone=yes
  for other in /etc/postgresql/*/*/postgresql.conf; do [ "$other" = "$conf/postgresql.conf" ] || alone=no; done
  # Debian's own tool takes ten times as long as the rest here. It is asked where the answer is not plain to see.
  plain="data_directory = '$data'
include_dir = 'conf.d'"
  if [ $alone = yes ] && [ "$(sed -n -E -e 's/[[:space:]]*#.*//' -e '/^[[:space:]]*(data_directory|include)/Ip' \\
    "$conf/postgresql.conf" "$conf"/conf.d/*.conf 2>/dev/null)" = "$plain" ]; then
    printf 'lives=%s\\n' "$data"
  else
    pg_lsclusters -h | awk -v port="$port" -v own="$version main" '
      ($1 " " $2) == own { print "lives=" $6; next }
      $3 == port { print "taken=" $1 "/" $2 }'
  fi
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
        nodeSshFiles(layout).privateKey,
        ARCHIVE_PROGRAM,
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
  const inForce: Record<string, number> = {}
  const timelines: number[] = []
  const used: string[] = []
  for (const line of stdout.split('\n')) {
    const equals = line.indexOf('=')
    const [key, value] = [line.slice(0, equals), line.slice(equals + 1)]
    if (key === 'setting') {
      const [name = '', setting] = value.split(' ')
      inForce[name] = Number(setting)
    } else if (key === 'timeline') timelines.push(Number(value))
    else if (key === 'used') used.push(value)
    else if (key === 'other') otherClusters.push((JSON.parse(value) as Marker).cluster)
    else if (key !== 'package') found.set(key, value)
    else {
      const [name, status, version] = value.split(' ')
      if (name && version && status === 'installed') packages[name] = version
    }
  }
  const recovery = found.get('recovery')
  const marker = found.get('marker')
  const slot = found.get('slot')
  const writes = found.get('writes')
  const timeline = writes === undefined ? Math.max(0, ...timelines) : Number(writes)
  return {
    packages,
    configured: found.get('configured') === 'yes',
    directory: (found.get('directory') ?? 'other') as ServerState['directory'],
    marker: marker === undefined ? undefined : (JSON.parse(marker) as Marker),
    systemIdentifier: found.get('identifier'),
    ...(timeline === 0 ? {} : { timeline }),
    standbySignal: found.get('standby') === 'yes',
    ...(slot === undefined ? {} : { upstreamSlot: slot }),
    everStarted: found.get('started') === 'yes',
    running: found.get('running') === 'yes',
    inRecovery: recovery === 't' ? true : recovery === 'f' ? false : undefined,
    inForce,
    untouched: used.join() === '0,0' && recovery === 'f' && marker === undefined,
    livesIn: found.get('lives'),
    otherClusters,
    foreignRepmgrConf: found.get('foreign-repmgr-conf') === 'yes',
    portTakenBy: found.get('taken'),
    hasNodeKey: found.get('node-key') === 'yes',
    hasArchive: found.get('archive') === 'yes',
    startMode: (found.get('start') ?? 'auto') as NonNullable<ServerState['startMode']>,
  }
}
