#!/bin/sh
# Managed by Understudy: what is changed here is overwritten.
#
# The WAL archive of one node: PostgreSQL's archive_command and restore_command, and what stands behind them.
#
#   archive PATH NAME     archive_command, with %p and %f: keeps the file here and on the other nodes
#   restore NAME PATH     restore_command, with %f and %p: from here, or from another node
#   sync                  by a timer: brings other nodes what they missed, then removes what is expired
#   serve                 what another node may ask for over SSH: receive, fetch, hello
#
# A name is never given another content. A file gets its name once it is whole and on the disk. Success is only reported
# once as many other nodes as are asked for have the file on their disks. docs/archive.md has the reasons.
#
# Exit statuses: 0 done; 1 not now, or not there; 3 the name has another content; 5 refused; 6 too little room.
# Never more than 125 from `restore`: PostgreSQL would end its recovery.
set -u
LC_ALL=C
export LC_ALL
umask 077

conf=/etc/understudy/wal-archive.conf
if [ "${1-}" = -c ]; then
  conf=$2
  shift 2
fi
program=$0
ssh=/usr/bin/ssh
remote_user=postgres
connect_seconds=5
transfer_seconds=300
reserve_percent=5
down_seconds=30
# shellcheck disable=SC1090
. "$conf" || exit 1
state=$directory/.state

say() { echo "wal-archive: $*" >&2; }

# Kept for the status of the cluster, which cannot read PostgreSQL's log.
record_failure() {
  say "$*"
  { printf '%s %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$*" >"$state/last-failure.new" &&
    mv -f "$state/last-failure.new" "$state/last-failure"; } 2>/dev/null
}

# A segment, a partial one, a timeline's history or a backup's label.
is_segment() {
  [ "${#1}" -eq 24 ] || return 1
  case $1 in *[!0-9A-F]*) return 1 ;; esac
}
is_name() {
  case $1 in
  *.partial) is_segment "${1%.partial}" ;;
  *.backup)
    stem=${1%.backup}
    case $stem in *.*) ;; *) return 1 ;; esac
    offset=${stem#*.}
    [ "${#offset}" -eq 8 ] || return 1
    case $offset in *[!0-9A-F]*) return 1 ;; esac
    is_segment "${stem%%.*}"
    ;;
  *.history)
    stem=${1%.history}
    [ "${#stem}" -eq 8 ] || return 1
    case $stem in *[!0-9A-F]*) return 1 ;; esac
    ;;
  *) is_segment "$1" ;;
  esac
}
is_number() { case $1 in '' | *[!0-9]*) return 1 ;; esac; }

# The first eight bytes of the control file. Each database cluster has a directory of its own, so that one that was made
# anew never meets the files of the one before it.
system_identifier() {
  identifier=$(od -An -tu8 -N8 "$data_directory/global/pg_control" 2>/dev/null | tr -d ' \n')
  is_number "$identifier" || {
    say "the system identifier cannot be read from $data_directory/global/pg_control"
    return 1
  }
  printf %s "$identifier"
}

sum_of() {
  summed=$(sha256sum <"$1") || return 1
  printf %s "${summed%% *}"
}

# What the archive must leave free, so that it never takes PostgreSQL's own room away.
has_room() {
  df -Pk -- "$1" | awk -v bytes="$2" -v percent="$reserve_percent" \
    'NR == 2 { exit !($4 - bytes / 1024 >= $2 * percent / 100) } END { if (NR < 2) exit 1 }'
}

# Whether a file that is there has this content. Durable too: whoever put it there may have died before its directory
# was written to the disk.
same() {
  [ "$(sum_of "$1")" = "$2" ] || return 3
  sync -- "$1" "$(dirname -- "$1")" || return 1
}

