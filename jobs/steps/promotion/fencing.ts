/**
 * Fencing an old primary: the proof that it accepts no writes any more, or that there is none. `standby.signal` is on its
 * disk before anything is ended, so that whatever starts it again starts a standby. A server that is stopped by a signal
 * hears no other one: what has not ended after a second is killed.
 */
import type { FenceHook } from '../../../src/cluster/fence-hook.js'
import type { ClusterNode } from '../../../src/cluster/model.js'
import type { Command } from '../../../src/host/command.js'
import { guarded } from '../../../src/host/guard.js'
import { OperationError } from '../../../src/operations/errors.js'
import type { StepContext } from '../../../src/operations/step.js'
import type { Bench } from '../../bench.js'
import { SERVERS_IN } from '../exchange-scripts.js'

export interface Fence {
  node: ClusterNode
  method: 'ssh' | 'hook' | 'none'
  /** The proof, or why there is none. */
  detail: string
  /** By this script, so that it can be undone: the mark was made, a server was ended. */
  made: boolean
  ran: boolean
  /** It was begun, and nobody knows what came of it. */
  unsure?: boolean
}

const FAST_MS = 1000
/** Connecting included: a host that does not answer by then is not fenced this way. */
const SSH_MS = 6000
const LOCK_MS = 2000

const FENCE = `${SERVERS_IN}
data=$1 control=$2 limit=$3 unit=$4
signal="$data/standby.signal"
[ -f "$data/PG_VERSION" ] || { echo state=none; exit 0; }
[ -z "$(servers_in "$data")" ] || echo ran=yes
if [ ! -f "$signal" ]; then
  install -o postgres -g postgres -m 0600 /dev/null "$signal" || { echo "$signal cannot be written" >&2; exit 1; }
  echo made=yes
fi
sync "$signal" "$data" || { echo "$signal cannot be written" >&2; exit 1; }
if systemctl is-active -q "$unit"; then systemctl stop --no-block "$unit"; fi
pid=$(head -n 1 "$data/postmaster.pid" 2>/dev/null)
if [ -n "$pid" ] && [ "$(readlink "/proc/$pid/cwd" 2>/dev/null)" = "$(readlink -f "$data")" ]; then
  kill -INT "$pid" 2>/dev/null
  end=$(($(date +%s%3N) + limit))
  while [ -d "/proc/$pid" ] && [ "$(date +%s%3N)" -lt "$end" ]; do sleep 0.02; done
fi
turn=0
while left=$(servers_in "$data") && [ -n "$left" ] && [ "$turn" -lt 40 ]; do
  kill -KILL $left 2>/dev/null
  sleep 0.05
  turn=$((turn + 1))
done
[ -z "$left" ] || { echo "still there: $left" >&2; exit 1; }
[ -f "$signal" ] || { echo "$signal is gone again" >&2; exit 1; }
"$control" "$data" | sed -n 's/^Database cluster state: */state=/p'`

const UNDO = `data=$1 unit=$2 made=$3 ran=$4
[ "$made" != true ] || { rm -f "$data/standby.signal" && sync "$data"; } || exit 1
[ "$ran" != true ] || exec systemctl start --no-block "$unit"`

const onHost = (bench: Bench, node: ClusterNode, command: Command, { epoch, signal }: StepContext) =>
  bench.host(node).run(guarded(command, { scope: bench.cluster.name, epoch, waitMs: LOCK_MS }), {
    signal: AbortSignal.any([signal, AbortSignal.timeout(SSH_MS)]),
  })

/** By SSH, else by the hook. Never throws for what a host or a hook says: then there is no proof. */
export async function fence(bench: Bench, node: ClusterNode, context: StepContext): Promise<Fence> {
  const bySsh = await fenceBySsh(bench, node, context)
  if (bySsh.method === 'ssh' || !bench.fenceHook) return bySsh
  const byHook = await askHook(bench.fenceHook, bench, node, context.signal)
  return 'receipt' in byHook
    ? { ...bySsh, method: 'hook', detail: byHook.receipt }
    : { ...bySsh, detail: `${bySsh.detail} ${byHook.failure}` }
}

