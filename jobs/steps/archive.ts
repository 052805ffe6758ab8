/** The WAL archive on a node: its directory, the script, its configuration, the timer that brings others what they missed. */
import { type Archive, archiveOf } from '../../src/cluster/archive.js'
import type { ClusterNode } from '../../src/cluster/model.js'
import { dataNodes, isWitness } from '../../src/cluster/topology.js'
import { putFile, runCommand } from '../../src/host/actions.js'
import { fileMatches } from '../../src/host/files.js'
import { type Check, type Stage, type Step, stage } from '../../src/operations/step.js'
import {
  ARCHIVE_CONF,
  ARCHIVE_CONF_DIRECTORY,
  ARCHIVE_PROGRAM,
  ARCHIVE_SERVICE,
  ARCHIVE_TIMER,
  archiveConf,
  archiveScript,
  archiveUnits,
} from '../../src/postgres/archive.js'
import { nodeSshFiles } from '../../src/postgres/node-ssh.js'
import type { Bench } from '../bench.js'
import { makeArchiveDirectory } from './archive-directory.js'
import { stillRestores } from './archive-restart.js'
import { fileStep } from './file-step.js'

type Shipping = Extract<Archive, { mode: 'ship' }>

/** Everything of it but the keys: what a host needs before PostgreSQL first calls it. Empty where nothing is shipped, and on a witness. */
export function archiveSteps(bench: Bench, node: ClusterNode): Step[] {
  const archive = archiveOf(bench.cluster)
  if (archive.mode !== 'ship' || isWitness(node)) return []
  return [
    makeArchiveDirectory(bench, node, archive),
    putScript(bench, node),
    configureArchive(bench, node, archive),
    startTimer(bench, node),
  ]
}

/** The members learn of a node that joins, once it can take what they send. Empty where nothing is shipped. */
export function archiveMembersStages(bench: Bench, members: readonly ClusterNode[]): Stage[] {
  const archive = archiveOf(bench.cluster)
  if (archive.mode !== 'ship' || members.length === 0) return []
  return [stage('archive to the new node too', ...members.map(node => [configureArchive(bench, node, archive)]))]
}

function putScript(bench: Bench, node: ClusterNode): Step {
  const file = { path: ARCHIVE_PROGRAM, content: archiveScript(), owner: 'root:root', mode: '0755' }
  return fileStep(bench, node, { id: 'archive-script', title: 'put the archive’s script into place', file })
}

function configureArchive(bench: Bench, node: ClusterNode, archive: Shipping): Step {
  const { cluster, layout } = bench
  const targets = dataNodes(cluster.nodes)
    .filter(({ name }) => name !== node.name)
    .map(({ name, host, ssh }) => ({ name, host, sshPort: ssh.port }))
  return fileStep(bench, node, {
    id: 'archive-configuration',
    title: 'tell the archive’s script which nodes there are',
    file: {
      path: ARCHIVE_CONF,
      content: archiveConf(cluster.name, node.name, targets, archive, layout, nodeSshFiles(layout)),
      owner: 'root:root',
      mode: '0644',
    },
    before: [
      runCommand(bench.host(node), cluster.name, {
        argv: ['mkdir', '-p', '-m', '0755', ARCHIVE_CONF_DIRECTORY],
        as: 'root',
        timeoutMs: 15_000,
      }),
    ],
  })
}

function startTimer(bench: Bench, node: ClusterNode): Step {
  const host = bench.host(node)
  const { name } = bench.cluster
  const files = archiveUnits().map(unit => ({ ...unit, owner: 'root:root', mode: '0644' }))
  return {
    id: `${node.name}/archive-timer`,
    kind: 'change',
    title: 'start the timer that brings other nodes what they missed',
    node: node.name,
    actions: [
      ...files.map(file => putFile(host, name, file)),
      runCommand(host, name, { argv: ['systemctl', 'daemon-reload'], as: 'root', timeoutMs: 60_000 }),
      runCommand(host, name, { argv: ['systemctl', 'enable', '--now', ARCHIVE_TIMER], as: 'root', timeoutMs: 60_000 }),
    ],
    async check({ signal }): Promise<Check> {
      for (const file of files)
        if (!(await fileMatches(host, file, { signal })))
          return { done: false, reason: `${file.path} is missing or different` }
      const { stdout } = await host.run(
        {
          argv: [
            'systemctl',
            'show',
            '-p',
            'UnitFileState',
            '-p',
            'ActiveState',
            '-p',
            'NeedDaemonReload',
            ARCHIVE_TIMER,
          ],
          as: 'root',
          timeoutMs: 15_000,
        },
        { signal },
      )
      for (const wanted of ['UnitFileState=enabled', 'ActiveState=active', 'NeedDaemonReload=no'])
        if (!stdout.split('\n').includes(wanted)) return { done: false, reason: `${ARCHIVE_TIMER} has not ${wanted}` }
      return { done: true }
    },
  }
}

/** For where nothing is shipped any more, once PostgreSQL does not call it. What was archived stays: it may be needed. */
export function archiveRemoval(bench: Bench, node: ClusterNode, always = false): Step[] {
  if (archiveOf(bench.cluster).mode === 'ship') return []
  if (!always && bench.found(node).server.hasArchive !== true) return []
  const host = bench.host(node)
  const paths = [ARCHIVE_CONF, ...archiveUnits().map(({ path }) => path), ARCHIVE_PROGRAM]
  const script = `systemctl disable --now ${ARCHIVE_TIMER}; systemctl stop ${ARCHIVE_SERVICE}; rm -f -- "$@" && systemctl daemon-reload`
  return [
    {
      id: `${node.name}/archive-removal`,
      kind: 'change',
      title: 'take away the archive’s script and timer; what was archived stays',
      node: node.name,
      actions: [
        runCommand(host, bench.cluster.name, {
          argv: ['sh', '-c', script, 'understudy-archive', ...paths],
          as: 'root',
          timeoutMs: 120_000,
          shownAs: `sudo -n -- systemctl disable --now ${ARCHIVE_TIMER}; sudo -n -- rm -f ${paths.join(' ')}; sudo -n -- systemctl daemon-reload`,
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
        if (!first) return { done: true }
        if (await stillRestores(bench, node, signal))
          return { done: true, note: 'kept: this standby calls it until its next start' }
        return { done: false, reason: `${first} is there` }
      },
    },
  ]
}
