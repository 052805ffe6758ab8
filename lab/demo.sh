#!/bin/sh
# npm run demo: from a bare checkout to a running cluster. lab/demo.ts tells the story.
set -eu
cd "$(dirname "$0")/.."
case "${1-}" in
--stop | -h | --help) [ -f dist/lab/demo.js ] || { echo "Nothing to stop: the demonstration was never compiled here."; exit 0; } ;;
*) sh lab/prepare.sh redis-server ;;
esac
exec node dist/lab/demo.js "$@"
