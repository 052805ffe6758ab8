/**
 * Makes sure that nothing of a cluster runs on a host any more. An operation that is cancelled has commands there that do
 * not end by themselves when nobody listens to them: detached ones, and plain ones, which sshd leaves running when their
 * channel is closed.
 */
import type { Command } from './command.js'
import { cancelDetached, forgetDetached, inspectDetached } from './detached.js'
import { GuardBusy } from './errors.js'
import { guarded } from './guard.js'
import type { Host } from './host.js'

/** A short command is let come to its end: what is whole needs no repair. */
const PATIENCE_MS = 10_000
/** After SIGTERM; `timeout` sends SIGKILL five seconds later. */
const AFTER_TERM_MS = 20_000
const TRIES = 3

/**
 * Ends the detached commands of the scope, then plain ones that have not ended by themselves, and proves it by having had the
 * scope's lock. From then on the host refuses `epoch`: what was sent before and arrives late does nothing.
 * Throws GuardBusy when something could not be ended, Superseded for a newer worker, and whatever a command may throw.
 */
export async function callOff(host: Host, scope: string, epoch: number, log: (line: string) => void): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    await endDetached(host, scope, log)
    try {
      await fence(host, scope, epoch + 1, attempt === 1 ? PATIENCE_MS : AFTER_TERM_MS)
      return
    } catch (error) {
      if (!(error instanceof GuardBusy) || attempt === TRIES) throw error
      const ended = await host.run(script(TERMINATE, scope, `end what holds the lock of ${scope}`))
      log(
        `a command of ${scope} on ${host.address.host} did not end by itself: SIGTERM to ${ended.stdout.trim() || '-'}`,
      )
    }
  }
}

/** The lock is held by every changing command until it has ended. */
async function fence(host: Host, scope: string, epoch: number, waitMs: number): Promise<void> {
  const nothing: Command = { argv: ['true'], as: 'root', timeoutMs: 30_000 }
  await host.run(guarded(nothing, { scope, epoch, waitMs }))
}

async function endDetached(host: Host, scope: string, log: (line: string) => void): Promise<void> {
  const { stdout } = await host.run(script(LIST, scope, `list the detached commands of ${scope}`))
  for (const id of stdout.split('\n').filter(line => line !== '')) {
    const { state } = await inspectDetached(host, id)
    if (state === 'running') {
      log(`end ${id} on ${host.address.host}`)
      await cancelDetached(host, id)
    }
    await forgetDetached(host, id)
  }
}

const script = (text: string, scope: string, shownAs: string): Command => ({
  argv: ['sh', '-c', text, 'understudy-call-off', scope],
  as: 'root',
  timeoutMs: 30_000,
  shownAs,
})

/** One host serves one cluster, so what begins with its name and a hyphen is its own. */
const LIST = `cd /var/lib/understudy/jobs 2>/dev/null || exit 0
for job in "$1"-*; do
  [ ! -d "$job" ] || echo "$job"
done`

/**
 * The guard's shell has its scope among its arguments, behind a name that no other program has; \`timeout\` stands before it,
 * and passes a signal on to the whole group.
 */
const TERMINATE = `scope=$1
for entry in /proc/[0-9]*; do
  tr '\\0' '\\n' <"$entry/cmdline" 2>/dev/null | awk -v scope="$scope" '
    NR == 1 && $0 != "timeout" { exit }
    before == "understudy-guard" && $0 == scope { found = 1; exit }
    { before = $0 }
    END { exit !found }' || continue
  kill -s TERM "\${entry#/proc/}" && echo "\${entry#/proc/}"
done
exit 0`