# store IDENTIFIER NAME SUM BYTES: keeps what comes on standard input.
store() {
  place=$directory/$1
  kept=$place/$2
  mkdir -p -- "$place" || return 1
  if [ -e "$kept" ]; then
    same "$kept" "$3"
    return
  fi
  has_room "$place" "$4" || {
    say "there is too little room under $directory: the last $reserve_percent percent are left free"
    return 6
  }
  new=$(mktemp -- "$place/.incoming.XXXXXXXX") || return 1
  trap 'rm -f -- "$new"; exit 1' HUP INT TERM PIPE
  stored=1
  if cat >"$new" && [ "$(stat -c %s -- "$new")" = "$4" ] && [ "$(sum_of "$new")" = "$3" ] && sync -- "$new"; then
    # A link and not a rename: it fails where the name was taken meanwhile.
    if ln -T -- "$new" "$kept" 2>/dev/null; then
      sync -- "$place" && stored=0
    elif [ -e "$kept" ]; then
      same "$kept" "$3"
      stored=$?
    fi
  else
    say "$2 did not come whole, or could not be written"
  fi
  rm -f -- "$new"
  trap - HUP INT TERM PIPE
  return "$stored"
}

# remote HOST PORT VERB ARGUMENT...: asks another node. Standard input and output are the other side's.
# The user's own configuration is left aside. A host that is away, or hangs, is given up within seconds.
remote() {
  host=$1
  port=$2
  shift 2
  timeout --foreground "$transfer_seconds" "$ssh" -F /dev/null -T \
    -o BatchMode=yes -o StrictHostKeyChecking=yes -o "UserKnownHostsFile=$known_hosts" -o UpdateHostKeys=no \
    -o "IdentityFile=$identity" -o IdentitiesOnly=yes -o "ConnectTimeout=$connect_seconds" \
    -o ServerAliveInterval=5 -o ServerAliveCountMax=3 -o LogLevel=ERROR \
    -p "$port" -l "$remote_user" -- "$host" "$program $*"
}

seems_down() {
  marked=$(stat -c %Y -- "$state/down.$1" 2>/dev/null) || return 1
  age=$(($(date +%s) - marked))
  [ "$age" -ge 0 ] && [ "$age" -lt "$down_seconds" ]
}
# Taken from how a call ended: 255 is ssh's own, 124 its time limit's.
note_reachability() {
  case $2 in
  124 | 255) : >"$state/down.$1" ;;
  *) rm -f -- "$state/down.$1" ;;
  esac 2>/dev/null
}

make_state() { mkdir -p -- "$state/pending" "$state/alone"; }

# What a node has missed. Its own file for each: no two processes ever write one file.
owe() {
  mkdir -p -- "$state/pending/$1" && : >"$state/pending/$1/$2.$3" && sync -- "$state/pending/$1"
}

# ship_to_all yes|no: offers the file to every target, side by side. `no`: not to those that did not answer just now.
# Sets have, lacking, skipped, conflicts and why.
ship_to_all() {
  sent=
  skipped=
  while read -r target host port; do
    [ -n "$target" ] || continue
    case " $have " in *" $target "*) continue ;; esac
    if [ "$1" = no ] && seems_down "$target"; then
      skipped="$skipped $target"
      continue
    fi
    remote "$host" "$port" receive "$identifier" "$name" "$sum" "$bytes" <"$path" &
    sent="$sent $target=$!"
  done <<TARGETS