async function fenceBySsh(bench: Bench, node: ClusterNode, context: StepContext): Promise<Fence> {
  const { layout } = bench
  const command: Command = {
    argv: [
      ...['sh', '-c', FENCE, 'understudy-fence', layout.dataDirectory],
      ...[`${layout.binDirectory}/pg_controldata`, String(FAST_MS), layout.unit],
    ],
    as: 'root',
    timeoutMs: SSH_MS - 500,
    shownAs: `write ${layout.dataDirectory}/standby.signal, then end the server: fast, and after ${FAST_MS} ms by SIGKILL`,
  }
  try {
    const { stdout } = await onHost(bench, node, command, context)
    const field = (name: string) => new RegExp(`^${name}=(.*)$`, 'm').exec(stdout)?.[1]
    const [state, made, ran] = [field('state'), field('made') === 'yes', field('ran') === 'yes']
    const detail =
      state === 'none'
        ? 'There is no database on it.'
        : `No process of its server is left${ran ? ', it was ended' : ''}; standby.signal is on its disk; its control file says "${state}".`
    return { node, method: 'ssh', detail, made, ran }
  } catch (error) {
    if (context.signal.aborted) throw context.signal.reason
    const said = error instanceof OperationError ? [error.message, error.output ?? ''].join(' ').trim() : String(error)
    const late = error instanceof OperationError && error.code === 'cancelled'
    const why = late ? `Its host does not answer by SSH within ${SSH_MS / 1000} s.` : said
    // A mark that was there before is not ours to take away.
    const unsure = late || (error instanceof OperationError && error.outcome === 'unknown')
    return { node, method: 'none', detail: why, made: false, ran: false, unsure }
  }
}

async function askHook(hook: FenceHook, bench: Bench, { name, host }: ClusterNode, signal: AbortSignal) {
  try {
    const receipt = await hook({ cluster: bench.cluster.name, node: name, host }, signal)
    return { receipt: `The fence hook answered: ${receipt}` }
  } catch (error) {
    if (signal.aborted) throw signal.reason
    return { failure: `The fence hook failed: ${error instanceof Error ? error.message : String(error)}` }
  }
}

/** Puts back what fencing has done on a host, where nobody was promoted. Returns what could not be put back. */
export async function unfence(
  bench: Bench,
  { node, made, ran, unsure }: Fence,
  context: StepContext,
): Promise<string[]> {
  if (unsure)
    return [
      `It is not known whether ${node.name} was stopped: look whether it runs, and for standby.signal in its data directory.`,
    ]
  if (!made && !ran) return []
  const { layout } = bench
  try {
    await onHost(
      bench,
      node,
      {
        argv: ['sh', '-c', UNDO, 'understudy-unfence', layout.dataDirectory, layout.unit, String(made), String(ran)],
        as: 'root',
        timeoutMs: SSH_MS - 500,
        shownAs: `rm -f ${layout.dataDirectory}/standby.signal${ran ? `; systemctl start ${layout.unit}` : ''}`,
      },
      context,
    )
    return []
  } catch (error) {
    const said = error instanceof Error ? error.message : String(error)
    return [
      `${node.name} was stopped, and could not be started again (${said}): remove standby.signal in its data directory, then start it.`,
    ]
  }
}

/** Whether it could be fenced, without doing it: undefined, or why not. */
export async function fenceable(bench: Bench, node: ClusterNode, signal: AbortSignal): Promise<string | undefined> {
  if (bench.fenceHook) return undefined
  try {
    await bench
      .host(node)
      .run(
        { argv: ['true'], as: 'root', timeoutMs: 4000 },
        { signal: AbortSignal.any([signal, AbortSignal.timeout(SSH_MS)]) },
      )
    return undefined
  } catch (error) {
    if (signal.aborted) throw signal.reason
    return error instanceof OperationError && error.code === 'cancelled'
      ? `its host does not answer by SSH within ${SSH_MS / 1000} s`
      : error instanceof Error
        ? error.message
        : String(error)
  }
}
