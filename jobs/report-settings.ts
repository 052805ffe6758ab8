/** Asks every server what it runs with, and says beside it what is wanted and why. Changes nothing. */
import type { Cluster, ClusterNode } from '../src/cluster/model.js'
import type { NodeSettings, SettingRow, SettingsReport } from '../src/cluster/settings-report.js'
import { DEFAULT_WORKLOAD } from '../src/cluster/workload.js'
import type { HostPool } from '../src/host/host.js'
import { OperationError } from '../src/operations/errors.js'
import { ServerUnreachable } from '../src/postgres/connect.js'
import type { Setting } from '../src/postgres/settings.js'
import { SHARED_SETTINGS } from '../src/postgres/shared-settings.js'
import { makePassword, repmgrPassword } from '../src/store/secrets.js'
import type { Store } from '../src/store/store.js'
import { type Bench, openBench } from './bench.js'
import { openTls } from './open-tls.js'
import { withShared } from './steps/hardware-settings.js'
import { settingState, settingsOf } from './steps/settings.js'

export async function reportSettings(
  { store, pool }: { store: Store; pool: HostPool },
  cluster: Cluster,
  signal: AbortSignal,
): Promise<SettingsReport> {
  // Nothing is written: where there is no password yet, any will do, and no server to use it on.
  const password = (await store.secrets.get(repmgrPassword(cluster.name))) ?? makePassword()
  const tls = await openTls(store.secrets, cluster, cluster, false)
  const bench = await openBench(cluster, password, pool, () => true, signal, tls)
  return {
    cluster: cluster.name,
    workload: cluster.workload ?? DEFAULT_WORKLOAD,
    nodes: await Promise.all(cluster.nodes.map(node => settingsOfNode(bench, node, signal))),
    observedAt: new Date().toISOString(),
  }
}

async function settingsOfNode(bench: Bench, node: ClusterNode, signal: AbortSignal): Promise<NodeSettings> {
  const nothing = { node: node.name, pendingRestart: [], settings: [] }
  const away = bench.absent.get(node.name)
  if (away !== undefined) return { ...nothing, problem: away }
  const wanted = lastOf(withShared(bench, node, settingsOf(bench, node)))
  const unasked = { ...node, settings: {} }
  const computed = lastOf(settingsOf({ ...bench, cluster: { ...bench.cluster, settings: {} } }, unasked))
  const rows = (now: ReadonlyMap<string, string>, pending: readonly string[], shadows: ReadonlyMap<string, string>) =>
    [...wanted.values()]
      .map(setting => rowOf(bench, node, setting, { computed: computed.get(setting.name), now, pending, shadows }))
      .sort((a, b) => (a.name < b.name ? -1 : 1))
  if (!bench.found(node).server.running)
    return { ...nothing, problem: 'PostgreSQL does not run.', settings: rows(new Map(), [], new Map()) }
  try {
    const { pending, shadowed } = await settingState(bench, node, signal)
    const shown = await bench.ask(node, { signal }, query =>
      query('SELECT name, current_setting(name, true) AS value FROM unnest($1::text[]) AS name', [[...wanted.keys()]]),
    )
    const now = new Map(shown.flatMap(({ name, value }) => (value === null ? [] : [[String(name), String(value)]])))
    const shadows = new Map(shadowed.map(({ name, by }) => [name, by]))
    return { node: node.name, pendingRestart: pending, settings: rows(now, pending, shadows) }
  } catch (error) {
    if (!(error instanceof OperationError || error instanceof ServerUnreachable)) throw error
    return { ...nothing, problem: error.message, settings: rows(new Map(), [], new Map()) }
  }
}

const lastOf = (settings: readonly Setting[]) => new Map(settings.map(setting => [setting.name, setting]))

function rowOf(
  { cluster }: Bench,
  node: ClusterNode,
  { name, value, because }: Setting,
  found: {
    computed: Setting | undefined
    now: ReadonlyMap<string, string>
    pending: readonly string[]
    shadows: ReadonlyMap<string, string>
  },
): SettingRow {
  const { computed, now, pending, shadows } = found
  const asked = Object.hasOwn(node.settings ?? {}, name)
    ? 'node'
    : Object.hasOwn(cluster.settings ?? {}, name)
      ? 'cluster'
      : undefined
  const shared = (SHARED_SETTINGS as readonly string[]).includes(name)
  const by = shadows.get(name)
  return {
    name,
    inEffect: now.get(name) ?? null,
    wanted: value,
    ...(computed === undefined ? {} : { computed: computed.value }),
    source: asked ?? (shared ? 'shared' : 'computed'),
    ...(because === undefined || asked ? {} : { because }),
    pendingRestart: pending.includes(name),
    ...(by === undefined ? {} : { setAgainIn: by }),
  }
}
