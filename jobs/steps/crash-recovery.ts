/**
 * Replaying what a crash has left, before anything is compared or rewound: pg_rewind wants a server that was shut down in
 * order, and what it does itself to get one fails on Debian, where the configuration is not in the data directory.
 *
 * The server is started as the standby that it is marked as, alone: no port, a socket in a folder that only postgres can
 * enter, nobody to stream from, no archive. A standby writes no WAL and accepts no writes, so there is no moment in which
 * it is a primary; it replays to the end of its own WAL and is ended. What was written before is kept whole.
 */
import type { ClusterNode } from '../../src/cluster/model.js'
import type { Command } from '../../src/host/command.js'
import { inspectDetached } from '../../src/host/detached.js'
import { detachedId, runDetached } from '../../src/host/detached-action.js'
import type { ChangeStep, Check } from '../../src/operations/step.js'
import type { Bench } from '../bench.js'
import { processesIn } from './processes.js'

const LIMIT_MS = 24 * 3_600_000

/** RecoveryRetrieveRetryInterval: it has replayed what there is, and waits for more. */
const RECOVER = `data=$1 bin=$2 conf=$3
control() { "$bin/pg_controldata" "$data" | sed -n 's/^Database cluster state: *//p'; }
case $(control) in 'shut down' | 'shut down in recovery') exit 0 ;; esac
[ -f "$data/standby.signal" ] || { echo "there is no standby.signal in $data" >&2; exit 1; }
own=$(mktemp -d /tmp/understudy-recovery.XXXXXXXX) || exit 1
trap 'rm -rf -- "$own"' EXIT
"$bin/postgres" -D "$data" -c "config_file=$conf/postgresql.conf" -c listen_addresses= -c "unix_socket_directories=$own" \\
  -c "external_pid_file=$own/pid" -c primary_conninfo= -c primary_slot_name= -c restore_command= -c archive_command= \\
  -c recovery_min_apply_delay=0 -c hot_standby=on -c default_transaction_read_only=on -c logging_collector=off -c ssl=off \\
  -c log_destination=stderr -c shared_preload_libraries= -c session_preload_libraries= -c wal_keep_size=1000GB \\
  -c max_slot_wal_keep_size=-1 </dev/null >"$own/log" 2>&1 &
server=$!
port=
while kill -0 "$server" 2>/dev/null; do
  port=$(sed -n 4p "$data/postmaster.pid" 2>/dev/null)
  waits=$("$bin/psql" -XAtqw -h "$own" -p "\${port:-5432}" -d postgres -c "SELECT wait_event FROM pg_stat_activity WHERE backend_type = 'startup'" 2>/dev/null)
  [ "$waits" != RecoveryRetrieveRetryInterval ] || { "$bin/pg_ctl" -D "$data" -m fast -w -t 3600 stop >/dev/null; break; }
  sleep 0.2
done
wait "$server"
tail -n 40 "$own/log"
case $(control) in 'shut down' | 'shut down in recovery') exit 0 ;; esac
echo "it did not come to the end of its recovery" >&2
exit 1`

export function recoverFromCrash(bench: Bench, node: ClusterNode): ChangeStep {
  const { layout, cluster } = bench
  const host = bench.host(node)
  const name = `${node.name}-recovery`
  const command: Command = {
    argv: [
      'sh',
      '-c',
      RECOVER,
      'understudy-recover',
      layout.dataDirectory,
      layout.binDirectory,
      layout.configDirectory,
    ],
    as: 'postgres',
    timeoutMs: LIMIT_MS,
    shownAs: `start it as a standby without port, upstream and archive (postgres -D ${layout.dataDirectory} -c config_file=${layout.configDirectory}/postgresql.conf -c listen_addresses= …), and stop it once its WAL is replayed`,
  }
  const state = async (signal: AbortSignal) => {
    const { stdout } = await host.run(
      { argv: [`${layout.binDirectory}/pg_controldata`, layout.dataDirectory], as: 'postgres', timeoutMs: 30_000 },
      { signal },
    )
    return /^Database cluster state: *(.*)$/m.exec(stdout)?.[1] ?? 'unreadable'
  }
  return {
    id: `${node.name}/recovery`,
    kind: 'change',
    title: 'replay what a crash has left, where no client can come in',
    node: node.name,
    actions: [runDetached(host, cluster.name, command, { name, stillStands: async () => false })],
    async check({ signal }): Promise<Check> {
      if ((await inspectDetached(host, detachedId(cluster.name, name), { signal })).state === 'running')
        return { done: false, reason: 'it is under way' }
      const { directory, marker, everStarted } = await bench.inspect(node, signal)
      if (directory !== 'database' || marker?.state === 'cloning' || !everStarted)
        return { done: true, note: 'there is nothing to replay' }
      const said = await state(signal)
      if (!/^shut down( in recovery)?$/.test(said)) return { done: false, reason: `its control file says "${said}"` }
      return (await processesIn(bench, node, signal)).length === 0
        ? { done: true, note: `its control file says "${said}"` }
        : { done: false, reason: 'it still runs' }
    },
  }
}
