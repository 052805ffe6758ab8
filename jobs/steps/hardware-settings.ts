/** What follows for a node from its hardware, from what its cluster is used for, and from what its owner asks for. */
import type { Cluster, ClusterNode } from '../../src/cluster/model.js'
import { dataNodes, isWitness } from '../../src/cluster/topology.js'
import { DEFAULT_WORKLOAD } from '../../src/cluster/workload.js'
import type { Setting } from '../../src/postgres/settings.js'
import { SHARED_SETTINGS, type SharedSetting, sharedNow, sharedTarget } from '../../src/postgres/shared-settings.js'
import {
  logSettings,
  maxConnectionsFor,
  maxWorkerProcessesFor,
  type TuningFacts,
  tunedSettings,
} from '../../src/postgres/tuning.js'
import type { Bench } from '../bench.js'
import { isInUse } from '../find-primary.js'

type Surveyed = Pick<Bench, 'cluster' | 'found' | 'absent'>

/** What each node shall have of the settings that a standby must match, once every server has been started again. */
export function targetOf({ cluster, found, absent }: Surveyed): Record<SharedSetting, number> {
  const workload = cluster.workload ?? DEFAULT_WORKLOAD
  const present = dataNodes(cluster.nodes).filter(({ name }) => !absent.has(name))
  const asked = present.map(node => {
    const { memoryBytes, cpus } = found(node).hardware
    const overrides = { ...cluster.settings, ...node.settings }
    return {
      max_connections: maxConnectionsFor(workload, memoryBytes),
      max_worker_processes: maxWorkerProcessesFor(cpus),
      ...Object.fromEntries(
        SHARED_SETTINGS.flatMap(name => (Object.hasOwn(overrides, name) ? [[name, Number(overrides[name])]] : [])),
      ),
    }
  })
  return sharedTarget(asked)
}

/** For `settingsOf`: memory, connections, WAL, costs, and what is worth a line of the log. */
export function hardwareSettings(bench: Surveyed, node: ClusterNode): Setting[] {
  const workload = bench.cluster.workload ?? DEFAULT_WORKLOAD
  const { max_connections: maxConnections, max_worker_processes: maxWorkerProcesses } = targetOf(bench)
  return [
    ...tunedSettings(tuningFacts(bench, node), { workload, maxConnections, maxWorkerProcesses }),
    ...logSettings(workload),
  ]
}

function tuningFacts(bench: Surveyed, node: ClusterNode): TuningFacts {
  const { memoryBytes, cpus, disks } = bench.found(node).hardware
  const [data, wal = data] = disks
  if (!data || !wal) throw new TypeError(`nobody has looked at the disk of ${node.name}`)
  return {
    memoryBytes,
    cpus,
    disk: data.kind,
    wal: { diskBytes: wal.totalBytes, ownDisk: wal.fileSystem !== data.fileSystem },
  }
}

/** For `settingsOf`, last of all: what the owner asks for, the node’s before the cluster’s. */
export function askedSettings(cluster: Cluster, node: ClusterNode): Setting[] {
  const lines = (settings: Cluster['settings'], because: string) =>
    Object.entries(settings ?? {}).map(([name, value]): Setting => ({ name, value, because }))
  return [...lines(cluster.settings, 'asked for'), ...lines(node.settings, 'asked for, of this node')]
}

/**
 * The same settings with those that a standby must match as they may be written now. `afterRestart`: as they are once
 * every other server has been started again with what it was told.
 */
export function withShared(
  bench: Surveyed,
  node: ClusterNode,
  settings: readonly Setting[],
  { afterRestart = false }: { afterRestart?: boolean } = {},
): Setting[] {
  const { target, primary, standbys } = whatRuns(bench)
  const role = node.name === primary?.name ? 'primary' : 'standby'
  const running = {
    primary: primary && bench.found(primary).server.inForce,
    standbys: standbys.map(standby => bench.found(standby).server.inForce),
  }
  // A witness has no standby, and is none.
  const now = afterRestart || isWitness(node) ? target : sharedNow(target, role, running)
  const shared = SHARED_SETTINGS.map(
    (name): Setting => ({
      name,
      value: now[name],
      because: now[name] === target[name] ? 'the same on each node' : `${target[name]} once the others were restarted`,
    }),
  )
  return [...settings, ...shared]
}

/** The primary, running or stopped, its standbys, and what they all shall have. */
function whatRuns(bench: Surveyed) {
  const members = dataNodes(bench.cluster.nodes).filter(
    node => !bench.absent.has(node.name) && isInUse(bench.found(node).server),
  )
  const state = (node: ClusterNode) => bench.found(node).server
  const primary =
    members.find(node => state(node).inRecovery === false) ??
    members.find(node => !state(node).running && !state(node).standbySignal)
  const asked = targetOf(bench)
  const had = primary && state(primary).inForce
  // What a node that did not answer asks for is not known: then nothing becomes less.
  const target = bench.absent.size === 0 || !had ? asked : sharedTarget([asked, { ...asked, ...had }])
  return { target, primary, standbys: members.filter(node => node !== primary) }
}
