#!/bin/sh
# npm test: from a bare checkout to the results of every ring. test/run.ts runs them and counts.
set -eu
cd "$(dirname "$0")/.."
BUILD=build:all sh lab/prepare.sh redis-server gnupg openssh-server sudo postgresql-15 postgresql-15-repmgr procps curl shellcheck
exec node dist/test/run.js "$@"
