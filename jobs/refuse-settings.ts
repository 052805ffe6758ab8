/** Settings that an owner asks for are put before the PostgreSQL of each host before anything is written. */
import type { ClusterNode } from '../src/cluster/model.js'
import { objectionTo } from '../src/cluster/setting-overrides.js'
import { OperationError } from '../src/operations/errors.js'
import { checkSettings } from '../src/postgres/check-settings.js'
import type { Bench } from './bench.js'

/** Thrown when a setting cannot be had, by PostgreSQL’s own word or because the cluster needs it as it is. */
export class SettingRefused extends OperationError {
  constructor(objections: readonly string[], output?: string) {
    super(objections.join(' '), {
      code: 'setting-refused',
      outcome: 'not_started',
      remedy: 'Mend or leave out what is named, then repeat the call. Nothing was written.',
      ...(output === undefined ? {} : { output }),
    })
  }
}

/** Throws `SettingRefused`. Where PostgreSQL is not installed yet, the step that writes the settings asks again. */
export async function refuseWrongSettings(
  bench: Bench,
  signal: AbortSignal,
  nodes: readonly ClusterNode[] = bench.cluster.nodes,
): Promise<void> {
  const present = nodes.filter(({ name }) => !bench.absent.has(name))
  const found = (await Promise.all(present.map(node => objectionsOn(bench, node, signal)))).flat()
  // The same answer of every node is one answer.
  const nodesOf = new Map<string, string[]>()
  for (const { node, detail } of found) nodesOf.set(detail, [...(nodesOf.get(detail) ?? []), node])
  if (nodesOf.size === 0) return
  throw new SettingRefused([...nodesOf].map(([detail, names]) => `${names.join(', ')}: ${detail}`))
}

async function objectionsOn(
  bench: Bench,
  node: ClusterNode,
  signal: AbortSignal,
): Promise<{ node: string; detail: string }[]> {
  const asked = { ...bench.cluster.settings, ...node.settings }
  if (Object.keys(asked).length === 0) return []
  const ours = Object.entries(asked).flatMap(([name, value]) => {
    const objection = objectionTo(name, value)
    return objection === undefined ? [] : [{ node: node.name, detail: `${name} cannot be set so. ${objection}` }]
  })
  const theirs = (await checkSettings(bench.host(node), bench.layout, asked, { signal })) ?? []
  return [...ours, ...theirs.map(({ name, detail }) => ({ node: node.name, detail: `${name}: ${detail}` }))]
}
