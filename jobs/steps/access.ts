/** Who may come in: pg_hba.conf, and the passwords that the nodes use among themselves. */
import { accessProblems, insidersOf } from '../../src/cluster/access.js'
import type { ClusterNode } from '../../src/cluster/model.js'
import { hasTls, tlsOf } from '../../src/cluster/tls.js'
import { act, changing, runCommand } from '../../src/host/actions.js'
import { fileMatches, type RemoteFile, readFile } from '../../src/host/files.js'
import { OperationError } from '../../src/operations/errors.js'
import type { Action, Check, Step, StepContext } from '../../src/operations/step.js'
import { ServerUnreachable } from '../../src/postgres/connect.js'
import { managedBlock } from '../../src/postgres/hba.js'
import { type HbaError, putHbaBack, replaceHba, settleHba, unprovenHba } from '../../src/postgres/hba-file.js'
import { withManagedBlock } from '../../src/postgres/managed-block.js'
import { passFile } from '../../src/postgres/pass-file.js'
import { nodeConninfo } from '../../src/repmgr/conf.js'
import { addressOf, type Bench } from '../bench.js'
import { until } from '../until.js'
import { blockStep } from './file-step.js'
import { askLocal } from './local-sql.js'
import { reloadCommand, servesAlready } from './reload.js'

/** Thrown when a running server says that its pg_hba.conf would have an error. The old file is back by then. */
export class AccessRulesRefused extends OperationError {
  constructor(node: string, errors: readonly string[]) {
    super(`PostgreSQL on ${node} does not accept the pg_hba.conf that it would have: ${errors.join('; ')}`, {
      code: 'access-rules-refused',
      outcome: 'failed_clean',
      remedy:
        'The old file is in place and in force. Mend the line outside of the managed block, then repeat the call; where the line is in the block, change the cluster’s access.',
    })
  }
}

/** Thrown when the new rules, once in force, kept out somebody who must come in. The old ones are in force again. */
export class AccessLockedOut extends OperationError {
  constructor(node: string, refusals: readonly string[], putBack: boolean) {
    super(`PostgreSQL on ${node} would not let in who must come in: ${refusals.join('; ')}`, {
      code: 'access-locked-out',
      outcome: putBack ? 'failed_clean' : 'failed_partial',
      remedy: `${putBack ? 'The old pg_hba.conf is in force again. ' : ''}Compare the address in the message with the nodes’ "host" and the cluster’s "controllers": a server that sees this service under another address than its sshd does needs that address in UNDERSTUDY_CONTROLLER_ADDRESSES, and a host name needs an entry in the name service for both directions. Then repeat the call.`,
    })
  }
}

/** Thrown before anything is planned when the description contradicts itself. */
export class AccessContradictory extends OperationError {
  constructor(problems: readonly { pointer: string; detail: string }[]) {
    super(
      `The cluster’s access cannot be put in force: ${problems.map(({ pointer, detail }) => `${pointer}: ${detail}`).join(' ')}`,
      {
        code: 'access-contradictory',
        outcome: 'not_started',
        remedy: 'Change the list with PUT …/access, then repeat the call.',
      },
    )
  }
}

const RELOAD_TIMEOUT_MS = 30_000
const RELOAD_AGAIN_MS = 5000

