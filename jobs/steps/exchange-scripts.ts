/** What the exchange of roles runs on the two hosts. Each is repeatable: its answer may get lost. */
import { type Lsn, parseLsn } from '../../src/cluster/lsn.js'
import { readServerProcess, type ServerProcess } from '../../src/postgres/server-process.js'
import { WORKING_IN } from './processes.js'

/** How a server was found after it was told to stop. */
export interface Stopped {
  /** What still keeps it from ending; empty where it has ended. */
  busy: ServerProcess[]
  /** Segments that its archive does not have yet. */
  waitingSegments: number
  /** Of the time for the whole exchange, counted on its host from when it was told. */
  leftMs: number
  /** "shut down" where its last checkpoint is the last thing in its WAL. */
  state: string
  /** Where that checkpoint's record begins. */
  checkpoint: Lsn
}

/** The server's own processes: a shell that stands in the directory writes nothing. */
export const SERVERS_IN = `${WORKING_IN}
servers_in() { working_in "$1" | sed -n 's/^\\([0-9]*\\) (postgres)$/\\1/p'; }`

/**
 * `standby.signal` is as old as the stop: a later worker's time has begun with it. Where the server still accepts
 * connections (postmaster.pid says "ready") it was not told yet.
 *
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
elif [ "$(sed -n '8s/ *$//p' "$data/postmaster.pid" 2>/dev/null)" = ready ]; then touch "$signal"
fi
sync "$signal" "$data" || give_up "$signal cannot be written"
begun=$(date -r "$signal" +%s%3N) now=$(date +%s%3N)
[ "$begun" -le "$now" ] || begun=$now
end=$((begun + limit))
pid=$(head -n 1 "$data/postmaster.pid" 2>/dev/null)
if [ -n "$pid" ] && [ "$(readlink "/proc/$pid/cwd" 2>/dev/null)" = "$(readlink -f "$data")" ]; then
  kill -INT "$pid"
  while [ -d "/proc/$pid" ] && [ "$(date +%s%3N)" -lt "$end" ]; do sleep 0.01; done
fi
for left in $(servers_in "$data"); do
  tr '\\0' ' ' <"/proc/$left/cmdline" 2>/dev/null | sed -n "s/^\\(..*\\)$/busy=$left \\1/p"
  echo
done
echo "waiting=$(ls "$data/pg_wal/archive_status" 2>/dev/null | grep -c '\\.ready$')"
echo "left=$((end - $(date +%s%3N)))"
"$control" "$data" | sed -n -e 's/^Database cluster state: */state=/p' -e 's/^Latest checkpoint location: */checkpoint=/p'`

export function parseStopped(output: string): Stopped {
  const fields = output.split('\n').map(line => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)])
  const field = (name: string) => fields.find(([key]) => key === name)?.[1]
  return {
    busy: fields.flatMap(([key, value = '']) => {
      const [, pid, title = ''] = /^(\d+) (.*)$/.exec(value) ?? []
      return key === 'busy' && pid !== undefined ? [readServerProcess(Number(pid), title)] : []
    }),
    waitingSegments: Number(field('waiting') ?? 0),
    leftMs: Math.max(Number(field('left') ?? 0), 0),
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
