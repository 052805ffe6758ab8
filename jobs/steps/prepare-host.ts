/** From a bare host to a configured server that has never been started. The same for primary and standby. */
import type { ClusterNode } from '../../src/cluster/model.js'
import { putFile, runCommand } from '../../src/host/actions.js'
import { runDetached } from '../../src/host/detached-action.js'
import type { RemoteFile } from '../../src/host/files.js'
import type { Check, Step } from '../../src/operations/step.js'
import { managedSettings } from '../../src/postgres/settings.js'
import { repmgrConf } from '../../src/repmgr/conf.js'
import type { Bench } from '../bench.js'
import { isInUse, refuseForeign } from '../find-primary.js'
import { grantAccess, passFileStep } from './access.js'
import { emptyUnused, markerFile } from './data-directory.js'
import { fileStep } from './file-step.js'
import { reloadIfRunning, staleReason } from './reload.js'

/** Everything that a host needs before it holds data, in order. */
export function prepareHost(bench: Bench, node: ClusterNode): Step[] {
  const { server } = bench.found(node)
  return [
    keepPackagesFromMakingServers(bench, node),
    installPackages(bench, node),
    ...(server.untouched ? [dropAutomaticServer(bench, node)] : []),
    makeServer(bench, node),
    writeSettings(bench, node),
    grantAccess(bench, node),
    passFileStep(bench, node),
    writeRepmgrConf(bench, node),
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

function installPackages(bench: Bench, node: ClusterNode): Step {
  const { packages } = bench.layout
  const apt = 'apt-get -q -y -o DPkg::Lock::Timeout=300'
  // One command, so that a worker that finds it under way has nothing to wait for before it can watch it.
  const script = `${apt} update && exec ${apt} install --no-install-recommends "$@"`
  return {
    id: `${node.name}/packages`,
    kind: 'change',
    title: `install ${packages.join(' and ')}`,
    node: node.name,
    actions: [
      // Detached, because a package manager that is cut short leaves a host that needs repair.
      runDetached(
        bench.host(node),
        bench.cluster.name,
        {
          argv: ['sh', '-c', script, 'install', ...packages],
          as: 'root',
          env: { DEBIAN_FRONTEND: 'noninteractive' },
          timeoutMs: 1_800_000,
        },
        { name: `${node.name}-packages` },
      ),
    ],
    async check({ signal }): Promise<Check> {
      const installed = (await bench.inspect(node, signal)).packages
      const missing = packages.filter(name => installed[name] === undefined)
      if (missing.length > 0) return { done: false, reason: `${missing.join(', ')} is not installed` }
      return { done: true, note: packages.map(name => `${name} ${installed[name]}`).join(', ') }
    },
  }
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

function writeSettings(bench: Bench, node: ClusterNode): Step {
  const { layout, cluster } = bench
  const file: RemoteFile = {
    path: layout.managedSettings,
    content: managedSettings({ cluster: cluster.name, node: node.name }),
    owner: 'postgres:postgres',
    mode: '0644',
  }
  return fileStep(bench, node, {
    id: 'settings',
    title: 'write the settings',
    file,
    after: reloadIfRunning(bench, node),
    unfinished: signal => staleReason(bench, node, layout.managedSettings, signal),
  })
}

function writeRepmgrConf(bench: Bench, node: ClusterNode): Step {
  const { layout, cluster } = bench
  const file: RemoteFile = {
    path: layout.repmgrConf,
    content: repmgrConf(
      { nodeId: node.nodeId, name: node.name, host: node.host, port: cluster.port },
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
