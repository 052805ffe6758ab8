/** From a bare host to a configured server that has never been started. The same for primary and standby. */
import type { ClusterNode } from '../../src/cluster/model.js'
import { locationOf, priorityOf } from '../../src/cluster/topology.js'
import { putFile, runCommand } from '../../src/host/actions.js'
import type { RemoteFile } from '../../src/host/files.js'
import type { Check, Step } from '../../src/operations/step.js'
import { repmgrConf } from '../../src/repmgr/conf.js'
import { addressOf, type Bench } from '../bench.js'
import { isInUse, refuseForeign } from '../find-primary.js'
import { grantAccess, passFileStep } from './access.js'
import { archiveSteps } from './archive.js'
import { emptyUnused, markerFile } from './data-directory.js'
import { fileStep } from './file-step.js'
import { openFirewall } from './firewall.js'
import { nodeKeySteps } from './node-ssh.js'
import { providePackages } from './packages.js'
import { writeSettings } from './settings.js'
import { writeSudoers } from './sudoers.js'
import { takeOver } from './take-over.js'
import { tlsSteps } from './tls.js'

/** Everything that a host needs before it holds data, in order. */
export function prepareHost(bench: Bench, node: ClusterNode): Step[] {
  const { server } = bench.found(node)
  return [
    ...takeOver(bench, node),
    keepPackagesFromMakingServers(bench, node),
    ...providePackages(bench, node),
    ...(server.untouched ? [dropAutomaticServer(bench, node)] : []),
    makeServer(bench, node),
    ...nodeKeySteps(bench, node),
    ...archiveSteps(bench, node),
    ...tlsSteps(bench, node),
    writeSettings(bench, node),
    grantAccess(bench, node),
    ...openFirewall(bench, node),
    passFileStep(bench, node),
    writeRepmgrConf(bench, node),
    writeSudoers(bench, node),
  ]
}

/** Debian's package makes and starts a server `main` when it is installed; ours is made with our own options. */
function keepPackagesFromMakingServers(bench: Bench, node: ClusterNode): Step {
  const directory = bench.layout.createClusterConf.replace(/\/[^/]+$/, '')
  const file: RemoteFile = {
    path: bench.layout.createClusterConf,
    content:
      '# Managed by Understudy: servers are made with their own options, not by the package.\ncreate_main_cluster = false\n',
    owner: 'root:root',
    mode: '0644',
  }
  return fileStep(bench, node, {
    id: 'no-automatic-server',
    title: 'keep the package from making a server of its own',
    file,
    before: [
      runCommand(bench.host(node), bench.cluster.name, {
        argv: ['mkdir', '-p', '-m', '0755', directory],
        as: 'root',
        timeoutMs: 30_000,
      }),
    ],
  })
}

function dropAutomaticServer(bench: Bench, node: ClusterNode): Step {
  const { version, clusterName } = bench.layout
  return {
    id: `${node.name}/automatic-server`,
    kind: 'change',
    title: `remove the empty server ${version}/${clusterName} that the package made`,
    node: node.name,
    destroys: `the server ${version}/${clusterName}, which holds no database, role or table`,
    actions: [
      runCommand(bench.host(node), bench.cluster.name, {
        argv: ['pg_dropcluster', '--stop', String(version), clusterName],
        as: 'root',
        timeoutMs: 120_000,
      }),
    ],
    async check({ signal }): Promise<Check> {
      const state = await bench.inspect(node, signal)
      refuseForeign(bench, node, state)
      return state.untouched ? { done: false, reason: 'it is there, and nobody has used it' } : { done: true }
    },
  }
}

/**
 * The host is marked as ours before anything is made and again when it is whole: what is found between the two was cut
 * short, holds nothing, and is made again. `manual`: until it is started on purpose, no boot and no package starts it.
 */
function makeServer(bench: Bench, node: ClusterNode): Step {
  const { layout, cluster } = bench
  const host = bench.host(node)
  const leftover = bench.found(node).server.marker?.state === 'creating'
  const command = [
    'pg_createcluster',
    '--locale=C.UTF-8',
    '--encoding=UTF8',
    `--port=${cluster.port}`,
    '--start-conf=manual',
    String(layout.version),
    layout.clusterName,
    '--',
    '--data-checksums',
  ]
  return {
    id: `${node.name}/server`,
    kind: 'change',
    title: `make the server ${layout.version}/${layout.clusterName}, with checksums`,
    node: node.name,
    ...(leftover ? { destroys: 'the half-made server of a try that was cut short; it was never started' } : {}),
    actions: [
      putFile(host, cluster.name, markerFile(bench, node, 'creating')),
      ...(leftover ? [emptyUnused(bench, node, [layout.configDirectory])] : []),
      runCommand(host, cluster.name, { argv: command, as: 'root', timeoutMs: 300_000 }),
      putFile(host, cluster.name, markerFile(bench, node, 'created')),
    ],
    async check({ signal }): Promise<Check> {
      const state = await bench.inspect(node, signal)
      if (!state.untouched) refuseForeign(bench, node, state)
      if (isInUse(state)) return { done: true }
      if (state.marker === undefined || state.marker.state === 'creating')
        return { done: false, reason: 'there is no server yet' }
      if (!state.configured) return { done: false, reason: `${layout.configDirectory} has no postgresql.conf` }
      return { done: true }
    },
  }
}

export function writeRepmgrConf(bench: Bench, node: ClusterNode): Step {
  const { layout, cluster } = bench
  const file: RemoteFile = {
    path: layout.repmgrConf,
    content: repmgrConf(
      { ...node, ...addressOf(cluster, layout, node), priority: priorityOf(node), location: locationOf(node) },
      cluster.name,
      layout,
    ),
    owner: 'postgres:postgres',
    mode: '0640',
  }
  return fileStep(bench, node, {
    id: 'repmgr-conf',
    title: 'write repmgr.conf',
    file,
  })
}
