/** The packages of PostgreSQL and repmgr: where they come from, their versions, and that nobody moves them. */
import type { ClusterNode } from '../../src/cluster/model.js'
import { holdOf, packageMismatches } from '../../src/cluster/packages.js'
import { putFile, runCommand } from '../../src/host/actions.js'
import { PackagesUnavailable } from '../../src/host/apt-errors.js'
import { runDetached } from '../../src/host/detached-action.js'
import { CommandFailed } from '../../src/host/errors.js'
import { fileMatches } from '../../src/host/files.js'
import { type PackageManager, type PackageRepository, packageManagerOf } from '../../src/host/package-manager.js'
import { pgdgRepository } from '../../src/host/pgdg.js'
import type { Action, Check, Step } from '../../src/operations/step.js'
import { wantedPackages } from '../../src/postgres/packages.js'
import { type Bench, SystemUnsupported } from '../bench.js'
import { isInUse } from '../find-primary.js'

/** In order. Throws where it is clear before anything is touched that the packages cannot be had. */
export function providePackages(bench: Bench, node: ClusterNode): Step[] {
  refuseWhatNoSourceHas(bench, node)
  const { packages } = bench.cluster
  const hold = holdOf(packages)
  return [
    ...sourceStep(bench, node),
    installStep(bench, node),
    ...(hold === undefined ? [] : [holdStep(bench, node, hold)]),
  ]
}

/** The survey has refused a host without one. */
export function managerOf(bench: Bench, node: ClusterNode): PackageManager {
  const { system } = bench.found(node)
  const manager = packageManagerOf(system)
  if (!manager) throw new SystemUnsupported(node.name, system.osName)
  return manager
}

const joined = (parts: readonly string[]) =>
  parts.length < 2 ? parts.join('') : `${parts.slice(0, -1).join(', ')} and ${parts.at(-1)}`

/** A host without lists of its sources is not refused: they are fetched before anything is installed. */
function refuseWhatNoSourceHas(bench: Bench, node: ClusterNode): void {
  const { layout, cluster } = bench
  const { packages: found, system } = bench.found(node)
  if (cluster.packages && cluster.packages.source !== 'distribution') return
  const missing = layout.packages.filter(name => found.installed[name] === undefined)
  if (missing.length === 0 || found.offers === undefined || found.offers.includes(layout.version)) return
  const offered =
    found.offers.length === 0
      ? 'no PostgreSQL with repmgr'
      : `PostgreSQL ${joined(found.offers.map(String))} with repmgr`
  throw new PackagesUnavailable(
    `${node.name} (${system.osName})`,
    { missing: joined(missing), offered },
    'not_started',
    'Describe the cluster with a version that they have, or name a source that has it ("packages": {"source": "pgdg"}, or a mirror). ' +
      'If its sources were changed just now, run apt-get update there first.',
  )
}

function repositoryOf(bench: Bench, node: ClusterNode): PackageRepository | undefined {
  const { packages } = bench.cluster
  if (!packages || packages.source === 'distribution') return undefined
  const { system, packages: found } = bench.found(node)
  const codename = (): string => {
    if (found.codename === undefined) throw new SystemUnsupported(node.name, `${system.osName}, without a codename`)
    return found.codename
  }
  const { mirror } = packages
  if (packages.source === 'pgdg' || !mirror) return pgdgRepository(codename())
  return {
    uri: mirror.uri,
    suite: mirror.suite ?? `${codename()}-pgdg`,
    components: mirror.components ?? ['main'],
    signingKey: mirror.signingKey,
    knownBy: { host: new URL(mirror.uri).hostname },
  }
}

