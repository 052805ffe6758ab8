#!/bin/sh
# Makes a bare checkout ready to run: Debian packages named as arguments, npm packages, compiled code (by the npm script that
# BUILD names).
# Does nothing that is done already. Says in one line what this system lacks.
set -eu
cd "$(dirname "$0")/.."

fail() { echo "$1" >&2; exit 1; }
[ "$(uname -s)" = Linux ] || fail "This needs Linux (this is $(uname -s)). Try it in a virtual machine with Debian 12."
command -v apt-get >/dev/null || fail "This needs Debian or Ubuntu (there is no apt-get). Try it in a virtual machine with Debian 12."
[ "$(id -u)" = 0 ] || fail "This needs root (it makes network namespaces and mounts). Repeat it with sudo."
node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 20 || (a == 20 && b >= 20) ? 0 : 1)' ||
  fail "This needs Node.js 20.20 or later (this is $(node --version))."

missing=
for package in "$@"; do
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing="$missing $package"
done
if [ -n "$missing" ]; then
  echo "Installing Debian packages:$missing (about a minute)"
  # Their services are not wanted, only their programs: without this, packages start what they install.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
    trap 'rm -f $policy' EXIT INT TERM
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get -o DPkg::Lock::Timeout=300 -qq update >/dev/null || fail "apt-get update failed."
  # shellcheck disable=SC2086
  apt-get -o DPkg::Lock::Timeout=300 -qq install -y --no-install-recommends $missing >/dev/null 2>&1 ||
    fail "apt-get could not install$missing: run it by hand to see why."
fi

if ! cmp -s package-lock.json node_modules/.installed-lock.json; then
  echo "Installing npm packages (about half a minute)"
  npm ci --no-audit --no-fund --loglevel=error >/dev/null || fail "npm ci failed."
  cp package-lock.json node_modules/.installed-lock.json
fi

echo "Compiling"
npm run -s "${BUILD:-build}"
