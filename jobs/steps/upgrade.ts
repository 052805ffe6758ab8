/** A newer minor version on one node: its packages first, which touch no running server, then the server. */
import type { ClusterNode } from '../../src/cluster/model.js'
import { act, runCommand, runSql } from '../../src/host/actions.js'
import { runDetached } from '../../src/host/detached-action.js'
import { OperationError } from '../../src/operations/errors.js'
import type { ChangeStep, Check, CheckContext, Step } from '../../src/operations/step.js'
import type { Bench } from '../bench.js'
import { NotInTime, until } from '../until.js'
import { superuser } from './local-sql.js'
import { explained, managerOf } from './packages.js'
import { beginRestart } from './restart.js'

/** A shutdown with its checkpoint, a start with its replay. */
const RESTART_TIMEOUT_MS = 24 * 3_600_000
const LAUNCH_TIMEOUT_MS = 60_000

/** Of those that are on the node, the version that each is to have. */
export function wantedOn(bench: Bench, node: ClusterNode, versions: Readonly<Record<string, string>>) {
  const { packages = [] } = bench.upgrades?.get(node.name) ?? {}
  return packages.flatMap(({ name }) => {
    const version = versions[name]
    return version === undefined ? [] : [{ name, version }]
  })
}

/** What still has another version, in words. */
async function differing(
  bench: Bench,
  node: ClusterNode,
  versions: Readonly<Record<string, string>>,
  signal: AbortSignal,
): Promise<string[]> {
  const wanted = wantedOn(bench, node, versions)
  const names = wanted.map(({ name }) => name)
  const { installed } = await managerOf(bench, node).inspect(bench.host(node), names, { signal })
  return wanted
    .filter(({ name, version }) => installed[name] !== version)
    .map(({ name, version }) => `${name} is ${installed[name] ?? 'not installed'} and becomes ${version}`)
}

/** Before anything is touched: a source that fails, on whichever node, fails the upgrade while nothing has happened. */
export function fetchPackages(bench: Bench, node: ClusterNode, versions: Readonly<Record<string, string>>): Step {
  const wanted = wantedOn(bench, node, versions)
  const manager = managerOf(bench, node)
  return {
    id: `${node.name}/fetch`,
    kind: 'verify',
    title: 'fetch the packages',
    node: node.name,
    actions: [
      explained(
        bench,
        node,
        { packages: wanted },
        runCommand(bench.host(node), bench.cluster.name, manager.fetchUpgrade(wanted)),
      ),
      act('see what is to be upgraded', async ({ signal, note }) => {
        const left = await differing(bench, node, versions, signal)
        note(left.length === 0 ? 'nothing is to be upgraded' : left.join(', '))
      }),
    ],
  }
}

/** Thrown when an upgrade of packages failed on a node: where everything is then, and that the others are as they were. */
class UpgradeFailed extends OperationError {
  constructor(node: string, cause: OperationError) {
    super(`The packages of ${node} could not be upgraded: ${cause.message}`, {
      code: cause.code,
      outcome: cause.outcome === 'not_started' ? 'not_started' : 'failed_partial',
      remedy: `${cause.remedy} It stopped at ${node}, whose server was not restarted by it; the nodes after it, and the primary, were not touched. Put ${node} right (as root there: dpkg --configure -a && apt-get -f install), then retry the operation: it goes on from ${node}.`,
      cause,
      ...(cause.output === undefined ? {} : { output: cause.output }),
    })
  }
}

export function upgradePackages(bench: Bench, node: ClusterNode, versions: Readonly<Record<string, string>>): Step {
  const wanted = wantedOn(bench, node, versions)
  const manager = managerOf(bench, node)
  const install = runDetached(bench.host(node), bench.cluster.name, manager.upgrade(wanted), {
    name: `${node.name}-upgrade`,
    stillStands: async ({ signal }) => (await differing(bench, node, versions, signal)).length === 0,
  })
  const action = explained(bench, node, { packages: wanted }, install)
  return {
    id: `${node.name}/upgrade`,
    kind: 'change',
    title: 'upgrade the packages, without a restart of the server',
    node: node.name,
    actions: [
      {
        description: action.description,
        async perform(context) {
          try {
            await action.perform(context)
          } catch (error) {
            if (!(error instanceof OperationError) || context.signal.aborted) throw error
            throw new UpgradeFailed(node.name, error)
          }
        },
      },
    ],
    async check({ signal }): Promise<Check> {
      const left = await differing(bench, node, versions, signal)
      if (left.length > 0) return { done: false, reason: left.join(', ') }
      return { done: true, note: wanted.map(({ name, version }) => `${name} ${version}`).join(', ') }
    },
  }
}

/**
 * Whether a server still runs what was replaced: files that it has mapped are not in their place any more. No version says
 * this of a library, and no time of a file could be compared with that of a start.
 */
