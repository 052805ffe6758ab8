/** Letting a running server take notice of a file, and knowing whether it has. */
import type { ClusterNode } from '../../src/cluster/model.js'
import { runCommand } from '../../src/host/actions.js'
import type { Command } from '../../src/host/command.js'
import type { ChangeStep } from '../../src/operations/step.js'
import type { Bench } from '../bench.js'
import { isInUse } from '../find-primary.js'
import { askLocal } from './local-sql.js'

/** A server that was there before and is ours: an automatic one is removed, and a new one is not started yet. */
export function servesAlready(bench: Bench, node: ClusterNode): boolean {
  const { server } = bench.found(node)
  return server.running && isInUse(server)
}

export const reloadCommand = ({ layout }: Pick<Bench, 'layout'>): Command => ({
  argv: ['systemctl', 'reload', layout.unit],
  as: 'root',
  timeoutMs: 60_000,
})

export function reloadIfRunning(bench: Bench, node: ClusterNode): ChangeStep['actions'] {
  if (!servesAlready(bench, node)) return []
  return [runCommand(bench.host(node), bench.cluster.name, reloadCommand(bench))]
}

/**
 * A worker that died between writing a file and the reload leaves a file that is right and a server that does not know
 * it. The file's time has whole seconds, so what was written just after a reload may count as read.
 */
export async function staleReason(
  bench: Bench,
  node: ClusterNode,
  path: string,
  signal: AbortSignal,
): Promise<string | undefined> {
  if (!servesAlready(bench, node)) return undefined
  const quoted = `'${path.replaceAll("'", "''")}'`
  const read = await askLocal(
    bench,
    node,
    signal,
    `SELECT pg_conf_load_time() >= (pg_stat_file(${quoted})).modification`,
  )
  return read === 't' ? undefined : `the server has not read ${path} since it was written`
}