function sourceStep(bench: Bench, node: ClusterNode): Step[] {
  const host = bench.host(node)
  const scope = bench.cluster.name
  const manager = managerOf(bench, node)
  const repository = repositoryOf(bench, node)
  const id = `${node.name}/package-source`
  if (!repository) {
    if (!bench.found(node).packages.ownSource) return []
    return [
      {
        id,
        kind: 'change',
        title: 'remove the package source that is not asked for any more',
        node: node.name,
        actions: [runCommand(host, scope, manager.forgetRepository)],
        async check({ signal }): Promise<Check> {
          const { ownSource } = await manager.inspect(host, [], { signal })
          return ownSource ? { done: false, reason: 'it is there' } : { done: true }
        },
      },
    ]
  }
  const files = manager.repositoryFiles(repository, `cluster ${scope}`)
  const { uri } = repository
  return [
    {
      id,
      kind: 'change',
      title: `take packages from ${uri}`,
      node: node.name,
      actions: [
        // Before it is put in place: a source that does not work would be in the way of every other installation.
        explained(bench, node, { uri }, runCommand(host, scope, manager.tryRepository(repository))),
        runCommand(host, scope, manager.repositoryDirectories),
        ...files.map(file => putFile(host, scope, file)),
      ],
      async check({ signal }): Promise<Check> {
        for (const file of files) {
          if (!(await fileMatches(host, file, { signal })))
            return { done: false, reason: `${file.path} is missing or different` }
        }
        return { done: true }
      },
    },
  ]
}

/** The action, with a clearer error where the package manager's output tells more than its exit status. */
export function explained(
  bench: Bench,
  node: ClusterNode,
  about: Parameters<PackageManager['explain']>[2],
  action: Action,
): Action {
  return {
    description: action.description,
    async perform(context) {
      try {
        await action.perform(context)
      } catch (error) {
        if (!(error instanceof CommandFailed)) throw error
        throw await managerOf(bench, node).explain(bench.host(node), error, about)
      }
    },
  }
}

function installStep(bench: Bench, node: ClusterNode): Step {
  const host = bench.host(node)
  const manager = managerOf(bench, node)
  const wanted = wantedPackages(bench.layout, bench.cluster.packages)
  const named = wanted.map(({ name, version }) => (version === undefined ? name : `${name} ${version}`))
  return {
    id: `${node.name}/packages`,
    kind: 'change',
    title: `install ${joined(named)}`,
    node: node.name,
    actions: [
      // Detached, because a package manager that is cut short leaves a host that needs repair. One command, so that a
      // worker that finds it under way has nothing to wait for before it can watch it.
      explained(
        bench,
        node,
        { packages: wanted },
        runDetached(host, bench.cluster.name, manager.install(wanted), { name: `${node.name}-packages` }),
      ),
    ],
    async check({ signal }): Promise<Check> {
      const names = wanted.map(({ name }) => name)
      const { installed } = await manager.inspect(host, names, { signal })
      const note = names.map(name => `${name} ${installed[name]}`).join(', ')
      const mismatches = packageMismatches(wanted, installed)
      if (mismatches.length === 0) return { done: true, note }
      const missing = mismatches.filter(mismatch => mismatch.installed === undefined)
      if (missing.length > 0) {
        return { done: false, reason: `${joined(missing.map(({ name }) => name))} is not installed` }
      }
      const differing = joined(mismatches.map(it => `${it.name} is ${it.installed} and not ${it.wanted}`))
      // Another version restarts the server: not as one step among many, and not on all nodes side by side.
      if (isInUse(await bench.inspect(node, signal))) {
        return { done: true, note: `${differing}; left so, because its server is in use` }
      }
      return { done: false, reason: differing }
    },
  }
}

/** Held packages are moved by nobody but a person: not by unattended-upgrades, and not by apt-get upgrade. */
export function holdStep(bench: Bench, node: ClusterNode, hold: boolean): Step {
  const host = bench.host(node)
  const manager = managerOf(bench, node)
  const names = wantedPackages(bench.layout, bench.cluster.packages).map(({ name }) => name)
  return {
    id: `${node.name}/hold`,
    kind: 'change',
    title: hold ? 'hold the packages at their versions' : 'let the packages be upgraded again',
    node: node.name,
    actions: [explained(bench, node, {}, runCommand(host, bench.cluster.name, manager.hold(names, hold)))],
    async check({ signal }): Promise<Check> {
      const { held } = await manager.inspect(host, names, { signal })
      const wrong = names.filter(name => held.includes(name) !== hold)
      if (wrong.length === 0) return { done: true }
      return {
        done: false,
        reason: `${joined(wrong)} ${wrong.length === 1 ? 'is' : 'are'} ${hold ? 'not held' : 'held'}`,
      }
    },
  }
}
