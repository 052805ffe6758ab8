/**
 * Taking back what a node wrote after the histories parted, by pg_rewind; and the decision between that, following as it
 * is, and a new clone. While it runs the data directory is neither the one nor the other: it is marked like a copy that
 * is not whole, which nothing starts and the next clone replaces.
 */
import type { ClusterNode } from '../../src/cluster/model.js'
import { chooseRung, type RebuildMethod } from '../../src/cluster/rejoin.js'
import { changing } from '../../src/host/actions.js'
import type { Command } from '../../src/host/command.js'
import { forgetDetached, inspectDetached } from '../../src/host/detached.js'
import { detachedId, runDetached } from '../../src/host/detached-action.js'
import { CommandFailed, DetachedCommandLost } from '../../src/host/errors.js'
import { writeFile } from '../../src/host/files.js'
import { OperationError } from '../../src/operations/errors.js'
import type { Action, ChangeStep, Check, CheckContext, StepContext } from '../../src/operations/step.js'
import type { Marker } from '../../src/postgres/inspect.js'
import { nodeConninfo } from '../../src/repmgr/conf.js'
import { addressOf, type Bench } from '../bench.js'
import { ConfirmationRequired } from '../refusals.js'
import { holdingOf } from './comeback.js'
import { markerFile } from './data-directory.js'
import { methodNow } from './is-back.js'
import { processesIn } from './processes.js'

const REWIND_TIMEOUT_MS = 7 * 24 * 3_600_000
const DRY_RUN_TIMEOUT_MS = 1_800_000

/** Thrown when only a rewind was allowed, and none is possible. */
export class NotRewindable extends OperationError {
  constructor(node: string, why: string, outcome: 'not_started' | 'failed_clean' | 'failed_partial', output?: string) {
    super(`${node} cannot be rewound: ${why}`, {
      code: 'not-rewindable',
      outcome,
      remedy: `Replace its copy: POST …/nodes/${node}/rebuild with "method": "clone" and "confirm": "${node}".`,
      ...(output === undefined ? {} : { output }),
    })
  }
}

export interface RewindOptions {
  method: RebuildMethod
  confirm: string | undefined
}

const rewindJob = (node: ClusterNode) => `${node.name}-rewind`

function rewindCommand(bench: Bench, primary: ClusterNode, dryRun: boolean): Command {
  const { layout, cluster } = bench
  const source = `${nodeConninfo(addressOf(cluster, layout, primary), 10)} passfile=${layout.passFile} application_name=understudy_rewind`
  // Since 15 it can be told where Debian has the configuration, and with it how the archive is read.
  const archive =
    layout.version >= 15 ? ['--restore-target-wal', `--config-file=${layout.configDirectory}/postgresql.conf`] : []
  return {
    argv: [
      ...[`${layout.binDirectory}/pg_rewind`, `--target-pgdata=${layout.dataDirectory}`, `--source-server=${source}`],
      ...['--no-ensure-shutdown', ...archive],
      ...(dryRun ? ['--dry-run'] : ['--write-recovery-conf', '--progress']),
    ],
    as: 'postgres',
    timeoutMs: dryRun ? DRY_RUN_TIMEOUT_MS : REWIND_TIMEOUT_MS,
  }
}

/** What pg_rewind has against it; undefined where nothing. It reads everything, and writes nothing. */
async function objectionOf(bench: Bench, node: ClusterNode, primary: ClusterNode, signal: AbortSignal) {
  const archived = rewindCommand(bench, primary, true)
  const plain = { ...archived, argv: archived.argv.filter(word => word !== '--restore-target-wal') }
  let said: string | undefined
  // Where no restore_command is set, being told to use it is an error of its own.
  for (const command of archived.argv.length === plain.argv.length ? [plain] : [archived, plain]) {
    const result = await bench.host(node).run(command, { signal, acceptExit: [0, 1] })
    // It goes by the number of the timeline: two that were begun apart are the same to it, and it would do nothing.
    if (/no rewind required/.test(result.stdout + result.stderr)) return { command, said: 'it sees no difference' }
    if (result.exitCode === 0) return { command, said: undefined }
    const complaint = [...result.stderr.matchAll(/^pg_rewind: (?:error|fatal): (.*)$/gm)]
      .map(([, text]) => text)
      .join(' ')
    said ??= complaint || result.stderr.trim()
    if (!/restore_command/.test(complaint)) said = complaint || said
  }
  return { command: plain, said }
}

