import type { Cluster, ClusterNode } from '../src/cluster/model.js'
import type { UpgradeInput } from '../src/cluster/operation-inputs.js'
import { holdOf } from '../src/cluster/packages.js'
import { witnesses } from '../src/cluster/topology.js'
import { isMinorOf, versionsForAll } from '../src/cluster/upgrade.js'
import { OperationError } from '../src/operations/errors.js'
import { type Plan, type Step, stage } from '../src/operations/step.js'
import type { Store } from '../src/store/store.js'
import type { Bench } from './bench.js'
import { defineOperation } from './define-operation.js'
import { findPrimary } from './find-primary.js'
import { ownHandover, withoutHandover } from './handover.js'
import {
  beginRolling,
  failedRolling,
  inPlacePlan,
  isAlone,
  type RollingWork,
  rollingEnds,
  rollingPlan,
} from './rolling.js'
import { holdStep, managerOf } from './steps/packages.js'
import { fetchPackages, isUpgraded, restartUpgraded, updateExtension, upgradePackages } from './steps/upgrade.js'

/** Thrown before anything is touched, where the nodes would not all have one and the same minor version afterwards. */
class UpgradeRefused extends OperationError {
  constructor(why: readonly string[]) {
    super(why.join(' '), {
      code: 'upgrade-refused',
      outcome: 'not_started',
      remedy:
        'Bring the package sources of all nodes to the same state, or name a version that all of them have. Another major version is no upgrade of packages: it takes a new cluster (pg_upgrade, or logical replication). Nothing was changed.',
    })
  }
}

const present = ({ cluster, absent }: Bench): ClusterNode[] => cluster.nodes.filter(({ name }) => !absent.has(name))

/** The packages of every server come to one minor version, the standbys’ first. No package is touched while its server is the primary. */
export const upgradeCluster = defineOperation({
  type: 'upgrade-cluster',
  target: cluster => cluster,
  // Looked at in the plan, as for a restart.
  mayBeAbsent: () => true,
  holdsRepmgrd: () => ({}),
  async look(bench, _input, signal) {
    const seen = await Promise.all(
      present(bench).map(async node => {
        // With versions that are fixed already, and perhaps no primary just now, nobody waits for a package source.
        const fresh = ownHandover(bench)?.versions === undefined
        const found = await managerOf(bench, node).inspectUpgrades(bench.host(node), bench.layout.packages, fresh, {
          signal,
        })
        return [node.name, found] as const
      }),
    )
    return { ...bench, upgrades: new Map(seen) }
  },
  plan(bench, { version, repmgrVersion, ...input }): Plan {
    const versions = versionsOf(bench, { ...(version ? { version } : {}), ...(repmgrVersion ? { repmgrVersion } : {}) })
    const fetch = stage('fetch the packages', ...present(bench).map(node => [fetchPackages(bench, node, versions)]))
    const bringAlong = (nodes: readonly ClusterNode[]) =>
      stage(
        'bring the databases along',
        [updateExtension(bench, nodes, 'cluster')],
        ...witnesses(present(bench)).map(node => [updateExtension(bench, [node], node)]),
      )
    if (isAlone(bench)) {
      const primary = findPrimary(bench)
      return [fetch, ...inPlacePlan(bench, workOf(bench, versions), input), bringAlong([primary])]
    }
    const ends = rollingEnds(bench, input)
    return [
      ...(ends.phase === 'standbys' ? [fetch] : []),
      ...rollingPlan(bench, ends, workOf(bench, versions), input),
      bringAlong([ends.from, ends.to]),
    ]
  },
  async begin(store, bench, input) {
    if (!isAlone(bench))
      await beginRolling(store, bench, rollingEnds(bench, input), { versions: versionsOf(bench, input) })
  },
  complete: recordVersions,
  failed: failedRolling,
})

/** As they were fixed when it was begun: sources may have newer ones by the time that it is taken up. */
function versionsOf(bench: Bench, { version, repmgrVersion }: UpgradeInput): Record<string, string> {
  const begun = ownHandover(bench)?.versions
  if (begun) return begun
  const { cluster, layout } = bench
  const described = cluster.packages?.versions
  const postgresql = version ?? described?.postgresql
  const repmgr = repmgrVersion ?? described?.repmgr
  const [server, repmgrPackage] = layout.packages
  const verdict = versionsForAll(
    new Map([...(bench.upgrades ?? [])].map(([node, { packages }]) => [node, packages])),
    { server, repmgr: repmgrPackage },
    { ...(postgresql === undefined ? {} : { postgresql }), ...(repmgr === undefined ? {} : { repmgr }) },
  )
  if ('refused' in verdict) throw new UpgradeRefused(verdict.refused)
  const next = verdict.versions[server] ?? ''
  if (!isMinorOf(cluster.postgresVersion, next))
    throw new UpgradeRefused([`${next} is no version of PostgreSQL ${cluster.postgresVersion}.`])
  return verdict.versions
}

function workOf(bench: Bench, versions: Readonly<Record<string, string>>): RollingWork {
  const hold = holdOf(bench.cluster.packages)
  const packages = (node: ClusterNode): Step[] => [
    upgradePackages(bench, node, versions),
    ...(hold === undefined ? [] : [holdStep(bench, node, hold)]),
  ]
  return {
    name: 'upgrade',
    renew: node => [...packages(node), restartUpgraded(bench, node, versions)],
    isDone: (node, context) => isUpgraded(bench, node, versions, context),
    // Between its stop and its start: so it never replays what a newer server has written, and is never the primary meanwhile.
    whileStopped: packages,
  }
}

/** What was installed, and what the description asks for from now on: otherwise the next look at it would call this a drift. */
async function recordVersions(store: Store, bench: Bench): Promise<void> {
  const nodes = present(bench)
  const installed = new Map(
    await Promise.all(
      nodes.map(async node => {
        const { packages } = await bench.inspect(node, AbortSignal.timeout(30_000))
        return [node.name, packages] as const
      }),
    ),
  )
  const [server, repmgr] = bench.layout.packages
  const [first] = installed.values()
  await store.clusters.update(bench.cluster.name, current => {
    const cluster = withoutHandover(current, bench.operationId)
    return {
      ...withVersions(cluster, first?.[server], first?.[repmgr]),
      nodes: cluster.nodes.map(node => {
        const packages = installed.get(node.name)
        return packages ? { ...node, installed: packages } : node
      }),
    }
  })
}

/** Only where the description names a version: one that does not is content with any. */
function withVersions(cluster: Cluster, postgresql: string | undefined, repmgr: string | undefined): Cluster {
  const named = cluster.packages?.versions
  if (!cluster.packages || !named) return cluster
  const versions = {
    ...named,
    ...(named.postgresql !== undefined && postgresql !== undefined ? { postgresql } : {}),
    ...(named.repmgr !== undefined && repmgr !== undefined ? { repmgr } : {}),
  }
  return { ...cluster, packages: { ...cluster.packages, versions } }
}