const REPLACED = `pid=$(head -n 1 "$1/postmaster.pid" 2>/dev/null)
[ -n "$pid" ] && [ -r "/proc/$pid/maps" ] || exit 0
grep -E " $2/.* \\(deleted\\)$" "/proc/$pid/maps" | sed -n 's/.* \\(\\/.*\\) (deleted)$/\\1/p' | sort -u`

async function replacedFiles(bench: Bench, node: ClusterNode, signal: AbortSignal): Promise<string[]> {
  const { layout } = bench
  const { stdout } = await bench.host(node).run(
    {
      argv: [
        'sh',
        '-c',
        REPLACED,
        'understudy-replaced',
        layout.dataDirectory,
        layout.binDirectory.replace(/\/bin$/, ''),
      ],
      as: 'root',
      timeoutMs: 30_000,
      shownAs: 'see whether the server runs files that were replaced',
    },
    { signal },
  )
  return stdout.split('\n').filter(line => line !== '')
}

/** Whether the node has its packages, and its server runs them. */
export async function isUpgraded(
  bench: Bench,
  node: ClusterNode,
  versions: Readonly<Record<string, string>>,
  { signal }: Pick<CheckContext, 'signal'>,
): Promise<Check> {
  const left = await differing(bench, node, versions, signal)
  if (left.length > 0) return { done: false, reason: left.join(', ') }
  const replaced = await replacedFiles(bench, node, signal)
  return replaced.length === 0
    ? { done: true, note: 'its server runs the version that is asked for' }
    : { done: false, reason: `its server still runs ${replaced.length} files that were replaced` }
}

export function restartUpgraded(
  bench: Bench,
  node: ClusterNode,
  versions: Readonly<Record<string, string>>,
): ChangeStep {
  return {
    id: `${node.name}/restart`,
    kind: 'change',
    title: 'restart the server where it runs what was replaced',
    node: node.name,
    actions: [
      beginRestart(bench, node),
      act('wait until it has started anew and accepts connections', async context => {
        let seenAtMs = performance.now()
        await until(`PostgreSQL on ${node.name} has started anew`, RESTART_TIMEOUT_MS, context, async () => {
          const { running, inRecovery } = await bench.inspect(node, context.signal)
          if (running) seenAtMs = performance.now()
          else if (performance.now() - seenAtMs > LAUNCH_TIMEOUT_MS)
            throw new NotInTime(`PostgreSQL on ${node.name} runs again`, LAUNCH_TIMEOUT_MS)
          return inRecovery !== undefined && (await replacedFiles(bench, node, context.signal)).length === 0
        })
      }),
    ],
    async check(context): Promise<Check> {
      const { running, inRecovery } = await bench.inspect(node, context.signal)
      if (!running) return { done: false, reason: 'it does not run' }
      if (inRecovery === undefined) return { done: false, reason: 'it runs, and does not accept connections yet' }
      return isUpgraded(bench, node, versions, context)
    },
  }
}

const EXTENSION =
  "SELECT installed_version AS has, default_version AS comes FROM pg_available_extensions WHERE name = 'repmgr'"

/**
 * A newer repmgr brings newer functions: they are the database's, and standbys have them from the primary. Which of `nodes`
 * that is, is seen when it is reached. A witness has a database of its own.
 */
export function updateExtension(bench: Bench, nodes: readonly ClusterNode[], of: 'cluster' | ClusterNode): ChangeStep {
  const writable = async (signal: AbortSignal): Promise<ClusterNode> => {
    for (const node of nodes) if ((await bench.inspect(node, signal)).inRecovery === false) return node
    throw new NotInTime(`one of ${nodes.map(({ name }) => name).join(', ')} accepts writes`, 0)
  }
  const shown = 'ALTER EXTENSION repmgr UPDATE'
  return {
    id: `${of === 'cluster' ? of : of.name}/extension`,
    kind: 'change',
    title: 'bring the extension repmgr to the version of its package',
    ...(of === 'cluster' ? {} : { node: of.name }),
    actions: [
      {
        description: { kind: 'sql', text: shown },
        async perform(context) {
          const node = await writable(context.signal)
          const sql = { ...superuser(bench, 'repmgr'), shown, statement: () => `${shown};\n` }
          await runSql(bench.host(node), bench.cluster.name, sql).perform(context)
        },
      },
    ],
    async check({ signal }): Promise<Check> {
      const node = await writable(signal)
      const [row] = await bench.ask(node, { signal }, query => query(EXTENSION))
      return row?.has === row?.comes
        ? { done: true, note: `repmgr ${row?.has} on ${node.name}` }
        : { done: false, reason: `it is ${row?.has}, and the package has ${row?.comes}` }
    },
  }
}
