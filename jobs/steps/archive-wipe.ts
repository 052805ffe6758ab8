/** The WAL archive and the keys of a node that is wiped: nothing of them is wanted there any more. */
import { archiveOf } from '../../src/cluster/archive.js'
import type { ClusterNode } from '../../src/cluster/model.js'
import { runCommand } from '../../src/host/actions.js'
import type { Check, Step } from '../../src/operations/step.js'
import { archiveStateDirectory } from '../../src/postgres/archive.js'
import type { Bench } from '../bench.js'
import { archiveRemoval } from './archive.js'
import { nodeSshRemoval } from './node-ssh.js'

/** After the server has ended. `identifier`: whose archive it is; another database may keep its own beside it. */
export function wipeArchive(bench: Bench, node: ClusterNode, identifier: string | undefined): Step[] {
  const { archive: _archive, sshBetweenNodes: _ssh, ...plain } = bench.cluster
  const unwanted: Bench = { ...bench, cluster: plain }
  return [
    ...archiveRemoval(unwanted, node, true),
    ...nodeSshRemoval(unwanted, node, true),
    ...removeSegments(bench, node, identifier),
  ]
}

function removeSegments(bench: Bench, node: ClusterNode, identifier: string | undefined): Step[] {
  const archive = archiveOf(bench.cluster)
  if (archive.mode !== 'ship' || identifier === undefined) return []
  const host = bench.host(node)
  const paths = [`${archive.directory}/${identifier}`, archiveStateDirectory(archive)]
  return [
    {
      id: `${node.name}/archive-wipe`,
      kind: 'change',
      title: 'remove the archived WAL',
      node: node.name,
      destroys: `the WAL of this cluster that is archived on ${node.name}, in ${archive.directory}`,
      actions: [
        runCommand(host, bench.cluster.name, {
          argv: [
            ...['sh', '-c', 'd=$1; shift; rm -rf --one-file-system -- "$@" && { rmdir -- "$d" 2>/dev/null; exit 0; }'],
            ...['understudy-archive', archive.directory, ...paths],
          ],
          as: 'root',
          timeoutMs: 3_600_000,
          shownAs: `sudo -n -- rm -rf ${paths.join(' ')}`,
        }),
      ],
      async check({ signal }): Promise<Check> {
        const { stdout } = await host.run(
          {
            argv: ['sh', '-c', 'for f in "$@"; do [ ! -e "$f" ] || echo "$f"; done', 'understudy-archive', ...paths],
            as: 'root',
            timeoutMs: 15_000,
          },
          { signal },
        )
        const [first] = stdout.split('\n')
        return first ? { done: false, reason: `${first} is there` } : { done: true }
      },
    },
  ]
}
