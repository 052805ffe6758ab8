import { stage } from '../src/operations/step.js'
import { defineOperation } from './define-operation.js'
import { isInUse, PrimaryUnclear, refuseForeign } from './find-primary.js'
import { tellOfAbsent } from './steps/absent.js'
import { grantAccess } from './steps/access.js'
import { openFirewall } from './steps/firewall.js'

/** Who may come in over the network, on every node; recorded once it is in force on each that answers. */
export const changeAccess = defineOperation({
  type: 'change-access',
  surveys: 'servers',
  target: (cluster, { access }) => ({ ...cluster, access }),
  // A primary must not stay open because a standby is away: it is told when it is back.
  mayBeAbsent: () => true,
  plan(bench) {
    const present = bench.cluster.nodes.filter(({ name }) => !bench.absent.has(name))
    for (const node of present) refuseForeign(bench, node, bench.found(node).server)
    const members = present.filter(node => isInUse(bench.found(node).server))
    if (members.length === 0) {
      throw new PrimaryUnclear(
        `No server of ${bench.cluster.name} could be asked to change its rules. ${[...bench.absent.values()].join(' ')}`,
        'Bring one of its nodes back, then repeat the call.',
      )
    }
    const primaryLast = [...members].sort(
      (a, b) => Number(isPrimary(bench.found(a).server)) - Number(isPrimary(bench.found(b).server)),
    )
    return [
      // One after the other: what a server refuses is refused before the next one is touched.
      stage(
        'change who may come in',
        primaryLast.flatMap(node => [grantAccess(bench, node), ...openFirewall(bench, node)]),
      ),
      ...(bench.absent.size > 0 ? [stage('tell who was left out', tellOfAbsent(bench))] : []),
    ]
  },
  async complete(store, bench, { access }) {
    await store.clusters.update(bench.cluster.name, cluster => ({
      ...cluster,
      access,
      controllers: [...new Set([...(cluster.controllers ?? []), ...bench.seenControllers])].sort(),
    }))
  },
})

const isPrimary = ({ inRecovery }: { inRecovery: boolean | undefined }) => inRecovery === false
