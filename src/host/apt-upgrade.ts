/** Newer versions of what is installed: what there is, and bringing it without the package's own restart of the server. */
import { LOCK_WAIT_SECONDS, NETWORK, PATIENTLY } from './apt-patience.js'
import type { Command } from './command.js'
import type { Host, RunOptions } from './host.js'
import type { PackageChoice, UpgradablePackage, UpgradesOnHost } from './package-manager.js'

/** Lists in a directory of its own, which apt's unprivileged user must be able to enter; where that fails, the host's own. */
const LOOK = `
directory=$(mktemp -d) || exit 1
trap 'rm -rf -- "$directory"' EXIT
trap 'exit 143' TERM INT HUP PIPE
fresh=$1 network=$2
shift 2
chmod 755 "$directory" && mkdir "$directory/lists" "$directory/cache" || exit 1
set_aside="-o Dir::State::Lists=$directory/lists -o Dir::Cache=$directory/cache"
if [ -z "$fresh" ]; then
  set_aside=
elif ! apt-get -q $network $set_aside -o APT::Update::Error-Mode=any update >/dev/null 2>&1; then
  echo stale
  set_aside=
fi
sources=$(dpkg-query -W -f '\${source:Package} \${db:Status-Status}\\n' "$@" 2>/dev/null | sed -n 's/ installed$//p' | sort -u)
dpkg-query -W -f '\${source:Package} \${db:Status-Status} \${Package}\\n' | while read -r source status name; do
  [ "$status" = installed ] || continue
  for wanted in $sources; do
    [ "$source" != "$wanted" ] || LC_ALL=C apt-cache $set_aside policy "$name"
  done
done`

/** Reads `stale` and the answers of `apt-cache policy`. */
export function readUpgrades(output: string): UpgradesOnHost {
  const packages: UpgradablePackage[] = []
  for (const line of output.split('\n')) {
    const [, name] = /^(\S+):$/.exec(line) ?? []
    if (name !== undefined)
      packages.push({ name: name.replace(/:.*$/, ''), installed: '', candidate: '', versions: [] })
    const current = packages.at(-1)
    if (!current) continue
    const [, field, value = ''] = /^ {2}(Installed|Candidate): (\S+)$/.exec(line) ?? []
    if (field === 'Installed') current.installed = value
    if (field === 'Candidate') current.candidate = value
    const [, version] = /^ (?:\*\*\*| {3}) (\S+) -?\d+$/.exec(line) ?? []
    if (version !== undefined) current.versions.push(version)
  }
  return { packages, stale: output.startsWith('stale') }
}

export async function inspectUpgrades(
  host: Host,
  names: readonly string[],
  fresh: boolean,
  options: RunOptions = {},
): Promise<UpgradesOnHost> {
  const { stdout } = await host.run(
    {
      argv: ['sh', '-c', LOOK, 'understudy-look', fresh ? 'fresh' : '', NETWORK.join(' '), ...names],
      as: 'root',
      timeoutMs: 300_000,
      shownAs: `${fresh ? 'apt-get update   # aside; then ' : ''}apt-cache policy ${names.join(' ')}`,
    },
    options,
  )
  return readUpgrades(stdout)
}

/**
 * Debian's packages stop every server of their version before they are unpacked, whatever start.conf says, and start it
 * afterwards (postgresql-common's maintscripts-functions: stop_version, configure_version). Both ask policy-rc.d. Ours says
 * no for PostgreSQL alone and only while a mark in /run is there, so that one that a killed command has left behind denies
 * nothing; what an owner has there is asked by it, and is put back. needrestart, where it is installed, is told to wait.
 *
 * @see invoke-rc.d(8), deb-systemd-invoke(1)
 */
const UPGRADE = `${PATIENTLY}
options=$1
shift
policy=/usr/sbin/policy-rc.d kept=/usr/sbin/policy-rc.d.understudy-kept quiet=/run/understudy-upgrade
ours() { grep -q '^# Understudy:' "$policy" 2>/dev/null; }
give_back() {
  rm -f "$quiet"
  if [ -e "$kept" ]; then mv -f "$kept" "$policy"
  elif ours; then rm -f "$policy"
  fi
}
trap 'rm -rf -- "$said"; give_back' EXIT
trap 'exit 143' TERM INT HUP
if [ -e "$policy" ] && ! ours; then mv -f "$policy" "$kept" || exit; fi
cat >"$policy.new" <<'END' || exit
#!/bin/sh
# Understudy: while packages are upgraded, nobody but the service stops or starts a PostgreSQL server. Inert without its mark.
if [ -e /run/understudy-upgrade ]; then
  for word in "$@"; do
    case $word in postgresql*) exit 101 ;; esac
  done
fi
[ ! -x /usr/sbin/policy-rc.d.understudy-kept ] || exec /usr/sbin/policy-rc.d.understudy-kept "$@"
exit 0
END
chmod 755 "$policy.new" && mv -f "$policy.new" "$policy" && touch "$quiet" || exit
# One of ours that was cut short has left its mark, with what was held: dpkg would refuse to go on.
mark=/var/lib/understudy/installing
held=
if [ -e "$mark" ]; then
  held=$(cat "$mark")
  dpkg --force-confdef --force-confold --configure -a && patiently apt-get -q -y $options -f install || exit
fi
names=
for choice in "$@"; do names="$names \${choice%%=*}"; done
held=$(printf '%s\\n' $held $(apt-mark showhold $names) | sort -u)
printf '%s\\n' $held >"$mark" || exit
patiently apt-get -q $options update || echo "not every source could be read; going on with what is known"
patiently apt-get -q -y $options -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold \\
  --no-remove install --no-install-recommends "$@"
result=$?
[ -z "$held" ] || patiently apt-mark hold $held || [ "$result" -ne 0 ] || result=1
rm -f "$mark"
exit "$result"`

const FETCH = `${PATIENTLY}
options=$1
shift
patiently apt-get -q $options update || echo "not every source could be read; going on with what is known"
patiently apt-get -q -y $options --no-remove --download-only install --no-install-recommends "$@"`

const OPTIONS = [...NETWORK, '--allow-downgrades', '--allow-change-held-packages'].join(' ')
const asArguments = (packages: readonly Required<PackageChoice>[]) =>
  packages.map(({ name, version }) => `${name}=${version}`)

export const fetchUpgrade = (packages: readonly Required<PackageChoice>[]): Command => ({
  argv: ['sh', '-c', FETCH, 'understudy-fetch', String(LOCK_WAIT_SECONDS), OPTIONS, ...asArguments(packages)],
  as: 'root',
  env: { DEBIAN_FRONTEND: 'noninteractive' },
  timeoutMs: 1_800_000,
  shownAs: `apt-get install --download-only ${asArguments(packages).join(' ')}`,
})

export const upgrade = (packages: readonly Required<PackageChoice>[]): Command => ({
  argv: ['sh', '-c', UPGRADE, 'understudy-upgrade', String(LOCK_WAIT_SECONDS), OPTIONS, ...asArguments(packages)],
  as: 'root',
  env: { DEBIAN_FRONTEND: 'noninteractive', NEEDRESTART_SUSPEND: '1' },
  timeoutMs: 1_800_000,
  shownAs: `sudo sh -c 'DEBIAN_FRONTEND=noninteractive apt-get install -y --no-remove --no-install-recommends ${asArguments(packages).join(' ')}'   # with a policy-rc.d that lets no PostgreSQL server be stopped or started`,
})
