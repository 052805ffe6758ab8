/** What the exchange of roles runs on the two hosts. Each is repeatable: its answer may get lost. */
import { type Lsn, parseLsn } from '../../src/cluster/lsn.js'
import { AS_USER } from '../../src/host/drop.js'
import { WORKING_IN } from './processes.js'

/** How a server was found after it was told to stop. */
export interface Stopped {
  /** What still keeps it from ending, as the process table says it; empty where it has ended. */
  busy: string[]
  /** "shut down" where its last checkpoint is the last thing in its WAL. */
  state: string
  /** Where that checkpoint's record begins. */
  checkpoint: Lsn
}

/** The server's own processes: a shell that stands in the directory writes nothing. */
const SERVERS_IN = `${WORKING_IN}
servers_in() { working_in "$1" | sed -n 's/^\\([0-9]*\\) (postgres)$/\\1/p'; }`

/**
 * Only a whole stop counts: no process of the server is left in the data directory. What fails before it is told leaves
 * no `standby.signal` that was not there before: a mark that stayed would make the next restart a standby.
 */
export const STOP = `${SERVERS_IN}
data=$1 control=$2 limit=$3
signal="$data/standby.signal" made=
give_up() { [ -z "$made" ] || rm -f "$signal"; echo "$1" >&2; exit 1; }
[ -f "$data/PG_VERSION" ] || give_up "there is no database in $data"
if [ ! -f "$signal" ]; then
  made=yes
  install -o postgres -g postgres -m 0600 /dev/null "$signal" || give_up "$signal cannot be written"
fi
sync "$signal" "$data" || give_up "$signal cannot be written"
pid=$(head -n 1 "$data/postmaster.pid" 2>/dev/null)
if [ -n "$pid" ] && [ "$(readlink "/proc/$pid/cwd" 2>/dev/null)" = "$(readlink -f "$data")" ]; then
  kill -INT "$pid"
  end=$(($(date +%s%3N) + limit))
  while [ -d "/proc/$pid" ] && [ "$(date +%s%3N)" -lt "$end" ]; do sleep 0.01; done
fi
for left in $(servers_in "$data"); do
  tr '\\0' ' ' <"/proc/$left/cmdline" 2>/dev/null | sed -n 's/^\\(..*\\)$/busy=\\1/p'
  echo
done
"$control" "$data" | sed -n -e 's/^Database cluster state: */state=/p' -e 's/^Latest checkpoint location: */checkpoint=/p'`

export function parseStopped(output: string): Stopped {
  const fields = output.split('\n').map(line => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)])
  const field = (name: string) => fields.find(([key]) => key === name)?.[1]
  return {
    busy: fields.flatMap(([key, value]) => (key === 'busy' && value ? [value.trim()] : [])),
    state: field('state') ?? 'unreadable',
    checkpoint: parseLsn(field('checkpoint') ?? '0/0'),
  }
}

/**
 * A primary again, at once. QUIT: a clean end would take what has just been waited for in vain. INT, for a server that is
 * in recovery, turns into QUIT after ten seconds.
 */
export const GO_BACK = `${SERVERS_IN}
data=$1 unit=$2 how=$3
ended() {
  turn=0
  while [ -n "$(servers_in "$data")" ] && [ "$turn" -lt 20 ]; do sleep 0.5; turn=$((turn + 1)); done
  [ -z "$(servers_in "$data")" ]
}
pid=$(head -n 1 "$data/postmaster.pid" 2>/dev/null)
if [ -n "$pid" ] && [ "$(readlink "/proc/$pid/cwd" 2>/dev/null)" = "$(readlink -f "$data")" ] && [ -f "$data/standby.signal" ]; then
  kill "-$how" "$pid"
  ended || kill -QUIT "$pid"
fi
if [ -f "$data/standby.signal" ]; then
  ended || { kill -KILL $(servers_in "$data"); ended; } || { echo "still there: $(servers_in "$data")" >&2; exit 1; }
  rm -f "$data/standby.signal" && sync "$data" || exit 1
fi
# Its end may not have been seen yet.
for turn in 1 2 3 4 5 6 7 8 9 10; do
  [ -z "$(servers_in "$data")" ] || exit 0
  systemctl is-active -q "$unit" || break
  sleep 0.2
done
exec systemctl start --no-block "$unit"`

/** Beside the lock of the cluster, on the host of the standby: which operation has told it. */
export const promotionMark = (cluster: string) => `/var/lib/understudy/${cluster}.promotion`

/** Prints `told` where this operation has told it, `other` where another one has and nobody says that this is long past. */
export const MARK = `mark=$1 operation=$2 others=$3
[ -f "$mark" ] || exit 0
if [ "$(cat "$mark")" = "$operation" ]; then echo told
elif [ "$others" = forget ]; then rm -f "$mark"
else echo other; fi`

export const BEHIND = 'it has not replayed the last checkpoint of the old primary'
/** Printed before the mark is written: where it is missing, nothing was told. */
export const TELLING = 'understudy: telling it'

/**
 * Waits until the record that begins at `checkpoint` is replayed: the position after the last record is beyond its
 * beginning.
 */
export const replayQuery = (checkpoint: Lsn, waitMs: number) => `DO $$
BEGIN
  FOR turn IN 1..${Math.ceil(waitMs / 10)} LOOP
    EXIT WHEN NOT pg_is_in_recovery() OR pg_last_wal_replay_lsn() > '${checkpoint}'::pg_lsn;
    PERFORM pg_sleep(0.01);
  END LOOP;
  IF pg_is_in_recovery() AND NOT pg_last_wal_replay_lsn() > '${checkpoint}'::pg_lsn THEN
    RAISE EXCEPTION '${BEHIND}';
  END IF;
END $$`

export const PROMOTION_S = 60

/** The mark is on the disk before the server hears of it. Without a query it was told before, and is told again. */
export const PROMOTE = `${AS_USER}
psql=$1 port=$2 database=$3 mark=$4 operation=$5 query=$6
ask() { as_user postgres "$psql" -XAtqw -v ON_ERROR_STOP=1 -p "$port" -d "$database" -c "$1"; }
cd /
[ -z "$query" ] || ask "$query" || exit 1
echo '${TELLING}'
umask 077
echo "$operation" >"$mark.new" && sync "$mark.new" && mv -fT "$mark.new" "$mark" && sync "\${mark%/*}" || exit 1
ask 'SELECT CASE WHEN pg_is_in_recovery() THEN pg_promote(true, ${PROMOTION_S}) ELSE true END'`
