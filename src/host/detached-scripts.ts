/**
 * The shell side of detached.ts. Each script runs as root with the job's id as its first argument, and must do with
 * coreutils, util-linux, awk and grep.
 */

/** Names, and the lock. */
const PREAMBLE = `id=$1
jobs=/var/lib/understudy/jobs
job=$jobs/$id
unit=understudy-$id.service
systemd() { [ -d /run/systemd/system ]; }
# Only held while a job is started or removed, never while it runs.
take_lock() {
  umask 077
  mkdir -p -m 0755 /var/lib/understudy && mkdir -p -m 0700 "$jobs" || exit 1
  exec 8>>"$jobs/$id.lock" && flock -w 50 8 || exit 1
}`

/** Exit status of every script where systemd does not say whether the job runs. */
export const UNDECIDED = 69

/**
 * Defines `state`, which prints: absent | running | exited N | lost.
 *
 * With systemd no answer (its bus is away, it is being replaced) is not the answer "no": the job's files must not be
 * removed under a running command. "unknown" is what an older systemctl says of a unit that is not there.
 *
 * Without systemd a job is a session of its own. Its leader is known by its number, its start and the boot, so that a
 * number that is used again is not believed. A process that left the session still has the job's name in its
 * environment. The dead that nobody has buried (state Z) do not count.
 */
export const STATE = `${PREAMBLE}
members() {
  [ -e "$job/began" ] || return 0
  read -r pid start boot <"$job/began"
  if [ "$boot" != "$(cat /proc/sys/kernel/random/boot_id)" ]; then return 0; fi
  now=$(sed 's/.*) //' "/proc/$pid/stat" 2>/dev/null | cut -d' ' -f20)
  session=$pid
  if [ -n "$now" ] && [ "$now" != "$start" ]; then session=none; fi
  named=$(grep -lzsx -e "UNDERSTUDY_JOB=$id" /proc/[0-9]*/environ | tr -dc '0-9\\n')
  cat /proc/[0-9]*/stat 2>/dev/null | awk -v session="$session" -v named="$named" '
    BEGIN { count = split(named, list, "\\n"); for (i = 1; i <= count; i++) wanted[list[i]] = 1 }
    /^[0-9]+ \\(.*\\) [A-Za-z] / {
      pid = $1
      sub(/^.*\\) /, "")
      if ($1 != "Z" && $1 != "X" && ($4 == session || pid in wanted)) print pid
    }'
}
running() {
  if systemd; then
    said=$(systemctl is-active "$unit")
    case $said in
      active|activating|deactivating|reloading|refreshing) return 0 ;;
      inactive|failed|unknown) return 1 ;;
    esac
    echo "understudy: systemd does not say whether $unit runs: \${said:-no answer}" >&2
    exit ${UNDECIDED}
  fi
  [ -n "$(members)" ]
}
state() {
  if [ ! -d "$job" ]; then echo absent; return; fi
  if [ ! -e "$job/exit" ] && running; then echo running; return; fi
  # Looked for again: it may have ended between the two.
  if [ -e "$job/exit" ]; then echo "exited $(cat "$job/exit")"; return; fi
  echo lost
}`

/** A file of the log may grow to this before it is begun anew with its end; two files and a pipe's worth are on the disk. */
const LOG_LIMIT_BYTES = 2_097_152
/** More than what a follower may be behind without a gap. */
const LOG_KEEP_BYTES = 1_048_576

/**
 * Part of a job's script: passes what comes through the pipe `output` on to the log, as it comes, so that a command
 * that prints for ever does not fill the disk. `log` is a link that is replaced as a whole, and the file before is kept
 * until the next one, so that a reader always finds file and offset together. A signal to the whole job ends the command
 * and not this: it ends with the last one who could print. A full disk costs the log, and not the command.
 *
 * Defines `log_is_kept`, which waits for that: not for ever, since the command may have left somebody behind.
 */
export const KEEP_LOG = `(
  trap '' TERM INT HUP
  start=0
  older=none
  while :; do
    size=$(stat -L -c %s "$job/log") || break
    if [ "$size" -gt ${LOG_LIMIT_BYTES} ]; then
      before=$start
      start=$((start + size - ${LOG_KEEP_BYTES}))
      tail -c ${LOG_KEEP_BYTES} "$job/log" >"$job/log.$start" &&
        ln -sfT "log.$start" "$job/log.next" && mv -fT "$job/log.next" "$job/log" || break
      rm -f "$job/log.$older"
      older=$before
      size=${LOG_KEEP_BYTES}
    fi
    # One read, one write: a line is in the log when it was printed.
    dd bs=65536 count=16 status=none >>"$job/log" || break
    [ "$(stat -L -c %s "$job/log")" -gt "$size" ] || break
  done
  cat >/dev/null
  : >"$job/kept"
) <"$job/output" 2>/dev/null &
log_is_kept() {
  tries=0
  while [ ! -e "$job/kept" ] && [ "$tries" -lt 200 ]; do
    tries=$((tries + 1))
    sleep 0.05
  done
}`

