/** The settings of a server: what each part of the description asks for, in one managed file. */
import { archiveOf } from '../../src/cluster/archive.js'
import type { ClusterNode } from '../../src/cluster/model.js'
import { tlsOf } from '../../src/cluster/tls.js'
import { isWitness } from '../../src/cluster/topology.js'
import type { RemoteFile } from '../../src/host/files.js'
import type { Step } from '../../src/operations/step.js'
import { archiveSettings } from '../../src/postgres/archive.js'
import { parseSettingState, type SettingState, settingStateQuery } from '../../src/postgres/setting-state.js'
import { delaySettings, managedSettings, REPLICATION_SETTINGS, type Setting } from '../../src/postgres/settings.js'
import { tlsSettings } from '../../src/postgres/tls.js'
import type { Bench } from '../bench.js'
import { refuseWrongSettings } from '../refuse-settings.js'
import { fileStep } from './file-step.js'
import { askedSettings, hardwareSettings, withShared } from './hardware-settings.js'
import { askLocal } from './local-sql.js'
import { reloadIfRunning, servesAlready, staleReason } from './reload.js'
import { countLast, setAgain } from './settings-last.js'

/** In the order in which they count: what comes later wins. */
export function settingsOf(bench: Bench, node: ClusterNode): Setting[] {
  const { cluster } = bench
  return [
    ...REPLICATION_SETTINGS,
    ...hardwareSettings(bench, node),
    // The WAL of a witness is not the cluster's: it must never be among what is restored from.
    ...(isWitness(node) ? [] : archiveSettings(archiveOf(cluster))),
    ...tlsSettings(tlsOf(cluster), bench.layout),
    ...delaySettings(node),
    ...askedSettings(cluster, node),
  ]
}

/**
 * `afterRestart`: as they are once every other server was started again with what it was told. Beside the file the step looks
 * at what the server makes of it: what waits for a restart, and what is set again elsewhere, is said and not waited for.
 */
export function writeSettings(
  bench: Bench,
  node: ClusterNode,
  { afterRestart = false, id = 'settings' }: { afterRestart?: boolean; id?: string } = {},
): Step {
  const { layout, cluster } = bench
  const file: RemoteFile = {
    path: layout.managedSettings,
    content: managedSettings(
      { cluster: cluster.name, node: node.name },
      withShared(bench, node, settingsOf(bench, node), { afterRestart }),
    ),
    owner: 'postgres:postgres',
    mode: '0644',
  }
  const step = fileStep(bench, node, {
    id,
    title: 'write the settings',
    file,
    after: [...countLast(bench, node), ...reloadIfRunning(bench, node)],
    unfinished: async signal =>
      (await setAgain(bench, node, signal)) ?? staleReason(bench, node, layout.managedSettings, signal),
  })
  return {
    ...step,
    async check(context) {
      await refuseWrongSettings(bench, context.signal, [node])
      const found = await step.check(context)
      const note = found.done ? await remarks(bench, node, context.signal) : undefined
      return note === undefined ? found : { done: true, note }
    },
  }
}

async function remarks(bench: Bench, node: ClusterNode, signal: AbortSignal): Promise<string | undefined> {
  if (!servesAlready(bench, node)) return undefined
  const { pending, shadowed, wrong } = await settingState(bench, node, signal)
  const parts = [
    ...(pending.length > 0
      ? [
          `${pending.join(', ')} ${pending.length === 1 ? 'waits' : 'wait'} for a restart: PATCH /v1/clusters/${bench.cluster.name}/settings with {"restart":"when-needed"} makes one, standbys first`,
        ]
      : []),
    ...shadowed.map(({ name, by }) => `${name} is set again in ${by}, which counts`),
    ...wrong.map(({ name, error }) => `${name}: ${error}`),
  ]
  return parts.length === 0 ? undefined : `${parts.join('; ')}.`
}

/** What the node's running server makes of our file. */
export async function settingState(bench: Bench, node: ClusterNode, signal: AbortSignal): Promise<SettingState> {
  return parseSettingState(await askLocal(bench, node, signal, settingStateQuery(bench.layout.managedSettings)))
}
