/** The proof that a cluster speaks TLS: this service and every node come in, verified, and no stream is in the clear. */
import type { ClusterNode } from '../../src/cluster/model.js'
import { tlsOf } from '../../src/cluster/tls.js'
import { act } from '../../src/host/actions.js'
import { OperationError } from '../../src/operations/errors.js'
import type { Step, StepContext } from '../../src/operations/step.js'
import { withServer } from '../../src/postgres/connect.js'
import { nodeConninfo } from '../../src/repmgr/conf.js'
import { addressOf, type Bench } from '../bench.js'
import { askLocal } from './local-sql.js'

/** Thrown when a server that was told to speak TLS does not, or with a certificate that somebody does not believe. */
export class TlsNotProven extends OperationError {
  constructor(failures: readonly string[]) {
    super(failures.join('; '), {
      code: 'tls-not-proven',
      outcome: 'failed_partial',
      remedy:
        'Nobody depends on it yet: connections without TLS are let in as before. The server’s log says why it does not take its certificate; ' +
        'a name that a client asks for must be in it. Mend that, then repeat the call.',
    })
  }
}

/** Before anybody depends on it: a failure here leaves a cluster that works as it did. */
export function proveTls(bench: Bench, nodes: readonly ClusterNode[]): Step {
  return {
    id: 'cluster/tls-proof',
    kind: 'verify',
    title: `connect to ${nodes.map(({ name }) => name).join(', ')} by TLS, and verify each`,
    actions: [
      act('from this service and from every other node: the CA, the name, the encryption', async context => {
        const failures = (
          await Promise.all(
            nodes.flatMap(node => [fromHere(bench, node, context), ...fromNodes(bench, nodes, node, context)]),
          )
        ).filter(failure => failure !== undefined)
        if (failures.length > 0) throw new TlsNotProven(failures)
        context.note(
          `this service and ${nodes.length === 1 ? 'nobody else' : 'every node'} verified ${nodes.map(({ name }) => name).join(', ')}`,
        )
      }),
    ],
  }
}

async function fromHere(bench: Bench, node: ClusterNode, { signal }: StepContext): Promise<string | undefined> {
  const { ca } = bench.tls
  if (ca === undefined) throw new TypeError('TLS without a CA')
  try {
    await withServer(
      { host: node.host, port: bench.cluster.port, trust: { tls: 'verified', ca } },
      { user: 'repmgr', database: 'repmgr', password: bench.password },
      { timeoutMs: 10_000, signal },
      query => query('SELECT 1'),
    )
    return undefined
  } catch (error) {
    if (!(error instanceof OperationError)) throw error
    return error.message
  }
}

const fromNodes = (bench: Bench, nodes: readonly ClusterNode[], node: ClusterNode, { signal }: StepContext) =>
  nodes
    .filter(from => from !== node)
    .map(async from => {
      const conninfo = nodeConninfo(addressOf(bench.cluster, bench.layout, node), 5)
      // A warning, of a collation that has changed for one, is no failure.
      const script = `said=$("$1" -XAtqw -d "$2" -c "SELECT 1" 2>&1 >/dev/null) || printf '%s\\n' "\${said:-it says nothing}"`
      const { stdout } = await bench.host(from).run(
        {
          argv: ['sh', '-c', script, 'understudy-tls', `${bench.layout.binDirectory}/psql`, conninfo],
          as: 'postgres',
          timeoutMs: 30_000,
          shownAs: `psql "${conninfo}"`,
        },
        { signal },
      )
      const said = stdout.trim()
      return said === ''
        ? undefined
        : `${from.name} cannot connect to ${node.name} by TLS: ${said.replaceAll('\n', ' ')}`
    })

/** At the end: who is connected as repmgr, or streams, over the network and not by TLS. */
export function proveEncrypted(bench: Bench, nodes: readonly ClusterNode[]): Step {
  const { clients } = tlsOf(bench.cluster)
  return {
    id: 'cluster/tls-in-use',
    kind: 'verify',
    title: 'see that every stream is encrypted',
    actions: [
      act(
        'ask each server about its streams, and about the clients that came in before (pg_stat_ssl)',
        async context => {
          const found = await Promise.all(
            nodes.map(async node => ({ node, ...(await connectionsOf(bench, node, context.signal)) })),
          )
          const open = found.flatMap(({ node, plainStreams }) =>
            plainStreams.map(name => `${name} streams from ${node.name} in the clear`),
          )
          if (open.length > 0) throw new TlsNotProven(open)
          const streams = found.reduce((sum, one) => sum + one.streams, 0)
          const plain = found.filter(({ plainClients }) => plainClients > 0)
          const old =
            clients === 'allowed' || plain.length === 0
              ? ''
              : `; connections from before, without TLS until they end: ${plain.map(({ node, plainClients }) => `${plainClients} on ${node.name}`).join(', ')}`
          context.note(`${streams} ${streams === 1 ? 'stream is' : 'streams are'} encrypted${old}`)
        },
      ),
    ],
  }
}

async function connectionsOf(bench: Bench, node: ClusterNode, signal: AbortSignal) {
  const text = await askLocal(
    bench,
    node,
    signal,
    `SELECT json_build_object(
       'streams', (SELECT count(*) FROM pg_stat_replication),
       'plainStreams', (SELECT COALESCE(json_agg(r.application_name), '[]') FROM pg_stat_replication r JOIN pg_stat_ssl s USING (pid)
                         WHERE NOT s.ssl AND r.client_addr IS NOT NULL),
       'plainClients', (SELECT count(*) FROM pg_stat_activity a JOIN pg_stat_ssl s USING (pid)
                         WHERE NOT s.ssl AND a.client_addr IS NOT NULL AND a.backend_type = 'client backend'))`,
  )
  return JSON.parse(text) as { streams: number; plainStreams: string[]; plainClients: number }
}
