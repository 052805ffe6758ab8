/** Stopping and starting a server in one go, once an operation and not again when a worker takes it up. */
import { decodeTime } from 'ulid'
import type { ClusterNode } from '../../src/cluster/model.js'
import { act, runCommand } from '../../src/host/actions.js'
import type { Action, ChangeStep, Check } from '../../src/operations/step.js'
import type { Bench } from '../bench.js'
import { NotInTime, until } from '../until.js'
import { waitUntilAccepting } from './primary.js'

const PRIMARY_TIMEOUT_MS = 300_000
/** As when it is started: a standby replays before it answers. */
const STANDBY_TIMEOUT_MS = 24 * 3_600_000

/** A shutdown with its checkpoint, and then the time for the new process to appear. */
const STOP_TIMEOUT_MS = 1_800_000
const LAUNCH_TIMEOUT_MS = 60_000

/**
 * A server that was not started by its unit would not end with it, and the unit would fail to start a second one. One that is
 * stopped, because whoever began this died half-way, is started.
 */
const RESTART = `case $(systemctl is-active "$1") in
  active | activating | deactivating | reloading) exec systemctl restart --no-block "$1" ;;
esac
pid=$(head -n 1 "$2/postmaster.pid" 2>/dev/null)
if [ -z "$pid" ] || [ "$(readlink "/proc/$pid/cwd" 2>/dev/null)" != "$(readlink -f "$2")" ]; then
  systemctl reset-failed "$1" 2>/dev/null
  exec systemctl start --no-block "$1"
fi
echo "understudy: it was not started by $1: stop it, then start it" >&2
exit 1`

/** Prints for how many milliseconds the postmaster has run; nothing where there is none. Field 22 is in ticks since boot. */
const AGE = `pid=$(head -n 1 "$1/postmaster.pid" 2>/dev/null) && [ -r "/proc/$pid/stat" ] || exit 0
sed 's/.*) //' "/proc/$pid/stat" |
  awk -v ticks="$(getconf CLK_TCK)" -v up="$(cut -d' ' -f1 /proc/uptime)" '{ printf "%d", (up - $20 / ticks) * 1000 }'`

/** Asks for it and does not wait. */
export const beginRestart = (bench: Bench, node: ClusterNode): Action =>
  runCommand(bench.host(node), bench.cluster.name, {
    argv: ['sh', '-c', RESTART, 'understudy-restart', bench.layout.unit, bench.layout.dataDirectory],
    as: 'root',
    timeoutMs: 60_000,
    shownAs: `sudo -n -- systemctl restart --no-block ${bench.layout.unit}`,
  })

/** The server's age and the operation's are measured on one clock each: those of host and service need not agree. */
export function restartServer(bench: Bench, node: ClusterNode, standby: boolean): ChangeStep {
  const { dataDirectory } = bench.layout
  /** Undefined where no server runs. */
  const ageMs = async (signal: AbortSignal) => {
    const { stdout } = await bench.host(node).run(
      {
        argv: ['sh', '-c', AGE, 'understudy-age', dataDirectory],
        as: 'root',
        timeoutMs: 30_000,
        shownAs: 'see how long the postmaster has run',
      },
      { signal },
    )
    return stdout.trim() === '' ? undefined : Number(stdout)
  }
  const isNew = (age: number, operationId: string) => age < Date.now() - decodeTime(operationId.replace(/^op_/, ''))
  return {
    id: `${node.name}/restart`,
    kind: 'change',
    title: 'restart the server',
    node: node.name,
    actions: [
      beginRestart(bench, node),
      act('wait until it has started anew and accepts connections', async context => {
        let seenAtMs = performance.now()
        await until(`PostgreSQL on ${node.name} has started anew`, STOP_TIMEOUT_MS, context, async () => {
          const age = await ageMs(context.signal)
          if (age !== undefined) seenAtMs = performance.now()
          else if (performance.now() - seenAtMs > LAUNCH_TIMEOUT_MS)
            throw new NotInTime(`PostgreSQL on ${node.name} runs again`, LAUNCH_TIMEOUT_MS)
          return age !== undefined && isNew(age, context.operationId)
        })
        await waitUntilAccepting(bench, node, standby ? STANDBY_TIMEOUT_MS : PRIMARY_TIMEOUT_MS, context)
      }),
    ],
    async check({ signal, operationId }): Promise<Check> {
      const age = await ageMs(signal)
      if (age === undefined) return { done: false, reason: 'it does not run' }
      if (operationId === undefined || !isNew(age, operationId))
        return { done: false, reason: `it has run for ${Math.floor(age / 1000)} s` }
      const { inRecovery } = await bench.inspect(node, signal)
      return inRecovery === undefined
        ? { done: false, reason: 'it was started anew, and does not accept connections yet' }
        : { done: true, note: 'started anew' }
    },
  }
}
