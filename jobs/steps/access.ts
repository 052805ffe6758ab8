/** Who may come in: pg_hba.conf, and the passwords that the nodes use among themselves. */
import type { ClusterNode } from '../../src/cluster/model.js'
import { OperationError } from '../../src/operations/errors.js'
import type { Step } from '../../src/operations/step.js'
import { managedBlock } from '../../src/postgres/hba.js'
import { passFile } from '../../src/postgres/pass-file.js'
import type { Bench } from '../bench.js'
import { blockStep } from './file-step.js'
import { askLocal } from './local-sql.js'
import { reloadIfRunning, staleReason } from './reload.js'

/** Thrown when a running server says that its pg_hba.conf has an error. It goes on with the rules that it had. */
export class AccessRulesRefused extends OperationError {
  constructor(node: string, lines: string) {
    super(`PostgreSQL on ${node} does not accept its pg_hba.conf: ${lines}`, {
      code: 'access-rules-refused',
      outcome: 'failed_partial',
      remedy:
        'It keeps the rules that it had until then. Mend the line outside of the managed block, then repeat the call.',
    })
  }
}

/** Our block comes first in pg_hba.conf; everything else in it stays as it is. */
export function grantAccess(bench: Bench, node: ClusterNode): Step {
  const { layout, cluster } = bench
  const block = managedBlock({ nodes: cluster.nodes.map(({ host }) => host), controllers: bench.controllers })
  return blockStep(bench, node, {
    id: 'access',
    title: 'let the nodes and the service in, by password (SCRAM) only',
    file: { path: layout.hbaFile, owner: 'postgres:postgres', mode: '0640' },
    block,
    shown: block,
    after: reloadIfRunning(bench, node, signal => refuseRules(bench, node, signal)),
    async unfinished(signal) {
      return staleReason(bench, node, layout.hbaFile, signal)
    },
  })
}

/** The view reads the file as it is now, before the reload makes it count. */
async function refuseRules(bench: Bench, node: ClusterNode, signal: AbortSignal): Promise<void> {
  const lines = await askLocal(
    bench,
    node,
    signal,
    "SELECT 'line ' || line_number || ': ' || error FROM pg_hba_file_rules WHERE error IS NOT NULL",
  )
  if (lines !== '') throw new AccessRulesRefused(node.name, lines.replaceAll('\n', '; '))
}

/** Every node can become the upstream of every other, so each knows the password for all. */
export function passFileStep(bench: Bench, node: ClusterNode): Step {
  const { cluster, layout } = bench
  return blockStep(bench, node, {
    id: 'pass-file',
    title: 'write the passwords of the postgres user',
    file: { path: layout.passFile, owner: 'postgres:postgres', mode: '0600' },
    block: passFile(
      cluster.nodes.map(({ host }) => host),
      cluster.port,
      bench.password,
    ),
    shown: '[a block with the password, over standard input]\n',
  })
}
