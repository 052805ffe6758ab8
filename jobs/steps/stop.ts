/** Ending a server, and the proof that it has ended. */
import type { ClusterNode } from '../../src/cluster/model.js'
import { act, putFile, runCommand } from '../../src/host/actions.js'
import { OperationError } from '../../src/operations/errors.js'
import type { Check, Step } from '../../src/operations/step.js'
import { HELD } from '../../src/postgres/start-conf.js'
import type { Bench } from '../bench.js'
import { until } from '../until.js'
import { processesIn } from './processes.js'

/** A shutdown writes a checkpoint: with much memory and slow disks that takes its time. */
const STOP_TIMEOUT_MS = 1_800_000

/** systemd's unit ends it in mode "fast". A server that was not started by its unit does not end with it. */
const SCRIPT = `unit=$1 version=$2 name=$3
if systemctl is-active -q "$unit"; then exec systemctl stop --no-block "$unit"; fi
pg_ctlcluster --skip-systemctl-redirect -m fast "$version" "$name" stop && exit 0
status=$?
# 2: it was not running.
[ "$status" -eq 2 ] || exit "$status"`

/** What Debian's systemd generator made of start.conf when systemd last looked; an upgrade of packages goes by that. */
const WANTED = `for link in /run/systemd/generator*/*.wants/"$1"; do
  [ ! -L "$link" ] || echo "$link"
done`

/**
 * Before a stop that is asked for by name: otherwise the next boot, or an upgrade of its packages, would start it again.
 * Of a primary that would make two, where another one was promoted meanwhile. Its start puts `auto` back.
 */
export function holdStopped(bench: Bench, node: ClusterNode): Step {
  const { layout } = bench
  const host = bench.host(node)
  const scope = bench.cluster.name
  return {
    id: `${node.name}/hold`,
    kind: 'change',
    title: 'let no boot start it again by itself',
    node: node.name,
    actions: [
      putFile(host, scope, { path: layout.startConf, content: HELD, owner: 'postgres:postgres', mode: '0644' }),
      runCommand(host, scope, { argv: ['systemctl', 'daemon-reload'], as: 'root', timeoutMs: 60_000 }),
    ],
    async check({ signal }): Promise<Check> {
      const { startMode } = await bench.inspect(node, signal)
      if (startMode === undefined || startMode === 'auto') return { done: false, reason: 'a boot starts it' }
      const { stdout } = await host.run(
        {
          argv: ['sh', '-c', WANTED, 'understudy-wanted', layout.unit],
          as: 'root',
          timeoutMs: 30_000,
          shownAs: 'see whether systemd still wants it started',
        },
        { signal },
      )
      return stdout.trim() === ''
        ? { done: true }
        : { done: false, reason: 'systemd has not read yet that it is not to be started' }
    },
  }
}

export function stopServer(bench: Bench, node: ClusterNode): Step {
  const { unit, version, clusterName } = bench.layout
  return {
    id: `${node.name}/stop`,
    kind: 'change',
    title: 'stop the server',
    node: node.name,
    actions: [
      runCommand(bench.host(node), bench.cluster.name, {
        argv: ['sh', '-c', SCRIPT, 'understudy-stop', unit, String(version), clusterName],
        as: 'root',
        timeoutMs: STOP_TIMEOUT_MS,
        shownAs: `sudo -n -- systemctl stop --no-block ${unit}`,
      }),
      act('wait until its last process has ended', context =>
        until(
          `PostgreSQL on ${node.name} has ended`,
          STOP_TIMEOUT_MS,
          context,
          async () => (await processesIn(bench, node, context.signal)).length === 0,
        ),
      ),
    ],
    async check({ signal }): Promise<Check> {
      const { running } = await bench.inspect(node, signal)
      const left = await processesIn(bench, node, signal)
      if (left.length > 0) return { done: false, reason: `process ${left.join(', ')} works in its data directory` }
      return running ? { done: false, reason: 'it runs' } : { done: true }
    },
  }
}

/** Thrown when something still works in a data directory that nobody should use any more. */
export class StillRunning extends OperationError {
  constructor(node: string, directory: string, processes: readonly string[]) {
    super(`On ${node}, process ${processes.join(', ')} still works in ${directory}.`, {
      code: 'still-running',
      outcome: 'failed_partial',
      remedy: `Look at it on ${node} (ps -fp ${processes.join(',')}): a shell that stands in the directory counts too. End it, then repeat the call.`,
    })
  }
}

/** Not by what systemd or a pid file says: no process at all works in the data directory any more. */
export function proveStopped(bench: Bench, node: ClusterNode): Step {
  return {
    id: `${node.name}/stopped`,
    kind: 'verify',
    title: 'see that no process of it is left',
    node: node.name,
    actions: [
      act('look for processes that work in its data directory', async ({ signal, note }) => {
        const left = await processesIn(bench, node, signal)
        if (left.length > 0) throw new StillRunning(node.name, bench.layout.dataDirectory, left)
        note('no postmaster and no other process works in its data directory')
      }),
    ],
  }
}
