import { dataNodes, witnesses } from '../src/cluster/topology.js'
import { OperationError } from '../src/operations/errors.js'
import { stage } from '../src/operations/step.js'
import { nextRepmgrPassword, repmgrPassword } from '../src/store/secrets.js'
import { accepts, letsIn } from './accepted-password.js'
import type { Bench } from './bench.js'
import { defineOperation } from './define-operation.js'
import { findPrimary, isInUse } from './find-primary.js'
import { tellOfAbsent } from './steps/absent.js'
import { passFileStep } from './steps/access.js'
import { makeRole } from './steps/primary.js'
import { proveReplication } from './steps/proof.js'

/** Thrown before anything is changed where a node would learn of its new password only after its delay. */
class RotationDelayed extends OperationError {
  constructor(nodes: readonly string[]) {
    const several = nodes.length > 1
    super(
      `The new password would reach ${nodes.join(', ')} only after ${several ? 'their' : 'its'} delay. Until then ${several ? 'they' : 'it'} would let in neither this service nor the other nodes, and repmgrd there would fail.`,
      {
        code: 'rotation-delayed',
        outcome: 'not_started',
        remedy: `Describe the cluster without applyDelayMs of ${nodes.join(', ')} (PUT /v1/clusters/{cluster}), repeat the call once ${several ? 'they have' : 'it has'} caught up, then describe the delay again. Nothing was changed.`,
      },
    )
  }
}

/**
 * A role is data: a standby knows a password once it has applied the change. One that is behind on purpose would be
 * asked with a password that it does not know yet.
 */
function refuseDelayed({ cluster }: Pick<Bench, 'cluster'>): void {
  const delayed = cluster.nodes.filter(({ applyDelayMs }) => applyDelayMs !== undefined)
  if (delayed.length > 0) throw new RotationDelayed(delayed.map(({ name }) => name))
}

/** Thrown before anything is changed where a node does not answer. */
class NodesAway extends OperationError {
  constructor(absent: Bench['absent']) {
    super([...absent].map(([node, reason]) => `${node}: ${reason}`).join(' '), {
      code: 'host-unreachable',
      outcome: 'not_started',
      remedy: 'Every node must hear of a new password. Bring it back, or remove the node, then repeat the call.',
    })
  }
}

/** Those that do not answer, and those whose server does not run: one that was never finished, or is stopped. */
function silentNodes({ cluster, absent, found }: Pick<Bench, 'cluster' | 'absent' | 'found'>): Map<string, string> {
  const down = cluster.nodes.filter(node => {
    if (absent.has(node.name)) return false
    const { server } = found(node)
    return !isInUse(server) || !server.running
  })
  return new Map([...absent, ...down.map(({ name }) => [name, 'its server does not run.'] as const)])
}

/**
 * The role repmgr gets a new password. Connections that are open stay open, streams too: a password is only asked for when
 * one is opened, and by then the pass files have the new one. A witness has a role of its own. Every node must answer before it begins: one that was left out could not
 * come back by itself. Once the primary has the new one there is no way back: it goes on with those that answer, and names
 * the others, which are told by the next description.
 */
export const rotateCredentials = defineOperation({
  type: 'rotate-credentials',
  surveys: 'servers',
  target: cluster => cluster,
  mayBeAbsent: () => true,
  password: nextRepmgrPassword,
  async refuse(bench, _input, signal) {
    const silent = silentNodes(bench)
    if (silent.size > 0 && !(await accepts(bench, node => letsIn(bench, node, signal)))) throw new NodesAway(silent)
  },
  plan(bench) {
    refuseDelayed(bench)
    const primary = findPrimary(bench)
    const { nodes } = bench.cluster
    const present = nodes.filter(({ name }) => !bench.absent.has(name))
    const standbys = dataNodes(present).filter(node => node !== primary)
    return [
      stage(
        'give the role its new password',
        [makeRole(bench, primary)],
        ...witnesses(present).map(node => [makeRole(bench, node)]),
      ),
      stage('tell the nodes', ...present.map(node => [passFileStep(bench, node)])),
      stage('prove it', [proveReplication(bench, primary, standbys)], tellOfAbsent(bench)),
    ]
  },
  async complete(store, bench) {
    const { name } = bench.cluster
    await store.secrets.set(repmgrPassword(name), bench.password)
    await store.secrets.delete(nextRepmgrPassword(name))
  },
})