export function rewind(
  bench: Bench,
  node: ClusterNode,
  primary: ClusterNode,
  { method, confirm }: RewindOptions,
): ChangeStep {
  const { cluster } = bench
  const host = bench.host(node)
  const decide = async (context: CheckContext) => {
    const { signal } = context
    const wanted = await methodNow(bench, node, method, context)
    const holding = await holdingOf(bench, node, primary, signal)
    const first = chooseRung(holding, wanted)
    if (first.rung !== 'rewind') return first
    const { said } = await objectionOf(bench, node, primary, signal)
    return chooseRung({ ...holding, rewindRefused: said }, wanted)
  }
  const job = (signal: AbortSignal) => inspectDetached(host, detachedId(cluster.name, rewindJob(node)), { signal })
  const perform = async (context: StepContext) => {
    const { signal, log, note, epoch } = context
    const mark = (state: Marker['state']) =>
      writeFile(changing(host, cluster.name, epoch), markerFile(bench, node, state), { signal })
    const found = await job(signal)
    const forget = () => forgetDetached(host, detachedId(cluster.name, rewindJob(node)), { signal })
    const { marker, standbySignal } = await bench.inspect(node, signal)
    if (found.state === 'exited' && found.exitCode === 0 && marker?.state === 'in-use' && standbySignal) {
      await forget()
      note('rewound by a worker before this one')
      return
    }
    if (found.state !== 'absent' && found.state !== 'running' && !(found.state === 'exited' && found.exitCode === 0)) {
      // What it left is neither the one nor the other, and must not be rewound again.
      await forget()
      if (method === 'rewind')
        throw new NotRewindable(node.name, 'pg_rewind was cut short, or failed half-way.', 'failed_partial')
      log('the rewind was cut short, and a clone follows')
      return
    }
    let why = 'it was begun before'
    let command = rewindCommand(bench, primary, true)
    if (found.state === 'absent') {
      const decided = await decide(context)
      const working = await processesIn(bench, node, signal)
      // Since it was looked at: what is to be done now is decided anew after this.
      if (decided.rung === 'follow' || decided.rung === 'clone') return
      if (decided.rung !== 'rewind' || working.length > 0) {
        throw new NotRewindable(
          node.name,
          working.length > 0 ? `process ${working.join(', ')} works in its data directory.` : `${decided.why}.`,
          'failed_clean',
        )
      }
      why = decided.why
      command = (await objectionOf(bench, node, primary, signal)).command
    }
    const full: Command = {
      ...command,
      argv: [...command.argv.filter(word => word !== '--dry-run'), '--write-recovery-conf', '--progress'],
      timeoutMs: REWIND_TIMEOUT_MS,
    }
    const action = runDetached(host, cluster.name, full, {
      name: rewindJob(node),
      async stillStands() {
        const { marker, standbySignal } = await bench.inspect(node, signal)
        return marker?.state === 'cloning' && standbySignal
      },
      async before() {
        await mark('cloning')
        // What says that it was used goes, so that what a cut leaves behind is never taken for a database.
        await changing(host, cluster.name, epoch).run(
          { argv: ['rm', '-f', `${bench.layout.dataDirectory}/postmaster.opts`], as: 'root', timeoutMs: 30_000 },
          { signal },
        )
      },
      after: () => mark('in-use'),
    })
    try {
      await action.perform(context)
      note(`rewound: ${why}`)
    } catch (error) {
      if (!(error instanceof CommandFailed || error instanceof DetachedCommandLost)) throw error
      if (method === 'rewind')
        throw new NotRewindable(
          node.name,
          `pg_rewind failed half-way: ${error.message}`,
          'failed_partial',
          error.output,
        )
      log(`the rewind failed, and a clone follows: ${error.message}`)
    }
  }
  const shown = rewindCommand(bench, primary, false)
    .argv.map(word => (/ /.test(word) ? `'${word}'` : word))
    .join(' ')
  const action: Action = { description: { kind: 'command', text: `sudo -n -u postgres -- ${shown}` }, perform }
  return {
    id: `${node.name}/rewind`,
    kind: 'change',
    title: 'take back what it wrote after the histories parted',
    node: node.name,
    destroys: `what ${node.name} has and ${primary.name} does not have; its WAL is kept`,
    actions: [action],
    async check(context): Promise<Check> {
      const { signal, operationId } = context
      if ((await job(signal)).state !== 'absent') return { done: false, reason: 'a rewind was begun' }
      const { running } = await bench.inspect(node, signal)
      if (running && operationId === undefined) {
        const { rung, why } = chooseRung(await holdingOf(bench, node, primary, signal), method)
        return rung === 'follow'
          ? { done: true, note: why }
          : { done: false, reason: `decided once it is stopped; ${why}` }
      }
      const { rung, why } = await decide(context)
      if (rung === 'rewind' || rung === 'recover') return { done: false, reason: why }
      if (rung === 'follow')
        return /just made/.test(why) ? { done: true } : { done: true, note: `it follows as it is: ${why}` }
      if (method === 'rewind') throw new NotRewindable(node.name, `${why}.`, 'failed_clean')
      refuseUnmeantClone(node, why, confirm)
      return { done: true, note: `it is cloned: ${why}` }
    },
  }
}

/** A copy that holds nothing costs nothing; any other is only given up where that is meant. */
export function refuseUnmeantClone(node: ClusterNode, why: string, confirm: string | undefined): void {
  if (confirm === node.name || /^(it holds no copy|its copy is not whole)/.test(why)) return
  throw new ConfirmationRequired(
    `${node.name} has to be cloned anew: ${why}. Its copy is given up, and a new one takes as long as the database is large.`,
    node.name,
  )
}