/** Reads the job's script on stdin. Prints `started` or `attached`. */
export const START = `${STATE}
take_lock
if [ -e "$job/began" ] || { [ -d "$job" ] && running; }; then
  echo attached
  exit 0
fi
mkdir -p "$job" || exit 1
cat >"$job/command.new" || exit 1
# A connection lost halfway looks like the end of the input.
if [ "$(tail -n 1 "$job/command.new")" != "# end" ]; then
  echo "understudy: the command of $id came only in part, and nothing was started" >&2
  rm -rf -- "$job"
  exit 1
fi
: >"$job/log.0" && ln -sfT log.0 "$job/log" || exit 1
sync "$job/command.new" && mv -f "$job/command.new" "$job/command" && sync "$job" "$jobs" || exit 1
umask 022
if systemd; then
  # Type=exec came with version 240; RHEL 8 has 239.
  type=exec
  [ "$(systemctl --version | sed -n '1s/^[^0-9]*\\([0-9]*\\).*/\\1/p')" -ge 240 ] || type=simple
  systemd-run --quiet --collect --unit="$unit" --description="Understudy $id" \\
    --property=Type=$type --property=KillMode=control-group --property=TimeoutStopSec=10 \\
    -- /bin/sh "$job/command" 8>&-
  code=$?
else
  # In the background of a shell without job control it leads no group yet, so setsid needs no fork, and keeps the lock.
  setsid sh "$job/command" </dev/null >/dev/null 2>&1 &
  child=$!
  code=0
fi
if [ "$code" -ne 0 ]; then
  rm -rf -- "$job"
  exit "$code"
fi
# Until it has begun: then it can be found by whoever looks next.
tries=0
while [ ! -e "$job/began" ] && [ "$tries" -lt 200 ]; do
  tries=$((tries + 1))
  sleep 0.05
done
if [ ! -e "$job/began" ]; then
  echo "understudy: $id did not begin" >&2
  exit 1
fi
echo started`

/**
 * Prints `<offset> <size> <state>`, then the log from that offset in base64, 128 KiB at most. `$2` is where the reader
 * is, -1 at its first look; a reader that is more than 1 MiB behind goes on with the last 256 KiB. Where there is nothing
 * new it waits for it, `$3` quarters of a second at most: a look costs more than a quarter of a second of waiting.
 */
export const FOLLOW = `${STATE}
offset=$2
tries=$3
measure() {
  file=$(readlink "$job/log")
  case $file in
    log.*) start=\${file#log.} file=$job/$file ;;
    # Of a job that a version before this one started.
    *) start=0 file=$job/log ;;
  esac
  size=$((start + $(stat -c %s "$file" 2>/dev/null || echo 0)))
}
measure
while [ "$tries" -gt 0 ] && [ -e "$job/began" ] && [ ! -e "$job/exit" ] && [ "$size" -le "$offset" ]; do
  tries=$((tries - 1))
  sleep 0.25
  # The end is seen at once, what is printed each second.
  [ "$((tries % 4))" -ne 0 ] || measure
done
now=$(state) || exit
measure
behind=1048576
if [ "$offset" -lt 0 ]; then offset=0; behind=262144; fi
if [ $((size - offset)) -gt "$behind" ]; then offset=$((size - 262144)); fi
if [ "$offset" -lt "$start" ]; then offset=$start; fi
echo "$offset $size $now"
[ "$size" -le "$offset" ] || tail -c "+$((offset - start + 1))" "$file" | head -c 131072 | base64`

/** Ends everything, and notes 137 (SIGKILL) as the exit status where the job could not write its own. */
export const STOP = `${STATE}
[ -d "$job" ] || exit 0
if systemd; then
  if running; then systemctl stop "$unit" || exit 1; fi
else
  # Twice the same question, since a process can be born while the first answer is acted on.
  for signal in TERM KILL; do
    tries=0
    while [ "$tries" -lt 100 ]; do
      pids=$(members)
      [ -n "$pids" ] || break 2
      if [ "$signal" = KILL ] || [ "$tries" -eq 0 ]; then kill -s "$signal" $pids 2>/dev/null; fi
      tries=$((tries + 1))
      sleep 0.1
    done
  done
fi
if running; then
  echo "understudy: $id still runs: $(members | tr '\\n' ' ')" >&2
  exit 1
fi
if [ -e "$job/began" ] && [ ! -e "$job/exit" ]; then
  echo 137 >"$job/exit.new" && sync "$job/exit.new" && mv -f "$job/exit.new" "$job/exit"
fi`
