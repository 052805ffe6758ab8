/** The package manager of Debian and Ubuntu: its commands, and what its hosts have. */
import { explainApt } from './apt-errors.js'
import { KEY_FILE, PREFERENCES_FILE, repositoryFiles, SOURCES_FILE, sourcesText } from './apt-files.js'
import { LOCK_WAIT_SECONDS, NETWORK, PATIENTLY } from './apt-patience.js'
import { fetchUpgrade, inspectUpgrades, upgrade } from './apt-upgrade.js'
import type { Command } from './command.js'
import type { Host, RunOptions } from './host.js'
import type { PackageChoice, PackageManager, PackagesOnHost } from './package-manager.js'

const INSTALL = `${PATIENTLY}
options=$1
shift
# An installation of ours that was cut short, by a cancel or a loss of power, has left its mark: dpkg would refuse to go on.
mark=/var/lib/understudy/installing
if [ -e "$mark" ]; then
  dpkg --force-confdef --force-confold --configure -a && patiently apt-get -q -y $options -f install || exit
fi
touch "$mark" || exit
# A source that nobody needs here may be broken: what cannot be had is said by the installation.
patiently apt-get -q $options update || echo "not every source could be read; going on with what is known"
patiently apt-get -q -y $options -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold \\
  install --no-install-recommends "$@"
code=$?
# Also where it failed: then it has said what is to be done.
rm -f "$mark"
exit "$code"`

const HOLD = `${PATIENTLY}
patiently apt-mark "$@"`

/** In a directory of its own, which apt's unprivileged user must be able to enter. The key comes on standard input. */
const TRY = `
directory=$(mktemp -d) || exit 1
trap 'rm -rf -- "$directory"' EXIT
trap 'exit 143' TERM INT HUP PIPE
sources=$1
shift
chmod 755 "$directory" && mkdir "$directory/lists" "$directory/cache" || exit 1
cat >"$directory/key.asc" || exit 1
printf %s "$sources" | sed "s|^Signed-By:.*|Signed-By: $directory/key.asc|" >"$directory/new.sources" || exit 1
chmod 644 "$directory/key.asc" "$directory/new.sources"
apt-get -q "$@" -o APT::Update::Error-Mode=any -o "Dir::Etc::SourceList=$directory/new.sources" -o Dir::Etc::SourceParts=/dev/null \\
  -o "Dir::State::Lists=$directory/lists" -o "Dir::Cache=$directory/cache" update 2>&1`

const INSPECT = `
own=$1
shift
[ -r /etc/os-release ] && . /etc/os-release
echo "codename=$VERSION_CODENAME"
[ -e "$own" ] && echo own-source=yes
dpkg-query -W -f 'package=\${Package} \${db:Status-Want} \${db:Status-Status} \${Version}\\n' "$@" 2>/dev/null
# Without lists, as on a fresh image, nobody knows yet what the sources have.
for list in /var/lib/apt/lists/*_Packages*; do
  [ -e "$list" ] || continue
  echo lists=yes
  apt-cache pkgnames postgresql- | sed -n 's/^postgresql-\\([0-9]*\\)-repmgr$/repmgr=\\1/p; s/^postgresql-\\([0-9]*\\)$/server=\\1/p'
  break
done
apt-cache policy "$@" | awk '/^[^ ].*:$/ { name = substr($0, 1, length($0) - 1) }
  /^  Candidate: [^(]/ { print "candidate=" name " " $2 }'
exit 0`

async function inspect(host: Host, names: readonly string[], options: RunOptions = {}): Promise<PackagesOnHost> {
  const { stdout } = await host.run(
    {
      argv: ['sh', '-c', INSPECT, 'understudy-packages', SOURCES_FILE, ...names],
      as: 'root',
      timeoutMs: 60_000,
      shownAs: `dpkg-query -W ${names.join(' ')}; apt-cache pkgnames postgresql-`,
    },
    options,
  )
  const lines = stdout.split('\n')
  const valuesOf = (key: string) =>
    lines.filter(line => line.startsWith(`${key}=`)).map(line => line.slice(key.length + 1))
  const installed: Record<string, string> = {}
  const held: string[] = []
  for (const value of valuesOf('package')) {
    const [name, want, status, version] = value.split(' ')
    if (!name || !version || status !== 'installed') continue
    installed[name] = version
    if (want === 'hold') held.push(name)
  }
  const candidates = Object.fromEntries(valuesOf('candidate').map(value => value.split(' ')))
  const servers = valuesOf('server')
  const offers = valuesOf('repmgr')
    .filter(major => servers.includes(major))
    .map(Number)
    .sort((a, b) => a - b)
  return {
    installed,
    held,
    candidates,
    offers: lines.includes('lists=yes') ? offers : undefined,
    codename: valuesOf('codename')[0] || undefined,
    ownSource: lines.includes('own-source=yes'),
  }
}

const asArgument = ({ name, version }: PackageChoice) => (version === undefined ? name : `${name}=${version}`)

function install(packages: readonly PackageChoice[]): Command {
  const pinned = packages.some(({ version }) => version !== undefined)
  // A version that is named is meant: also where it is older, and where an earlier one was held.
  const options = [...NETWORK, ...(pinned ? ['--allow-downgrades', '--allow-change-held-packages'] : [])].join(' ')
  const names = packages.map(asArgument)
  const shown = ['apt-get', 'install', '-y', '--no-install-recommends', ...(pinned ? ['--allow-downgrades'] : [])]
  return {
    argv: ['sh', '-c', INSTALL, 'understudy-install', String(LOCK_WAIT_SECONDS), options, ...names],
    as: 'root',
    env: { DEBIAN_FRONTEND: 'noninteractive' },
    timeoutMs: 1_800_000,
    shownAs: `sudo sh -c 'apt-get update; DEBIAN_FRONTEND=noninteractive ${[...shown, ...names].join(' ')}'`,
  }
}

export const apt: PackageManager = {
  inspect,
  repositoryFiles,
  repositoryDirectories: {
    argv: ['mkdir', '-p', '-m', '0755', '/etc/apt/keyrings', '/etc/apt/preferences.d', '/etc/apt/sources.list.d'],
    as: 'root',
    timeoutMs: 30_000,
  },
  forgetRepository: { argv: ['rm', '-f', SOURCES_FILE, PREFERENCES_FILE, KEY_FILE], as: 'root', timeoutMs: 30_000 },
  tryRepository: repository => ({
    argv: ['sh', '-c', TRY, 'understudy-try', sourcesText(repository, KEY_FILE), ...NETWORK],
    as: 'root',
    stdin: repository.signingKey,
    timeoutMs: 300_000,
    shownAs: `apt-get update   # of ${repository.uri} ${repository.suite} alone, in a directory of its own`,
  }),
  install,
  inspectUpgrades,
  fetchUpgrade,
  upgrade,
  hold: (names, held) => ({
    argv: ['sh', '-c', HOLD, 'understudy-hold', String(LOCK_WAIT_SECONDS), held ? 'hold' : 'unhold', ...names],
    as: 'root',
    timeoutMs: (LOCK_WAIT_SECONDS + 60) * 1000,
    shownAs: `sudo apt-mark ${held ? 'hold' : 'unhold'} ${names.join(' ')}`,
  }),
  explain: explainApt,
}