/** Our block comes first in pg_hba.conf; everything else in it stays as it is. */
export function grantAccess(bench: Bench, node: ClusterNode): Step {
  const { layout, cluster } = bench
  const host = bench.host(node)
  refuseContradictions(bench)
  const block = managedBlock({
    nodes: cluster.nodes.map(({ host: address }) => address),
    controllers: bench.controllers,
    applications: cluster.access ?? [],
    ...(hasTls(cluster) ? { tls: tlsOf(cluster) } : {}),
  })
  const about = { path: layout.hbaFile, owner: 'postgres:postgres', mode: '0640' }
  const existing = async (signal: AbortSignal) => (await readFile(host, about.path, { signal })) ?? ''
  // The rest of the file may hold secrets of others: it is treated as if it did.
  const wanted = (before: string): RemoteFile => ({ ...about, content: withManagedBlock(before, block), secret: true })
  const running = servesAlready(bench, node)
  const write: Action = {
    description: {
      kind: 'file',
      ...about,
      content: `${block}(what else is in the file stays as it is; the file as it was is kept beside it)\n`,
    },
    async perform({ signal, epoch }) {
      const before = await existing(signal)
      const file = wanted(before)
      const server = running ? { psql: `${layout.binDirectory}/psql`, port: cluster.port } : undefined
      const guarded = changing(host, cluster.name, epoch)
      const errors = await replaceHba(guarded, file, server, { signal })
      if (errors.length > 0) throw new AccessRulesRefused(node.name, placed(errors, before, file, block))
      // No server, nobody who could be locked out: what is wrong is told by its start.
      if (!running) await settleHba(guarded, about.path, { signal })
    },
  }
  return {
    id: `${node.name}/access`,
    kind: 'change',
    title:
      (cluster.access ?? []).length === 0
        ? 'let the nodes and the service in, by password (SCRAM) only'
        : 'let the nodes, the service and the applications in',
    node: node.name,
    actions: running
      ? [
          write,
          runCommand(host, cluster.name, reloadCommand(bench)),
          act('see that the service and the nodes still come in; if not, put the old file back', context =>
            proveStillIn(bench, node, context),
          ),
        ]
      : [write],
    async check({ signal }): Promise<Check> {
      if (!(await fileMatches(host, wanted(await existing(signal)), { signal })))
        return { done: false, reason: `${about.path} is missing or different` }
      if (!running) return { done: true }
      const reason = await notInForce(bench, node, signal)
      if (reason !== undefined) return { done: false, reason }
      const refusal = await serviceRefusal(bench, node, signal)
      return refusal === undefined ? { done: true } : { done: false, reason: refusal }
    },
  }
}

function refuseContradictions({ cluster, controllers }: Bench): void {
  const problems = accessProblems(cluster.access ?? [], insidersOf(cluster.nodes, controllers))
  if (problems.length > 0) throw new AccessContradictory(problems)
}

/** Where the errors are: by their lines in the file that is in place again, for it is that one which people open. */
function placed(errors: readonly HbaError[], before: string, { path, content }: RemoteFile, block: string): string[] {
  const lines = (text: string) => text.split('\n').length
  const shift = lines(content) - lines(before)
  return errors.map(({ file, line, error }) => {
    if (file !== path) return `${file} line ${line}: ${error}`
    return line < lines(block) ? `managed block, line ${line}: ${error}` : `line ${line - shift}: ${error}`
  })
}

const literal = (text: string) => `'${text.replaceAll("'", "''")}'`

/** What the server finds wrong in its files as they are now, in one line. */
async function mistakesIn(bench: Bench, node: ClusterNode, signal: AbortSignal): Promise<string> {
  const found = await askLocal(
    bench,
    node,
    signal,
    `SELECT 'since ' || pg_conf_load_time() || string_agg('; ' || said, '') FROM (
       SELECT '' AS said
       UNION ALL SELECT concat_ws(' ', sourcefile, sourceline, name, error) FROM pg_file_settings WHERE error IS NOT NULL
       UNION ALL SELECT concat_ws(' ', 'pg_hba.conf', line_number, error) FROM pg_hba_file_rules WHERE error IS NOT NULL) m`,
  )
  return found.replaceAll('\n', ' ')
}

/**
 * Why the file as it is does not count yet. A worker that died between writing it and the proof leaves one that is right
 * and a server that does not know it, or rules of which nobody has seen that they let us in. The file's time has whole
 * seconds, so what was written just after a reload may count as read.
 */
async function notInForce(bench: Bench, node: ClusterNode, signal: AbortSignal): Promise<string | undefined> {
  const { hbaFile } = bench.layout
  const [read, unproven] = (
    await askLocal(
      bench,
      node,
      signal,
      `SELECT pg_conf_load_time() >= (pg_stat_file(${literal(hbaFile)})).modification
         AND NOT EXISTS (SELECT FROM pg_hba_file_rules WHERE error IS NOT NULL),
       (pg_stat_file(${literal(unprovenHba(hbaFile))}, true)).size IS NOT NULL`,
    )
  ).split('|')
  if (read !== 't') return `the server has not read ${hbaFile} since it was written`
  return unproven === 't' ? 'nobody has seen yet that the nodes and the service come in by it' : undefined
}

