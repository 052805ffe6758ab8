/** Taking from a host what this service put there: the server with its data, and every file that it manages. */
import type { ClusterNode } from '../../src/cluster/model.js'
import { isWitness } from '../../src/cluster/topology.js'
import { act, changing } from '../../src/host/actions.js'
import { type Command, render } from '../../src/host/command.js'
import { CommandFailed } from '../../src/host/errors.js'
import { readFile, writeFile } from '../../src/host/files.js'
import { scriptPath, unitPath } from '../../src/host/firewall.js'
import { sudoersFile } from '../../src/host/sudoers.js'
import { OperationError } from '../../src/operations/errors.js'
import type { Action, Check, Step } from '../../src/operations/step.js'
import { withoutManagedBlock } from '../../src/postgres/managed-block.js'
import type { Bench } from '../bench.js'
import { isBare } from '../find-primary.js'
import { EMPTY_DATA, markerFile } from './data-directory.js'
import { WORKING_IN } from './processes.js'

/** Thrown when a server was to be wiped, and it is not beyond doubt that it is this cluster's. */
export class NotOurs extends OperationError {
  constructor(node: string, why: string, outcome: 'not_started' | 'failed_clean' = 'not_started') {
    super(`The server on ${node} is not wiped: ${why}`, {
      code: 'not-ours',
      outcome,
      remedy: `Look at what is on ${node}. What nobody needs can be dropped there by hand (pg_lsclusters, pg_dropcluster); to keep it, repeat the call without wiping. Nothing was removed on ${node}.`,
    })
  }
}

const REFUSED = 77
/**
 * One script looks and removes, so that nothing fits in between. The mark must be this node's. Where a server was ever
 * started the identifier of the database must be this cluster's too. `wiping` is written before the first file goes: then
 * the identifier may be gone already. The mark goes last.
 */
const WIPE = `${WORKING_IN}
${EMPTY_DATA}
marker=$1 data=$2 conf=$3 version=$4 name=$5 identifier=$6 control=$7 wiping=$8 removed=$9
shift 9
used=$1
shift
refuse() { echo "$1" >&2; exit ${REFUSED}; }
[ -f "$marker" ] || refuse "there is no mark of this service"
found=$(cat "$marker")
known=
for unused in "$@"; do [ "$found" != "$unused" ] || known=unused; done
if [ "$found" = "$used" ] || [ "$found" = "$removed" ]; then known=used; fi
[ "$found" != "$wiping" ] || known=wiping
[ -n "$known" ] || refuse "it is marked as $found"
if [ "$known" = unused ] && { [ -e "$data/postmaster.opts" ] || [ -e "$data/postmaster.pid" ]; }; then known=used; fi
if [ "$known" = used ]; then
  own=$("$control" "$data" 2>/dev/null | sed -n 's/^Database system identifier: *//p')
  [ -n "$own" ] || refuse "its data are not there. Is a disk not mounted?"
  [ "$own" = "$identifier" ] || refuse "it is another database cluster ($own, not $identifier)"
fi
busy=$(working_in "$data")
[ -z "$busy" ] || refuse "a process works in it: $busy"
umask 022
echo "$wiping" >"$marker.new" && sync "$marker.new" && mv -fT "$marker.new" "$marker" && sync "\${marker%/*}" || exit 1
empty_data "$data" "$version" || exit 1
rm -rf --one-file-system -- "$conf" "/var/log/postgresql/postgresql-$version-$name.log"* || exit 1
# A mount point stays, and a folder that others use.
rmdir --ignore-fail-on-non-empty -- "$data" "\${data%/*}" "\${conf%/*}" 2>/dev/null
rm -f -- "$marker" && sync "\${marker%/*}"`

/** Stopped before. `identifier`: of the database that this cluster is; undefined where none was ever started. */
export function wipeServer(bench: Bench, node: ClusterNode, identifier: string | undefined): Step {
  const { layout } = bench
  const mark = (state: Parameters<typeof markerFile>[2]) => markerFile(bench, node, state).content.trim()
  const shown: Command = {
    argv: ['rm', '-rf', `${layout.dataDirectory}/`, `${layout.configDirectory}/`],
    as: 'root',
    timeoutMs: 3_600_000,
  }
  const command: Command = {
    ...shown,
    argv: [
      ...['sh', '-c', WIPE, 'understudy-wipe', layout.marker, layout.dataDirectory, layout.configDirectory],
      ...[String(layout.version), layout.clusterName, identifier ?? 'none'],
      ...[`${layout.binDirectory}/pg_controldata`, mark('wiping'), mark('removed'), mark('in-use')],
      ...(['creating', 'created', 'cloning'] as const).map(mark),
    ],
    shownAs: `${render(shown)}   # only where mark and system identifier are this cluster's, and nothing runs`,
  }
  const wipe: Action = {
    description: { kind: 'command', text: render(command) },
    async perform({ epoch, signal, log }) {
      try {
        await changing(bench.host(node), bench.cluster.name, epoch).run(command, { signal, onLine: log })
      } catch (error) {
        if (!(error instanceof CommandFailed && error.exitCode === REFUSED)) throw error
        throw new NotOurs(node.name, error.result.stderr.trim(), 'failed_clean')
      }
    },
  }
  return {
    id: `${node.name}/wipe`,
    kind: 'change',
    title: 'wipe the server',
    node: node.name,
    destroys: `the server ${layout.version}/${layout.clusterName} on ${node.name}: all its data, its configuration and its log`,
    actions: [wipe],
    async check({ signal }): Promise<Check> {
      const state = await bench.inspect(node, signal)
      if (state.marker === undefined) return { done: true }
      return { done: false, reason: `it is there, marked as ${state.marker.state}` }
    },
  }
}

