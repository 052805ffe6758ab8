import { newNode } from '../src/cluster/model.js'
import { stage } from '../src/operations/step.js'
import type { Bench } from './bench.js'
import { defineOperation, type OperationInputs } from './define-operation.js'
import { findPrimary, isInUse, PrimaryUnclear } from './find-primary.js'
import { recordMembers } from './record-members.js'
import { tellOfAbsent } from './steps/absent.js'
import { grantAccess, passFileStep } from './steps/access.js'
import { prepareHost } from './steps/prepare-host.js'
import { proveReplication } from './steps/proof.js'
import { makeStandby } from './steps/standby.js'

const joiningOf = ({ cluster }: Pick<Bench, 'cluster'>, { node }: OperationInputs['add-standby']) =>
  cluster.nodes.filter(({ name }) => name === node.name)

/** A bare host becomes one more standby of a running cluster. */
export const addStandby = defineOperation({
  type: 'add-standby',
  target(cluster, { node }) {
    if (cluster.nodes.some(({ name }) => name === node.name)) return cluster
    return {
      ...cluster,
      nodes: [...cluster.nodes, newNode(node, cluster.nextNodeId)],
      nextNodeId: cluster.nextNodeId + 1,
    }
  },
  // A standby is often added because another one is gone.
  mayBeAbsent: (node, { node: joining }) => node.name !== joining.name,
  plan(bench, input) {
    const primary = findPrimary(bench)
    if (!bench.found(primary).server.running) {
      throw new PrimaryUnclear(
        `${primary.name} is the primary, and it is stopped.`,
        'Start it, then repeat the call: a standby is cloned from a running primary.',
      )
    }
    const joining = joiningOf(bench, input)
    // One that an earlier call could not finish is no member yet; its own repetition will let it know.
    const members = bench.cluster.nodes.filter(
      node => !joining.includes(node) && !bench.absent.has(node.name) && isInUse(bench.found(node).server),
    )
    return [
      stage(
        'prepare the host, and let it in',
        ...joining.map(node => prepareHost(bench, node)),
        ...members.map(node => [grantAccess(bench, node), passFileStep(bench, node)]),
      ),
      stage('make the standby', ...joining.map(node => makeStandby(bench, node, primary))),
      stage('prove it', [...tellOfAbsent(bench), proveReplication(bench, primary, joining)]),
    ]
  },
  async begin(store, { cluster }) {
    await store.clusters.update(cluster.name, current => ({
      ...current,
      nodes: cluster.nodes,
      nextNodeId: cluster.nextNodeId,
    }))
  },
  complete: (store, bench, input) => recordMembers(store, bench, joiningOf(bench, input)),
})
