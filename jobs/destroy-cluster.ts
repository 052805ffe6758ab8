import type { ClusterNode } from '../src/cluster/model.js'
import { isWitness } from '../src/cluster/topology.js'
import { OperationError } from '../src/operations/errors.js'
import { type Step, stage } from '../src/operations/step.js'
import { clusterSecrets } from '../src/store/secrets.js'
import type { Bench } from './bench.js'
import { defineOperation } from './define-operation.js'
import { isInUse } from './find-primary.js'
import { isStandby } from './refusals.js'
import { wipeArchive } from './steps/archive-wipe.js'
import { closeFirewall } from './steps/firewall.js'
import { tellWhatStays } from './steps/let-go.js'
import { proveStopped, stopServer } from './steps/stop.js'
import { takeOver } from './steps/take-over.js'
import { identifierOf, isOfNode, refuseToWipe, removeTraces, wipeServer } from './steps/wipe.js'

/** Thrown when hosts of a cluster that is to be destroyed do not answer. */
class HostsWouldStay extends OperationError {
  constructor(cluster: string, absent: ReadonlyMap<string, string>) {
    const names = [...absent.keys()].join(' and ')
    super(
      `${names} does not answer, so what is on ${absent.size === 1 ? 'it' : 'them'} would stay: ${[...absent.values()].join(' ')}`,
      {
        code: 'hosts-would-stay',
        outcome: 'not_started',
        remedy: `Bring ${names} back first; or repeat the call with leaveUnreachable=true, and drop what is there by hand. Nothing of ${cluster} was touched.`,
      },
    )
  }
}

/** Nothing of a cluster remains: the standbys first, so that none takes over from a primary that ends. */
export const destroyCluster = defineOperation({
  type: 'destroy-cluster',
  surveys: 'servers',
  target: cluster => cluster,
  mayBeAbsent: () => true,
  plan(bench, { leaveUnreachable = false }) {
    const { cluster, absent, found } = bench
    if (absent.size > 0 && !leaveUnreachable) throw new HostsWouldStay(cluster.name, absent)
    const present = cluster.nodes.filter(({ name }) => !absent.has(name))
    for (const node of present) refuseToWipe(bench, node)
    const last = present.filter(
      node => isInUse(found(node).server) && !isStandby(found(node).server) && !isWitness(node),
    )
    const first = present.filter(node => !last.includes(node))
    return [
      // All of them before the first is stopped: without its mark nothing is wiped.
      stage(
        'mark what was adopted',
        ...present
          .filter(node => isOfNode(bench, node))
          .map(node => takeOver(bench, node))
          .filter(track => track.length > 0),
      ),
      stage('stop and wipe the standbys', ...first.map(node => erase(bench, node))),
      stage('stop and wipe the primary', ...last.map(node => erase(bench, node))),
      stage(
        'what stays',
        ...cluster.nodes.filter(({ name }) => absent.has(name)).map(node => [tellWhatStays(bench, node)]),
      ),
    ].filter(({ tracks }) => tracks.length > 0)
  },
  async complete(store, { cluster }) {
    await store.secrets.deleteUnder(clusterSecrets(cluster.name))
    await store.clusters.remove(cluster.name)
  },
})

function erase(bench: Bench, node: ClusterNode): Step[] {
  const identifier = identifierOf(bench, node)
  return [
    ...(isOfNode(bench, node)
      ? [
          stopServer(bench, node),
          proveStopped(bench, node),
          ...wipeArchive(bench, node, identifier),
          wipeServer(bench, node, identifier),
        ]
      : []),
    ...closeFirewall(bench, node),
    removeTraces(bench, node),
  ]
}
