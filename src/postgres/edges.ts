/** What one host can reach, may do and has room for: everything that preflight asks of it, in one round trip as root. */
import type { Host, RunOptions } from '../host/host.js'
import type { Layout } from './layout.js'

export interface Peer {
  name: string
  host: string
  sshPort: number
  /** libpq connection string of its repmgr database, without a password. */
  conninfo: string
}

/** How a TCP connection ended. */
type PortAnswer = 'open' | 'refused' | 'silent'
interface Login {
  ok: boolean
  said: string
}

export interface Edges {
  sudo: { command: string; allowed: boolean }[]
  openFilesLimit: number | undefined
  overcommitMemory: number | undefined
  transparentHugePages: string | undefined
  peers: Record<
    string,
    {
      resolvesTo: string | undefined
      ssh: PortAnswer
      postgres: PortAnswer
      client: Login | undefined
      replication: Login | undefined
    }
  >
}

/**
 * All peers side by side, each with time limits of its own. `timeout` tells a port that drops what it gets (124) from one
 * that refuses. What psql says is cut to a line.
 */
const SCRIPT = `
psql=$1 data=$2 port=$3 unit=$4
shift 4
pid=$(head -n 1 "$data/postmaster.pid" 2>/dev/null)
[ -n "$pid" ] && awk '/^Max open files/ { print "files\\t" $4 }' "/proc/$pid/limits" 2>/dev/null
printf 'overcommit\\t%s\\n' "$(cat /proc/sys/vm/overcommit_memory 2>/dev/null)"
printf 'huge\\t%s\\n' "$(sed -n 's/.*\\[\\(.*\\)\\].*/\\1/p' /sys/kernel/mm/transparent_hugepage/enabled 2>/dev/null)"
if id postgres >/dev/null 2>&1; then
  for verb in start stop restart reload; do
    sudo -n -u postgres sudo -n -l -- /usr/bin/systemctl "$verb" "$unit" >/dev/null 2>&1
    printf 'sudo\\t/usr/bin/systemctl %s %s\\t%s\\n' "$verb" "$unit" "$?"
  done
fi
reach() { timeout 3 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$1" "$2" 2>/dev/null; }
ask() {
  if said=$(timeout 8 sudo -n -u postgres "$psql" -XAtqw -d "$1" -c "$2" 2>&1 >/dev/null); then return; fi
  printf '%s\\n' "\${said:-no answer within 8 s}" | tr '\\n\\t' '  ' | cut -c1-500
}
try() {
  printf 'resolves\\t%s\\t%s\\n' "$1" "$(getent ahosts "$2" | awk 'NR == 1 { print $1 }')"
  reach "$2" "$3"; printf 'ssh\\t%s\\t%s\\n' "$1" "$?"
  reach "$2" "$port"; reached=$?
  printf 'postgres\\t%s\\t%s\\n' "$1" "$reached"
  if [ "$reached" = 0 ] && [ -x "$psql" ]; then
    printf 'client\\t%s\\t%s\\n' "$1" "$(ask "$4" 'SELECT 1')"
    printf 'replication\\t%s\\t%s\\n' "$1" "$(ask "$4 dbname=replication replication=yes" IDENTIFY_SYSTEM)"
  fi
}
while [ $# -ge 4 ]; do
  { answer=$(try "$1" "$2" "$3" "$4"); printf '%s\\n' "$answer"; } &
  shift 4
done
wait
`

export async function askEdges(
  host: Host,
  layout: Layout,
  port: number,
  peers: readonly Peer[],
  options: RunOptions = {},
): Promise<Edges> {
  const { stdout } = await host.run(
    {
      argv: [
        'sh',
        '-c',
        SCRIPT,
        'understudy-edges',
        `${layout.binDirectory}/psql`,
        layout.dataDirectory,
        String(port),
        layout.unit,
        ...peers.flatMap(peer => [peer.name, peer.host, String(peer.sshPort), peer.conninfo]),
      ],
      as: 'root',
      timeoutMs: 60_000,
      shownAs: `try the ports and the servers of ${peers.map(({ name }) => name).join(', ')}`,
    },
    options,
  )
  const lines = stdout.split('\n').map(line => line.split('\t'))
  const value = (key: string) => lines.find(([word]) => word === key)?.[1] || undefined
  const of = (key: string, peer: string) => lines.find(([word, name]) => word === key && name === peer)?.[2]
  const number = (text: string | undefined) => (text === undefined ? undefined : Number(text))
  return {
    sudo: lines
      .filter(([word]) => word === 'sudo')
      .map(([, command = '', status]) => ({ command, allowed: status === '0' })),
    openFilesLimit: number(value('files')),
    overcommitMemory: number(value('overcommit')),
    transparentHugePages: value('huge'),
    peers: Object.fromEntries(
      peers.map(({ name }) => [
        name,
        {
          resolvesTo: of('resolves', name) || undefined,
          ssh: portAnswer(of('ssh', name)),
          postgres: portAnswer(of('postgres', name)),
          client: login(of('client', name)),
          replication: login(of('replication', name)),
        },
      ]),
    ),
  }
}

const portAnswer = (status: string | undefined): PortAnswer =>
  status === '0' ? 'open' : status === '124' ? 'silent' : 'refused'

const login = (said: string | undefined): Login | undefined =>
  said === undefined ? undefined : { ok: said.trim() === '', said: said.trim() }
