#!/bin/sh
# Rebuilds a standby and waits for the outcome. ci.md says how it is used.
#
#   API=https://understudy.example TOKEN_FILE=token KEY=build-4711 sh rebuild-standby.sh CLUSTER NODE [BODY]
#
# Ends with 0: succeeded; 1: failed, refused or cancelled; 2: nobody knows; 124: the deadline has passed, and it goes on;
# 64: called wrongly. SIGINT and SIGTERM call the operation off.
set -u

say() { echo "rebuild-standby: $*" >&2; }
now() { date +%s; }
usage() {
  say "$*"
  exit 64
}

[ $# -eq 2 ] || [ $# -eq 3 ] || usage 'it takes CLUSTER NODE [BODY]'
[ -n "${API-}" ] || usage 'API is not set: the address of the service'
token=${TOKEN-}
[ -z "${TOKEN_FILE-}" ] || token=$(cat "$TOKEN_FILE") || exit 64
[ -n "$token" ] || usage 'neither TOKEN_FILE nor TOKEN is set'
unset TOKEN
key=${KEY:-$(now)-$$} deadline_s=${DEADLINE_S:-3600} away_s=${AWAY_S:-120}
case $deadline_s$away_s in *[!0-9]*) usage 'DEADLINE_S and AWAY_S are whole seconds' ;; esac
path="/v1/clusters/$1/nodes/$2/rebuild" body=${3-'{}'}

work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
operation='' asking='' status=''

# ask SECONDS PATH [OPTION OF CURL]…: with the token on standard input, because everybody on a machine can read arguments;
# in the background, because a shell minds a signal between commands and while it waits, not while one runs.
ask() {
  seconds=$1 url=$API$2
  shift 2
  rm -f "$work"/*
  curl -sS -H @- -m "$seconds" -D "$work/head" -o "$work/body" -w '%{http_code}' "$@" "$url" \
    >"$work/status" 2>"$work/error" <<END &
Authorization: Bearer $token
END
  asking=$!
  hear
}
hear() {
  wait "$asking"
  asking='' status=$(cat "$work/status") answer=$(cat "$work/body" "$work/error" 2>/dev/null)
  location=$(sed -n 's/^[Ll]ocation: *\(\/v1\/operations\/[0-9A-Za-z_]*\).*/\1/p' "$work/head" 2>/dev/null)
  if [ -z "$operation" ] && [ -n "$location" ]; then
    operation=$location
    say "$operation"
  fi
}
pause() {
  sleep "$1" >/dev/null 2>&1 &
  wait $!
}
report() {
  [ -z "$operation" ] || ask 15 "$operation" -H 'Accept: text/plain'
  [ "$status" != 200 ] || cat "$work/body"
}

interrupted() {
  trap '' INT TERM
  # What is being asked for may be accepted: only the answer says what there is to call off.
  if [ -z "$operation" ] && [ -n "$asking" ]; then hear; fi
  if [ -n "$operation" ]; then
    [ -z "$asking" ] || kill "$asking"
    ask 5 "$operation/cancel" -X POST
  fi
  case $operation$status in
  /*20?) say "interrupted; $operation is called off" ;;
  /*) say "interrupted; $operation may go on ($status): $answer" ;;
  4*) say "interrupted; it was not accepted ($status): $answer" ;;
  *) say "interrupted; whether it was accepted is not known ($status): $answer" ;;
  esac
  rm -rf "$work"
  trap - "$1"
  kill -s "$1" $$
}
trap 'interrupted INT' INT
trap 'interrupted TERM' TERM

heard=$(now) deadline=$(($(now) + deadline_s)) wait_s=0 away='' busy=''
while :; do
  left=$((deadline - $(now)))
  if [ -n "$away" ] && { [ "$left" -le 0 ] || [ $(($(now) - heard)) -ge "$away_s" ]; }; then
    say "no answer any more; how it is with ${operation:-the call} is not known. The same KEY goes on with it: $key"
    exit 2
  elif [ "$left" -le 0 ]; then
    say "not ended after $deadline_s s: ${operation:-not accepted yet}. The same KEY goes on with it: $key"
    exit 124
  fi
  [ "$wait_s" -le "$left" ] || wait_s=$left
  ask $((wait_s + 15)) "$path?wait=$wait_s${REFERENCE:+&reference=$REFERENCE}" \
    -H "Idempotency-Key: \"$key\"" -H 'Content-Type: application/json' -d "$body"
  # In JSON a quotation mark within a text has a backslash before it: these patterns fit only fields.
  case $status$answer in
  200*)
    report
    exit 0
    ;;
  202*) away='' wait_s=30 ;;
  409*'"type":"/problems/cluster-busy"'*)
    [ -n "$busy" ] || say "waits for another operation: $answer"
    away='' busy=yes
    pause 5
    ;;
  *'"outcome":"'*)
    say "$answer"
    case $answer in *'"outcome":"unknown"'*) code=2 ;; *) code=1 ;; esac
    report
    exit $code
    ;;
  000* | 408* | 429* | 5*)
    [ -n "$away" ] || say "no answer ($status): $answer"
    away=yes
    pause 2
    ;;
  *)
    say "refused ($status): $answer"
    exit 1
    ;;
  esac
  [ -n "$away" ] || heard=$(now)
done