/**
 * Removes files whose first line says that they are ours, and what the guard and the detached jobs keep. The lock goes
 * last: nothing of this cluster is done on the host after it.
 */
const TRACES = `remove=$1 cluster=$2 node=$3
shift 3
directory=/var/lib/understudy
for file in "$@"; do
  line=$(head -n 1 "$file" 2>/dev/null)
  case $line in
  "# Managed by Understudy: cluster "*) case $line in "# Managed by Understudy: cluster $cluster, "*) ;; *) continue ;; esac ;;
  "# Managed by Understudy"*) ;;
  *) continue ;;
  esac
  if [ "$remove" = yes ]; then rm -f -- "$file"; else echo "$file"; fi
done
for file in "$directory/jobs/$cluster-$node-"* "$directory/$cluster.promotion" "$directory/$cluster.epoch" "$directory/$cluster.lock"; do
  [ -e "$file" ] || continue
  if [ "$remove" = yes ]; then rm -rf -- "$file"; else echo "$file"; fi
done
[ "$remove" = no ] || rmdir --ignore-fail-on-non-empty "$directory/jobs" "$directory" /etc/understudy 2>/dev/null
exit 0`

/** Everything else of the cluster on this host: afterwards another cluster can be built on it. The last step there. */
export function removeTraces(bench: Bench, node: ClusterNode): Step {
  const { layout, cluster } = bench
  const host = bench.host(node)
  const script = (remove: 'yes' | 'no'): Command => ({
    argv: [
      ...['sh', '-c', TRACES, 'understudy-traces', remove, cluster.name, node.name],
      ...[layout.repmgrConf, layout.createClusterConf, sudoersFile(cluster.name)],
      ...[scriptPath(cluster.name), unitPath(cluster.name)],
    ],
    as: 'root',
    timeoutMs: 60_000,
    shownAs: `sudo -n -- rm -f ${layout.repmgrConf} ${layout.createClusterConf} /var/lib/understudy/${cluster.name}.*   # only what is this cluster's`,
  })
  const passwords = async (signal: AbortSignal) => {
    const found = await readFile(host, layout.passFile, { signal })
    return found === undefined ? undefined : { found, rest: withoutManagedBlock(found).replace(/^\n+/, '') }
  }
  return {
    id: `${node.name}/traces`,
    kind: 'change',
    title: 'remove what this service keeps on the host',
    node: node.name,
    actions: [
      act(`take the managed block out of ${layout.passFile}`, async ({ epoch, signal }) => {
        const file = await passwords(signal)
        if (!file || file.rest === file.found) return
        const guarded = changing(host, cluster.name, epoch)
        if (file.rest === '')
          await guarded.run({ argv: ['rm', '-f', layout.passFile], as: 'root', timeoutMs: 30_000 }, { signal })
        else
          await writeFile(
            guarded,
            { path: layout.passFile, content: file.rest, owner: 'postgres:postgres', mode: '0600', secret: true },
            { signal },
          )
      }),
      {
        description: { kind: 'command', text: render(script('yes')) },
        async perform({ epoch, signal }) {
          await changing(host, cluster.name, epoch).run(script('yes'), { signal })
        },
      },
    ],
    async check({ signal }): Promise<Check> {
      const { stdout } = await host.run({ ...script('no'), shownAs: 'look for files of this service' }, { signal })
      const file = await passwords(signal)
      const left = [
        ...stdout.split('\n').filter(line => line !== ''),
        ...(file && file.rest !== file.found ? [layout.passFile] : []),
      ]
      return left.length === 0 ? { done: true } : { done: false, reason: `${left.join(', ')} is there` }
    },
  }
}

/** Of the database that the node has to hold to be ours. A witness has one of its own, which only its mark tells. */
export const identifierOf = ({ cluster, found }: Pick<Bench, 'cluster' | 'found'>, node: ClusterNode) =>
  (isWitness(node) ? undefined : cluster.systemIdentifier) ?? found(node).server.systemIdentifier

/** Whether a host has a server of this very node, in whatever state. */
export const isOfNode = (bench: Pick<Bench, 'cluster' | 'found'>, node: ClusterNode) => {
  const { server } = bench.found(node)
  return server.marker?.cluster === bench.cluster.name && server.marker.node === node.name && !isBare(server)
}

/**
 * Throws unless what is on the host is this node's server of this cluster, or nothing, or nobody's. What is refused here
 * is refused before anything is touched; the script that wipes looks again.
 */
export function refuseToWipe(bench: Pick<Bench, 'cluster' | 'found'>, node: ClusterNode): void {
  const { server } = bench.found(node)
  const { marker } = server
  if (isBare(server) || server.untouched) return
  if (marker === undefined) {
    if (server.directory === 'empty' && !server.configured) return
    throw new NotOurs(node.name, 'this service did not make it.')
  }
  if (!isOfNode(bench, node)) throw new NotOurs(node.name, `it is node ${marker.node} of cluster ${marker.cluster}.`)
  if (!server.everStarted && marker.state !== 'in-use' && marker.state !== 'removed') return
  if (marker.state === 'wiping') return
  const expected = identifierOf(bench, node)
  if (server.systemIdentifier === undefined)
    throw new NotOurs(node.name, 'its data are not there. Is a disk not mounted?')
  if (server.systemIdentifier !== expected)
    throw new NotOurs(node.name, `it is another database cluster (${server.systemIdentifier}, not ${expected}).`)
}
