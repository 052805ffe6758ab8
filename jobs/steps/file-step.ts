/** Steps that are about one file, and what makes a running server take notice of it. */
import type { ClusterNode } from '../../src/cluster/model.js'
import { putFile, runCommand } from '../../src/host/actions.js'
import { fileMatches, type RemoteFile } from '../../src/host/files.js'
import type { ChangeStep, Check, Step } from '../../src/operations/step.js'
import type { Bench } from '../bench.js'

/** A step that is done when a file is exactly as it should be. */
export function fileStep(
  bench: Bench,
  node: ClusterNode,
  what: { id: string; title: string; file: RemoteFile; before?: ChangeStep['actions']; after?: ChangeStep['actions'] },
): Step {
  return {
    id: `${node.name}/${what.id}`,
    kind: 'change',
    title: what.title,
    node: node.name,
    actions: [...(what.before ?? []), putFile(bench.host(node), bench.cluster.name, what.file), ...(what.after ?? [])],
    async check({ signal }): Promise<Check> {
      const same = await fileMatches(bench.host(node), what.file, { signal })
      return same ? { done: true } : { done: false, reason: `${what.file.path} is missing or different` }
    },
  }
}

/** A server that was there before and is ours: an automatic one is removed, and a new one is not started yet. */
export function servesAlready(bench: Bench, node: ClusterNode): boolean {
  const { running, marker } = bench.found(node).server
  return running && marker?.state === 'in-use'
}

export function reloadIfRunning(bench: Bench, node: ClusterNode): ChangeStep['actions'] {
  if (!servesAlready(bench, node)) return []
  const command = { argv: ['systemctl', 'reload', bench.layout.unit], as: 'root', timeoutMs: 60_000 } as const
  return [runCommand(bench.host(node), bench.cluster.name, command)]
}