$targets
TARGETS
  lacking=$skipped
  for pair in $sent; do
    target=${pair%%=*}
    wait "${pair#*=}"
    code=$?
    note_reachability "$target" "$code"
    case $code in
    0) have="$have $target" ;;
    3) conflicts="$conflicts $target" ;;
    124 | 255) why="$why, $target does not answer" ;;
    6) why="$why, $target has too little room" ;;
    *) why="$why, $target refuses it ($code)" ;;
    esac
    [ "$code" -eq 0 ] || lacking="$lacking $target"
  done
}
count() { echo $#; }

archive() {
  path=$1
  name=$2
  is_name "$name" || {
    record_failure "$name is no name of a file for the archive"
    exit 5
  }
  make_state || exit 1
  identifier=$(system_identifier) || {
    record_failure "$name is not archived: the system identifier cannot be read"
    exit 1
  }
  bytes=$(stat -c %s -- "$path") && sum=$(sum_of "$path") || {
    record_failure "$name is not archived: $path cannot be read"
    exit 1
  }
  store "$identifier" "$name" "$sum" "$bytes" <"$path"
  here=$?
  if [ "$here" -eq 3 ]; then
    record_failure "$name is in the archive of $node with another content: nothing was overwritten"
    exit 3
  fi
  have=
  conflicts=
  why=
  ship_to_all no
  needed=$minimum_copies
  all=$(printf '%s\n' "$targets" | grep -c .)
  [ "$needed" -le "$all" ] || needed=$all
  # shellcheck disable=SC2086
  if [ -z "$conflicts" ] && [ "$(count $have)" -lt "$needed" ] && [ -n "$skipped" ] && ! is_pressed; then
    ship_to_all yes
  fi
  if [ -n "$conflicts" ]; then
    record_failure "$name is in the archive of$conflicts with another content: nothing was overwritten"
    exit 3
  fi
  # shellcheck disable=SC2086
  if [ "$(count $have)" -lt "$needed" ]; then
    [ "$here" -eq 0 ] && is_pressed && release
    # shellcheck disable=SC2086
    record_failure "$name is on $(count $have) of the $needed other nodes that must have it${why:-, all did not answer just now}"
    exit 1
  fi
  # A lone node has no other copy: its own must be.
  if [ "$here" -ne 0 ] && [ -z "$have" ]; then
    record_failure "$name cannot be kept under $directory (no room, or not writable)"
    exit 1
  fi
  if [ "$here" -eq 0 ]; then
    for target in $lacking; do owe "$target" "$identifier" "$name" || say "$target will miss $name"; done
  else
    say "$name is not kept on $node itself"
  fi
  case $name in *.history) gather ;; esac
  rm -f -- "$state/last-failure"
  exit 0
}

