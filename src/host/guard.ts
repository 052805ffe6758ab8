import { type Command, render } from './command.js'
import { AS_USER } from './drop.js'
import { BUSY, MARK, SUPERSEDED } from './guard-refusal.js'

/**
 * Words: a scope is what one lock stands for, a cluster. An epoch counts the turns of the workers that took the cluster,
 * and a host remembers the largest one that it has seen.
 */
export interface Guard {
  /** `[a-z0-9-]+` */
  scope: string
  epoch: number
  /** How long to wait for the lock. Added to the command's own time limit. */
  waitMs: number
}

/*
 * The lock is root's alone (umask 077), since whoever may open it, even for reading, could hold it for ever.
 *
 * The shell stays beside the command instead of becoming it, for two reasons. A program that leaves a server behind
 * (pg_ctl start) would hand it the lock for ever: so the command does not get the descriptor. And `timeout` signals the
 * whole group: a shell with a trap lives on until the command has really ended, so the lock is held until then.
 */
const SCRIPT = `${AS_USER}
scope=$1
epoch=$2
wait=$3
user=$4
shift 4
[ "$user" = login ] && user=\${SUDO_USER:-root}
before=$(umask)
umask 077
directory=/var/lib/understudy
mkdir -p -m 0755 "$directory" || exit 1
exec 9>>"$directory/$scope.lock" || exit 1
flock -w "$wait" 9 || { echo "${MARK} busy $scope $epoch 0" >&2; exit ${BUSY}; }
seen=0
if [ -e "$directory/$scope.epoch" ]; then seen=$(cat "$directory/$scope.epoch") || exit 1; fi
case $seen in
  '' | *[!0-9]*)
    echo "understudy: $directory/$scope.epoch holds no number: remove it once nothing of $scope runs here" >&2
    exit 1
    ;;
esac
if [ "$seen" -gt "$epoch" ]; then
  echo "${MARK} superseded $scope $epoch $seen" >&2
  exit ${SUPERSEDED}
fi
if [ "$seen" -ne "$epoch" ]; then
  new="$directory/$scope.epoch.new"
  echo "$epoch" >"$new" && sync "$new" && mv -fT "$new" "$directory/$scope.epoch" && sync "$directory" || exit 1
fi
umask "$before"
trap : TERM INT HUP
as_user "$user" "$@" 9>&-`

/**
 * Returns a command that does the same under the host's lock of the scope, and does nothing where the host has seen a
 * larger epoch: of two workers that both believe in their lease, only the newer can act. Run by `Host.run`, it throws
 * GuardBusy or Superseded when nothing was done. The lock is held until the command ends, also when SSH drops.
 */
export function guarded(command: Command, guard: Guard): Command {
  if (!/^[a-z0-9-]+$/.test(guard.scope)) throw new TypeError(`${JSON.stringify(guard.scope)} is no scope of a guard`)
  if (!Number.isSafeInteger(guard.epoch) || guard.epoch < 0) throw new TypeError('an epoch is a whole number')
  const waitSeconds = String(Math.max(guard.waitMs, 0) / 1000)
  return {
    ...command,
    as: 'root',
    argv: [
      'sh',
      '-c',
      SCRIPT,
      'understudy-guard',
      guard.scope,
      String(guard.epoch),
      waitSeconds,
      command.as,
      ...command.argv,
    ],
    timeoutMs: command.timeoutMs + Math.max(guard.waitMs, 0),
    shownAs: render(command),
  }
}