/**
 * How the rules keep this service out. A wrong password, a database that is not there yet and a server that does not
 * answer are no matter of the rules, and the steps that follow see to them.
 */
async function serviceRefusal(bench: Bench, node: ClusterNode, signal: AbortSignal): Promise<string | undefined> {
  try {
    await bench.ask(node, { signal }, query => query('SELECT 1'))
    return undefined
  } catch (error) {
    if (!(error instanceof ServerUnreachable) || error.reason !== 'authentication') return undefined
    const said = error.cause instanceof Error ? error.cause.message : ''
    return saysNotAllowed(said) ? `this service does not come in: ${said}` : undefined
  }
}

/** In every language of the server's messages the file has this name. */
const saysNotAllowed = (message: string) => message.includes('pg_hba.conf')

/** As a client of repmgr's metadata, and as one that streams. What the server says comes out on standard error. */
const KNOCK = `psql=$1 conninfo=$2
"$psql" -XAtqw -d "$conninfo" -c 'SELECT 1' >/dev/null
"$psql" -XAtqw -d "$conninfo replication=true" -c IDENTIFY_SYSTEM >/dev/null
exit 0`

/** How the rules of `node` keep out another node, which is asked to try. */
async function nodeRefusal(
  bench: Bench,
  node: ClusterNode,
  from: ClusterNode,
  signal: AbortSignal,
): Promise<string | undefined> {
  const conninfo = nodeConninfo(addressOf(bench.cluster, bench.layout, node))
  const { stderr } = await bench.host(from).run(
    {
      argv: ['sh', '-c', KNOCK, 'understudy-knock', `${bench.layout.binDirectory}/psql`, conninfo],
      as: 'postgres',
      timeoutMs: 30_000,
      shownAs: `psql "${conninfo}"`,
    },
    { signal },
  )
  const said = stderr.split('\n').find(saysNotAllowed)
  return said === undefined ? undefined : `${from.name} does not come in: ${said.trim()}`
}

async function proveStillIn(bench: Bench, node: ClusterNode, context: StepContext): Promise<void> {
  const { signal, epoch, note } = context
  const { hbaFile } = bench.layout
  const guarded = changing(bench.host(node), bench.cluster.name, epoch)
  const unread = async () => (await notInForce(bench, node, signal))?.startsWith('the server has not read') ?? false
  let askedAtMs = performance.now()
  await until(`PostgreSQL on ${node.name} has read its pg_hba.conf`, RELOAD_TIMEOUT_MS, context, async () => {
    if (!(await unread())) return true
    if (performance.now() - askedAtMs > RELOAD_AGAIN_MS) {
      // A mistake in any of its files, and be it for a moment, makes a server ignore a reload as a whole.
      context.log(`it has not taken notice yet, and is told again. ${await mistakesIn(bench, node, signal)}`)
      await guarded.run(reloadCommand(bench), { signal })
      askedAtMs = performance.now()
    }
    return false
  })
  // Those that have PostgreSQL's programs; the others are proven by their own clone.
  const others = bench.cluster.nodes.filter(other => !bench.absent.has(other.name) && servesAlready(bench, other))
  const refusals = (
    await Promise.all([
      serviceRefusal(bench, node, signal),
      ...others.map(other => nodeRefusal(bench, node, other, signal)),
    ])
  ).filter(refusal => refusal !== undefined)
  if (refusals.length > 0) {
    const putBack = await putHbaBack(guarded, hbaFile, { signal })
    if (putBack) await guarded.run(reloadCommand(bench), { signal })
    throw new AccessLockedOut(node.name, refusals, putBack)
  }
  await settleHba(guarded, hbaFile, { signal })
  note(`the service and ${others.map(({ name }) => name).join(', ')} come in`)
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
