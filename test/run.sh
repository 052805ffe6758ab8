#!/bin/sh
# npm test: from a bare checkout to the results of every ring. test/run.ts runs them and counts.
set -eu
cd "$(dirname "$0")/.."
if ! BUILD=build:all sh lab/prepare.sh redis-server gnupg openssh-server sudo postgresql-15 postgresql-15-repmgr procps curl shellcheck; then
  # What does not compile, or cannot be installed, is a failure like any other, and is counted.
  echo '0 passed, 1 failed, 0 skipped'
  exit 1
fi
exec node dist/test/run.js "$@"
