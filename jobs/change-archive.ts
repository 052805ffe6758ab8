import { dataNodes } from '../src/cluster/topology.js'
import { stage } from '../src/operations/step.js'
import type { Bench } from './bench.js'
import { defineOperation } from './define-operation.js'
import { findPrimary, isInUse, PrimaryUnclear } from './find-primary.js'
import { tellOfAbsent } from './steps/absent.js'
import { archiveSteps } from './steps/archive.js'
import { refuseTakenDirectory } from './steps/archive-directory.js'
import { proveArchive } from './steps/archive-proof.js'
import { archiveRemovalStages } from './steps/archive-removal.js'
import { restartAllowed, restartForArchive } from './steps/archive-restart.js'
import { nodeKeySteps, nodeSshStages, proveNodeSsh } from './steps/node-ssh.js'
import { proveReplication } from './steps/proof.js'
import { writeSettings } from './steps/settings.js'

/** A running cluster archives its WAL otherwise than before, or not any more. */
export const changeArchive = defineOperation({
  type: 'change-archive',
  target: (cluster, { archive }) => ({ ...cluster, archive }),
  // A standby that is away is told later; a primary that is away is refused below.
  mayBeAbsent: () => true,
  holdsRepmgrd: ({ restart }) => (restart ? {} : undefined),
  refuse: (bench, _input, signal) => refuseTakenDirectory(bench, signal),
  plan(bench, { restart }) {
    const primary = runningPrimary(bench)
    const members = dataNodes(bench.cluster.nodes).filter(
      node => !bench.absent.has(node.name) && isInUse(bench.found(node).server),
    )
    const standbys = members.filter(node => node !== primary)
    const prepared = members.map(node => [...nodeKeySteps(bench, node), ...archiveSteps(bench, node)])
    return [
      stage('see whether a restart is needed', ...members.map(node => [restartAllowed(bench, node, restart)])),
      ...(prepared.some(track => track.length > 0) ? [stage('prepare the hosts', ...prepared)] : []),
      ...nodeSshStages(bench),
      stage('tell PostgreSQL', ...members.map(node => [writeSettings(bench, node)])),
      ...(standbys.length > 0
        ? [
            stage(
              'restart the standbys, where that is needed',
              ...standbys.map(node => [restartForArchive(bench, node, true)]),
            ),
          ]
        : []),
      stage('restart the primary, where that is needed', [restartForArchive(bench, primary, false)]),
      ...archiveRemovalStages(bench, true),
      stage('prove it', [
        ...tellOfAbsent(bench),
        proveReplication(bench, primary, standbys),
        ...proveNodeSsh(bench),
        ...proveArchive(bench, primary, standbys),
      ]),
    ]
  },
  async begin(store, { cluster }, { archive }) {
    await store.clusters.update(cluster.name, current => ({ ...current, archive }))
  },
  complete: async () => undefined,
})

function runningPrimary(bench: Bench) {
  const primary = findPrimary(bench)
  if (bench.found(primary).server.running) return primary
  throw new PrimaryUnclear(`${primary.name} is the primary, and it is stopped.`, 'Start it, then repeat the call.')
}
