/** Who may come in: pg_hba.conf, and the passwords that the nodes use among themselves. */
import type { ClusterNode } from '../../src/cluster/model.js'
import { act, changing } from '../../src/host/actions.js'
import { type RemoteFile, readFile, writeFile } from '../../src/host/files.js'
import { OperationError } from '../../src/operations/errors.js'
import type { Action, Check, Step } from '../../src/operations/step.js'
import { managedBlock, withManagedBlock } from '../../src/postgres/hba.js'
import { passFile } from '../../src/postgres/pass-file.js'
import type { Bench } from '../bench.js'
import { fileStep, reloadIfRunning, servesAlready } from './file-step.js'

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
  const host = bench.host(node)
  const block = managedBlock({ nodes: cluster.nodes.map(({ host }) => host), controllers: bench.controllers })
  const wanted = async (signal: AbortSignal): Promise<{ existing: string; content: string }> => {
    const existing = (await readFile(host, layout.hbaFile, { signal })) ?? ''
    return { existing, content: withManagedBlock(existing, block) }
  }
  const write: Action = {
    description: {
      kind: 'file',
      path: layout.hbaFile,
      owner: 'postgres:postgres',
      mode: '0640',
      content: `${block}(the rest of the file stays as it is)\n`,
    },
    async perform({ signal, epoch }) {
      const { content } = await wanted(signal)
      await writeFile(
        changing(host, cluster.name, epoch),
        { path: layout.hbaFile, content, owner: 'postgres:postgres', mode: '0640' },
        { signal },
      )
    },
  }
  return {
    id: `${node.name}/access`,
    kind: 'change',
    title: 'let the nodes and the service in, by password (SCRAM) only',
    node: node.name,
    actions: [write, ...(servesAlready(bench, node) ? [checkRules(bench, node)] : []), ...reloadIfRunning(bench, node)],
    async check({ signal }): Promise<Check> {
      const { existing, content } = await wanted(signal)
      return existing === content
        ? { done: true }
        : { done: false, reason: 'the managed block of pg_hba.conf is missing or different' }
    },
  }
}

/** The view reads the file as it is now, before the reload makes it count. */
function checkRules(bench: Bench, node: ClusterNode): Action {
  return act('ask the server whether it accepts the rules (pg_hba_file_rules)', async ({ signal }) => {
    const { stdout } = await bench.host(node).run(
      {
        argv: [
          `${bench.layout.binDirectory}/psql`,
          '-XAtqw',
          '-p',
          String(bench.cluster.port),
          '-d',
          'postgres',
          '-c',
          "SELECT 'line ' || line_number || ': ' || error FROM pg_hba_file_rules WHERE error IS NOT NULL",
        ],
        as: 'postgres',
        timeoutMs: 15_000,
      },
      { signal },
    )
    if (stdout.trim() !== '') throw new AccessRulesRefused(node.name, stdout.trim().replaceAll('\n', '; '))
  })
}

/** Every node can become the upstream of every other, so each knows the password for all. */
export function passFileStep(bench: Bench, node: ClusterNode): Step {
  const { cluster, layout } = bench
  const file: RemoteFile = {
    path: layout.passFile,
    content: passFile(
      cluster.nodes.map(({ host }) => host),
      cluster.port,
      bench.password,
    ),
    owner: 'postgres:postgres',
    mode: '0600',
    secret: true,
  }
  return fileStep(bench, node, { id: 'pass-file', title: 'write the password file of the postgres user', file })
}