# Whether so much WAL waits that PostgreSQL's own disk is in danger.
is_pressed() {
  each=16777216
  is_segment "$name" && each=$bytes
  waiting=0
  for ready in "$(dirname -- "$path")"/archive_status/*.ready; do
    [ -e "$ready" ] && waiting=$((waiting + each))
  done
  [ "$waiting" -ge "$max_waiting_bytes" ]
}

# The one exception: no other node has it, but it is safe here, written down as owed, and PostgreSQL may go on.
release() {
  for target in $lacking; do owe "$target" "$identifier" "$name" || return 1; done
  : >"$state/alone/$identifier.$name" && sync -- "$state/alone" || return 1
  say "$name is kept on $node alone: $max_waiting_bytes bytes were waiting for another node$why"
  rm -f -- "$state/last-failure"
  exit 0
}

# A node that was promoted has segments that the old primary streamed to it and had not archived yet. PostgreSQL takes
# them for archived; they are put into the archive here, and brought to the others by `sync`.
gather() {
  wal=$(dirname -- "$path")
  for finished in "$wal"/archive_status/*.done; do
    segment=$(basename -- "$finished" .done)
    is_segment "$segment" && [ -f "$wal/$segment" ] && [ ! -e "$directory/$identifier/$segment" ] || continue
    segment_sum=$(sum_of "$wal/$segment") &&
      store "$identifier" "$segment" "$segment_sum" "$(stat -c %s -- "$wal/$segment")" <"$wal/$segment" || continue
    while read -r target host port; do
      [ -z "$target" ] || owe "$target" "$identifier" "$segment"
    done <<TARGETS
$targets
TARGETS
  done
}

# 1 where nobody has it, whatever else went wrong.
restore() {
  name=$1
  path=$2
  is_name "$name" || exit 1
  identifier=$(system_identifier) || exit 1
  if [ -f "$directory/$identifier/$name" ]; then
    cp -- "$directory/$identifier/$name" "$path" && exit 0
    rm -f -- "$path"
    exit 1
  fi
  connect_seconds=3
  make_state
  while read -r target host port; do
    [ -n "$target" ] || continue
    seems_down "$target" && continue
    remote "$host" "$port" fetch "$identifier" "$name" </dev/null >"$path"
    code=$?
    note_reachability "$target" "$code"
    [ "$code" -eq 0 ] && exit 0
    rm -f -- "$path"
  done <<TARGETS
$targets
TARGETS
  exit 1
}

serve() {
  set -f
  # shellcheck disable=SC2086
  set -- ${SSH_ORIGINAL_COMMAND-}
  [ $# -eq 0 ] || shift
  ask "$@"
}
ask() {
  case ${1-}:$# in
  receive:5 | fetch:3) is_number "$2" && is_name "$3" || refuse ;;
  hello:1) ;;
  *) refuse ;;
  esac
  case $1 in
  hello)
    [ -w "$directory" ] || {
      say "$directory on $node is not there, or not writable"
      exit 1
    }
    echo "wal-archive 1 $cluster $node"
    ;;
  receive)
    case $4 in *[!0-9a-f]*) refuse ;; esac
    is_number "$5" || refuse
    store "$2" "$3" "$4" "$5"
    exit
    ;;
  fetch)
    [ -f "$directory/$2/$3" ] || exit 1
    exec cat -- "$directory/$2/$3"
    ;;
  esac
  exit 0
}
refuse() {
  say "this key is for the WAL archive only"
  exit 5
}

synchronise() {
  make_state || exit 1
  exec 9>"$state/sync.lock" || exit 1
  # One that is still at it will do.
  flock -n 9 || exit 0
  result=0
  while read -r target host port; do
    [ -n "$target" ] && [ -d "$state/pending/$target" ] || continue
    for debt in "$state/pending/$target"/*; do
      [ -e "$debt" ] || continue
      owed=$(basename -- "$debt")
      identifier=${owed%%.*}
      name=${owed#*.}
      path=$directory/$identifier/$name
      if [ ! -f "$path" ]; then
        rm -f -- "$debt"
        continue
      fi
      sum=$(sum_of "$path") && bytes=$(stat -c %s -- "$path") || continue
      remote "$host" "$port" receive "$identifier" "$name" "$sum" "$bytes" <"$path" 9>&-
      code=$?
      note_reachability "$target" "$code"
      case $code in
      0) rm -f -- "$debt" "$state/alone/$owed" ;;
      3)
        say "$name is in the archive of $target with another content: nothing was overwritten"
        result=3
        ;;
      *)
        say "$target still lacks $name ($code)"
        break
        ;;
      esac
    done
  done <<TARGETS
$targets
TARGETS
  forget_removed_nodes
  clean
  exit "$result"
}

forget_removed_nodes() {
  for owed_to in "$state/pending"/*; do
    [ -d "$owed_to" ] || continue
    printf '%s\n' "$targets" | grep -q "^$(basename -- "$owed_to") " || rm -rf -- "$owed_to"
  done
}

# What is the archive's own of what lies there, and may expire: "TIME BYTES IDENTIFIER/NAME", one a line. Directories that
# are named by a system identifier, names that PostgreSQL gives, and nothing else. Histories stay: they are small, and a
# recovery without them takes a wrong turn. Further arguments are find's.
expirable() {
  find "$directory" -mindepth 1 -maxdepth 1 -type d -name '[0-9]*' -printf '%f\n' | while read -r identifier; do
    is_number "$identifier" || continue
    find "$directory/$identifier" -mindepth 1 -maxdepth 1 -type f "$@" -printf '%T@ %s %f\n' |
      while read -r time bytes name; do
        case $name in *.history) continue ;; esac
        is_name "$name" && echo "$time $bytes $identifier/$name"
      done
  done
}

# By age and by size, the oldest first.
clean() {
  find "$directory" -mindepth 1 -maxdepth 1 -type d -name '[0-9]*' -printf '%f\n' | while read -r identifier; do
    is_number "$identifier" || continue
    find "$directory/$identifier" -mindepth 1 -maxdepth 1 -type f -name '.incoming.????????' -mmin +60 -delete
  done
  expirable -mmin "+$((retention_hours * 60))" | while read -r time bytes expired; do
    rm -f -- "${directory:?}/$expired"
  done
  expirable | sort -rn | awk -v limit="$retention_bytes" '{ total += $2; if (total > limit) print $3 }' |
    while read -r expired; do
      say "$directory/$expired is removed: the archive has more than $retention_bytes bytes"
      rm -f -- "${directory:?}/$expired"
    done
}

case ${1-}:$# in
archive:3) archive "$2" "$3" ;;
restore:3) restore "$2" "$3" ;;
serve:1) serve ;;
sync:1) synchronise ;;
receive:* | fetch:* | hello:*) ask "$@" ;;
*)
  say "archive PATH NAME | restore NAME PATH | sync | serve"
  exit 5
  ;;
esac
