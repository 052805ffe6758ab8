/** Settings as aligned text: one line a setting, one column a node. */
import type { SettingRow, SettingsReport } from '../cluster/settings-report.js'
import { table } from './text.js'

export function settingsText({ cluster, workload, nodes }: SettingsReport): string {
  const names = [...new Set(nodes.flatMap(({ settings }) => settings.map(({ name }) => name)))].sort()
  const rows = names.map(name => {
    const each = nodes.map(node => node.settings.find(row => row.name === name))
    const first = each.find(row => row !== undefined)
    return [name, ...each.map(valueText), first?.source, first?.because]
  })
  const remarks = nodes.flatMap(({ node, problem, settings }) => [
    ...(problem === undefined ? [] : [`${node}: ${problem}`]),
    ...settings.flatMap(row =>
      row.setAgainIn === undefined ? [] : [`${node}: ${row.name} is set again in ${row.setAgainIn}, which counts.`],
    ),
  ])
  const waiting = nodes.filter(({ pendingRestart }) => pendingRestart.length > 0)
  return [
    `${cluster}: workload ${workload}.`,
    ...waiting.map(({ node, pendingRestart }) => `${node} waits for a restart: ${pendingRestart.join(', ')}.`),
    ...remarks,
    '',
    table(['SETTING', ...nodes.map(({ node }) => node.toUpperCase()), 'SOURCE', 'BECAUSE'], rows),
    '',
  ].join('\n')
}

/** What is in effect, and behind an arrow what will be after a restart. */
function valueText(row: SettingRow | undefined): string | undefined {
  if (row === undefined) return undefined
  const now = row.inEffect ?? undefined
  return row.pendingRestart ? `${now} → ${row.wanted}` : now
}
