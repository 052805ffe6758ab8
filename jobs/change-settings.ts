import { isExchanging } from '../src/cluster/handover.js'
import type { ClusterNode } from '../src/cluster/model.js'
import { withSettings } from '../src/cluster/settings-change.js'
import { dataNodes, upstreamOf, witnesses } from '../src/cluster/topology.js'
import { type Plan, type Step, stage } from '../src/operations/step.js'
import type { SettingState } from '../src/postgres/setting-state.js'
import type { Bench } from './bench.js'
import { defineOperation } from './define-operation.js'
import { findPrimary } from './find-primary.js'
import { ownHandover } from './handover.js'
import { refuseStopped } from './refusals.js'
import { refuseWrongSettings, SettingRefused } from './refuse-settings.js'
import { beginRolling, completeRolling, failedRolling, rollingEnds } from './rolling.js'
import { rollingSettings } from './rolling-settings.js'
import { askLocal } from './steps/local-sql.js'
import { restartIfNeeded } from './steps/restart-if-needed.js'
import { settingState, writeSettings } from './steps/settings.js'
import { isInMainFile } from './steps/settings-last.js'
import { namesFor, proveSettings } from './steps/settings-proof.js'
import { follow } from './steps/standby.js'

/**
 * Settings of a running cluster, reloaded, and with `when-needed` one server after the other started again. Of what a
 * standby must have no less of than its primary: standbys get what is more before it, and what is less after it.
 */
export const changeSettings = defineOperation({
  type: 'change-settings',
  target: withSettings,
  // Of a rolling change it is looked at in its plan: roles that are half exchanged must not wait for another standby.
  mayBeAbsent: (_node, { restart }) => restart === 'rolling',
  holdsRepmgrd: ({ restart = 'never' }) => (restart === 'never' ? undefined : {}),
  async refuse(bench, input, signal) {
    if (isExchanging(ownHandover(bench))) return
    await refuseWrongSettings(bench, signal)
    await Promise.all(
      bench.cluster.nodes.map(async node => {
        const { shadowed } = await settingState(bench, node, signal)
        const inTheWay = [...shadowed, ...(await setBySql(bench, node, signal, shadowed))]
          .filter(({ name }) => namesFor(input, node).has(name))
          .filter(({ by }) => node.adopted !== true || !isInMainFile(bench.layout, by))
        if (inTheWay.length > 0) throw new SettingRefused(inTheWay.map(({ name, by }) => shadow(node, name, by)))
      }),
    )
  },
  plan(bench, { restart = 'never', ...change }): Plan {
    if (restart === 'rolling') return rollingSettings(bench, { ...change, restart })
    const { nodes } = bench.cluster
    const primary = findPrimary(bench)
    for (const node of nodes) refuseStopped(bench, node)
    const standbys = dataNodes(nodes).filter(node => node !== primary)
    const upstream = (node: ClusterNode) => upstreamOf(node, nodes, primary)
    const proof = stage('prove it', [proveSettings(bench, nodes, { ...change, restart })])
    if (restart === 'never')
      return [stage('write the settings', ...nodes.map(node => [writeSettings(bench, node)])), proof]
    return [
      ...standbys.map(node =>
        stage(`settings of ${node.name}`, [
          writeSettings(bench, node),
          restartIfNeeded(bench, node, { upstream: primary }),
          follow(bench, node, upstream(node)),
        ]),
      ),
      stage(`settings of ${primary.name}, the primary`, [
        writeSettings(bench, primary, { afterRestart: true }),
        restartIfNeeded(bench, primary),
      ]),
      ...standbys.map(node =>
        stage(`what ${node.name} had to keep until now`, afterPrimary(bench, node, primary, upstream(node))),
      ),
      ...witnesses(nodes).map(node =>
        stage(`settings of ${node.name}, the witness`, [writeSettings(bench, node), restartIfNeeded(bench, node)]),
      ),
      proof,
    ]
  },
  async begin(store, bench, input) {
    await store.clusters.update(bench.cluster.name, current => withSettings(current, input))
    if (input.restart === 'rolling') await beginRolling(store, bench, rollingEnds(bench, {}))
  },
  async complete(store, bench, { restart }) {
    if (restart === 'rolling') await completeRolling(store, bench)
  },
  failed: failedRolling,
})

function afterPrimary(bench: Bench, node: ClusterNode, primary: ClusterNode, upstream: ClusterNode): Step[] {
  return [
    writeSettings(bench, node, { afterRestart: true, id: 'settings-after' }),
    restartIfNeeded(bench, node, { upstream: primary, id: 'restart-after' }),
    { ...follow(bench, node, upstream), id: `${node.name}/follow-after` },
  ]
}

/** Of an adopted node our file may not be there yet, and ALTER SYSTEM will count before it all the same. */
async function setBySql(
  bench: Bench,
  node: ClusterNode,
  signal: AbortSignal,
  known: SettingState['shadowed'],
): Promise<SettingState['shadowed']> {
  if (node.adopted !== true) return []
  const json = await askLocal(
    bench,
    node,
    signal,
    `SELECT COALESCE(json_agg(json_build_object('name', lower(name), 'by', sourcefile || ' line ' || sourceline)), '[]')
       FROM pg_file_settings WHERE sourcefile = current_setting('data_directory') || '/postgresql.auto.conf'`,
  )
  const lines = JSON.parse(json) as SettingState['shadowed']
  return lines.filter(({ name }) => !known.some(one => one.name === name))
}

const shadow = (node: ClusterNode, name: string, by: string) =>
  `${node.name}: ${name} is set again in ${by}, which would count before it. ALTER SYSTEM RESET ${name} takes it out of postgresql.auto.conf.`
