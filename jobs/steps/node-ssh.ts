/** SSH between the postgres users of the nodes: a key a host, who may use it from where, pinned host keys, a trial. */
import type { ClusterNode } from '../../src/cluster/model.js'
import { nodeSshOf, sshMembers } from '../../src/cluster/node-ssh.js'
import { act, changing, runCommand } from '../../src/host/actions.js'
import { CommandFailed } from '../../src/host/errors.js'
import { type RemoteFile, readFile, writeFile } from '../../src/host/files.js'
import { matchesPin } from '../../src/host/host-key.js'
import { OperationError } from '../../src/operations/errors.js'
import { type Action, type Check, type Stage, type Step, type StepContext, stage } from '../../src/operations/step.js'
import { ARCHIVE_PROGRAM } from '../../src/postgres/archive.js'
import { asManagedBlock, withoutManagedBlock } from '../../src/postgres/managed-block.js'
import {
  authorizedLine,
  configBlock,
  knownHostLine,
  lineOf,
  nodeSshFiles,
  type Peer,
} from '../../src/postgres/node-ssh.js'
import type { Bench } from '../bench.js'
import { blockStep } from './file-step.js'

/** Thrown when none of a host's own keys is the pinned one. */
class HostKeyNotFound extends OperationError {
  constructor(node: ClusterNode) {
    super(`None of the host keys in /etc/ssh of ${node.name} has the pinned fingerprint ${node.ssh.hostKey}.`, {
      code: 'host-key-not-found',
      outcome: 'not_started',
      remedy:
        `On ${node.name}, see which keys sshd uses (sudo sshd -T | grep hostkey), and keep the public half of each beside it ` +
        'as ssh_host_*_key.pub: the other nodes are to be given exactly the key that this service has pinned.',
    })
  }
}

/** Thrown when a postgres user cannot log in to another node, after everything was set up for it. */
class NodeSshRefused extends OperationError {
  constructor(
    from: ClusterNode,
    to: ClusterNode,
    { said, why, remedy }: { said: string; why: string; remedy: string },
  ) {
    super(`postgres on ${from.name} cannot log in to ${to.name} (${to.host}, port ${to.ssh.port}): ${why}`, {
      code: 'node-ssh-refused',
      outcome: 'failed_partial',
      remedy,
      output: said,
    })
  }
}

const members = ({ cluster }: Bench) => sshMembers(cluster)
const others = (bench: Bench, node: ClusterNode) => members(bench).filter(other => other.name !== node.name)
const isPresent = ({ absent }: Bench, { name }: ClusterNode) => !absent.has(name)
const wantsNodeSsh = ({ cluster }: Bench) => nodeSshOf(cluster) !== 'none'

const MAKE_KEY = `directory=$1 key=$2 comment=$3
umask 077
mkdir -p -- "$directory" && chmod 0700 -- "$directory" || exit 1
if ! ssh-keygen -y -P '' -f "$key" >/dev/null 2>&1; then
  rm -f -- "$key" "$key.pub"
  ssh-keygen -q -t ed25519 -N '' -C "$comment" -f "$key" || exit 1
fi
ssh-keygen -y -P '' -f "$key" >"$key.pub.new" && mv -f -- "$key.pub.new" "$key.pub" && sync -- "$key" "$key.pub" "$directory"`

const LOOK_AT_KEY = `directory=$1 key=$2
[ "$(stat -c '%U %a' -- "$directory" 2>/dev/null)" = 'postgres 700' ] || { echo "$directory is not there, or not postgres' alone"; exit 0; }
[ "$(stat -c '%U %a' -- "$key" 2>/dev/null)" = 'postgres 600' ] || { echo "$key is not there, or not postgres' alone"; exit 0; }
made=$(ssh-keygen -y -P '' -f "$key" 2>/dev/null) || { echo "$key cannot be read"; exit 0; }
[ "$(cut -d' ' -f1-2 <"$key.pub" 2>/dev/null)" = "$(echo "$made" | cut -d' ' -f1-2)" ] || { echo "$key.pub is not its public half"; exit 0; }
echo fine`

/** Made on the host: the private half never leaves it. Empty where no SSH between the nodes is wanted. */
export function nodeKeySteps(bench: Bench, node: ClusterNode): Step[] {
  if (!wantsNodeSsh(bench) || !members(bench).includes(node)) return []
  const { directory, privateKey } = nodeSshFiles(bench.layout)
  const comment = `understudy ${bench.cluster.name} ${node.name}`
  const host = bench.host(node)
  return [
    {
      id: `${node.name}/ssh-key`,
      kind: 'change',
      title: 'make an SSH key for the postgres user',
      node: node.name,
      actions: [
        runCommand(host, bench.cluster.name, {
          argv: ['sh', '-c', MAKE_KEY, 'understudy-key', directory, privateKey, comment],
          as: 'postgres',
          timeoutMs: 60_000,
          shownAs: `sudo -n -u postgres -- ssh-keygen -q -t ed25519 -N '' -f ${privateKey}`,
        }),
      ],
      async check({ signal }): Promise<Check> {
        const { stdout } = await host.run(
          { argv: ['sh', '-c', LOOK_AT_KEY, 'understudy-key', directory, privateKey], as: 'root', timeoutMs: 15_000 },
          { signal },
        )
        return stdout.trim() === 'fine' ? { done: true } : { done: false, reason: stdout.trim() }
      },
    },
  ]
}

/**
 * Once the hosts have their keys: each lets the others in, and knows them. Empty where it is not wanted. `prepared`: the
 * only node that was, for a call about one; then those are told that have a key already.
 */
export function nodeSshStages(bench: Bench, prepared?: ClusterNode): Stage[] {
  if (!wantsNodeSsh(bench) || members(bench).length < 2) return []
  const present = members(bench).filter(
    node =>
      isPresent(bench, node) &&
      (prepared === undefined || node === prepared || bench.found(node).server.hasNodeKey === true),
  )
  return [
    stage(
      'let the nodes log in to each other',
      ...present.map(node => [authorize(bench, node), pinHosts(bench, node), configure(bench, node)]),
    ),
  ]
}

/** What a key may be used from: where the node's own routes to the others begin. Addresses, so that sshd looks nothing up. */
const ABOUT_PEER = `key=$1
shift
[ -e "$key" ] || exit 0
cat -- "$key" || exit 1
for other in "$@"; do
  address=$(getent ahosts "$other" | awk '{ print $1; exit }')
  if command -v ip >/dev/null; then ip -o route get "$address" | sed -n 's/.* src \\([^ ]*\\).*/\\1/p'
  else hostname -I | tr ' ' '\\n' | sed '/^$/d'; fi
done`

/** Undefined where it has no key yet. */
async function peerOf(bench: Bench, node: ClusterNode, signal: AbortSignal): Promise<Peer | undefined> {
  const argv = ['sh', '-c', ABOUT_PEER, 'understudy-peer', nodeSshFiles(bench.layout).publicKey]
  const { stdout } = await bench
    .host(node)
    .run({ argv: [...argv, ...others(bench, node).map(({ host }) => host)], as: 'root', timeoutMs: 15_000 }, { signal })
  const [key = '', ...addresses] = stdout.trim().split('\n')
  if (key === '') return undefined
  return { name: node.name, addresses: [node.host, ...addresses], publicKey: key }
}

function authorize(bench: Bench, node: ClusterNode): Step {
  const ssh = nodeSshOf(bench.cluster)
  if (ssh === 'none') throw new TypeError('no SSH between the nodes is wanted')
  const shown = others(bench, node).map(
    ({ name, host }) =>
      `from="${host}",restrict${ssh === 'full' ? ',pty' : `,command="${ARCHIVE_PROGRAM} serve"`} ssh-ed25519 [the key of ${name}]`,
  )
  const lineFor = async (other: ClusterNode, signal: AbortSignal) => {
    const peer = await peerOf(bench, other, signal)
    return peer && authorizedLine(peer, ssh)
  }
  return blockStep(bench, node, {
    id: 'ssh-authorized-keys',
    title: ssh === 'full' ? 'let the other nodes’ postgres users in' : 'let the other nodes’ keys speak to the archive',
    file: { path: nodeSshFiles(bench.layout).authorizedKeys, owner: 'postgres:postgres', mode: '0600' },
    shown: asManagedBlock(shown),
    async block(existing, signal) {
      const lines = await Promise.all(
        others(bench, node).map(async other =>
          isPresent(bench, other) ? await lineFor(other, signal) : lineOf(other.name, existing),
        ),
      )
      return asManagedBlock(lines.filter(line => line !== undefined))
    },
  })
}

/** The key itself, read on the host over a connection that was checked against its fingerprint. */
async function hostKeyOf(bench: Bench, node: ClusterNode, signal: AbortSignal): Promise<string> {
  const { stdout } = await bench.host(node).run(
    {
      argv: [
        'sh',
        '-c',
        `cat /etc/ssh/*_key.pub; sshd -T 2>/dev/null | sed -n 's/^hostkey //p' | while read -r key; do cat -- "$key.pub"; done; exit 0`,
      ],
      as: 'root',
      timeoutMs: 15_000,
      shownAs: 'cat /etc/ssh/ssh_host_*_key.pub',
    },
    { signal },
  )
  for (const line of stdout.split('\n')) {
    const [type = '', key = ''] = line.split(' ')
    if (
      /^[a-z0-9-]+$/.test(type) &&
      /^[A-Za-z0-9+/=]+$/.test(key) &&
      matchesPin(Buffer.from(key, 'base64'), node.ssh.hostKey)
    )
      return `${type} ${key}`
  }
  throw new HostKeyNotFound(node)
}

function pinHosts(bench: Bench, node: ClusterNode): Step {
  const shown = others(bench, node).map(
    ({ name, host, ssh }) => `${host} [port ${ssh.port}] [the host key of ${name}, ${ssh.hostKey}]`,
  )
  return blockStep(bench, node, {
    id: 'ssh-known-hosts',
    title: 'pin the other nodes’ host keys',
    file: { path: nodeSshFiles(bench.layout).knownHosts, owner: 'postgres:postgres', mode: '0600' },
    shown: asManagedBlock(shown),
    async block(existing, signal) {
      const lines = await Promise.all(
        others(bench, node).map(async other =>
          isPresent(bench, other)
            ? knownHostLine({
                name: other.name,
                host: other.host,
                port: other.ssh.port,
                hostKey: await hostKeyOf(bench, other, signal),
              })
            : lineOf(other.name, existing),
        ),
      )
      return asManagedBlock(lines.filter(line => line !== undefined))
    },
  })
}

/** So that a plain `ssh HOST`, and repmgr, find key and port. The archive does not need it, and leaves none behind. */
function configure(bench: Bench, node: ClusterNode): Step {
  const files = nodeSshFiles(bench.layout)
  if (nodeSshOf(bench.cluster) !== 'full')
    return withoutBlocks(bench, node, 'ssh-config', 'have no settings for logins', [files.config])
  const block = configBlock(
    others(bench, node).map(({ host, ssh }) => ({ host, port: ssh.port })),
    files,
  )
  return blockStep(bench, node, {
    id: 'ssh-config',
    title: 'tell ssh which key and port to use',
    file: { path: files.config, owner: 'postgres:postgres', mode: '0600' },
    block,
    shown: block,
  })
}

/** Files that are not ours alone, without our block; other files, which are, not at all. */
function withoutBlocks(
  bench: Bench,
  node: ClusterNode,
  id: string,
  title: string,
  files: readonly string[],
  own: readonly string[] = [],
): Step {
  const host = bench.host(node)
  const left = async (path: string, signal: AbortSignal): Promise<RemoteFile | undefined> => {
    const existing = await readFile(host, path, { signal })
    if (existing === undefined || withoutManagedBlock(existing) === existing) return undefined
    const content = withoutManagedBlock(existing).replace(/^\n+/, '')
    return { path, content, owner: 'postgres:postgres', mode: '0600', secret: true }
  }
  const clear = (path: string): Action => ({
    description: { kind: 'wait', text: `take the block of this service out of ${path}; the rest stays` },
    async perform({ signal, epoch }) {
      const file = await left(path, signal)
      if (file) await writeFile(changing(host, bench.cluster.name, epoch), file, { signal })
    },
  })
  const remove = { argv: ['rm', '-f', '--', ...own], as: 'root', timeoutMs: 15_000 } as const
  return {
    id: `${node.name}/${id}`,
    kind: 'change',
    title,
    node: node.name,
    actions: [...files.map(clear), ...(own.length > 0 ? [runCommand(host, bench.cluster.name, remove)] : [])],
    async check({ signal }): Promise<Check> {
      for (const path of files)
        if (await left(path, signal)) return { done: false, reason: `${path} has a block of ours` }
      for (const path of own)
        if ((await readFile(host, path, { signal })) !== undefined) return { done: false, reason: `${path} is there` }
      return { done: true }
    },
  }
}

/** For where it is not wanted any more: our keys go, and our part of each file. Empty where there is nothing of it. */
export function nodeSshRemoval(bench: Bench, node: ClusterNode, always = false): Step[] {
  if (wantsNodeSsh(bench)) return []
  if (!always && bench.found(node).server.hasNodeKey !== true) return []
  const { authorizedKeys, knownHosts, config, privateKey, publicKey } = nodeSshFiles(bench.layout)
  return [
    withoutBlocks(
      bench,
      node,
      'ssh-removal',
      'take away the SSH keys between the nodes',
      [authorizedKeys, knownHosts, config],
      // The private half last: it is what tells that there is something to remove.
      [publicKey, privateKey],
    ),
  ]
}

/** Every direction, as postgres itself does it, with the pins and without a password. */
export function proveNodeSsh(bench: Bench): Step[] {
  const present = members(bench).filter(node => isPresent(bench, node))
  if (!wantsNodeSsh(bench) || present.length < 2) return []
  return [
    {
      id: 'cluster/ssh-proof',
      kind: 'verify',
      title: 'log in from each node to each other one, as postgres',
      actions: [
        act('ssh -o BatchMode=yes -o StrictHostKeyChecking=yes from each to each', async context => {
          const pairs = present.flatMap(from => present.filter(to => to !== from).map(to => ({ from, to })))
          await Promise.all(pairs.map(({ from, to }) => tryLogin(bench, from, to, context)))
          context.note(`${pairs.length} directions, each with its pinned host key`)
        }),
      ],
    },
  ]
}

type Reached = Pick<Bench, 'cluster' | 'layout' | 'host'>

/** Throws `NodeSshRefused`, with what stands in the way, where it can be told. */
export async function tryLogin(
  bench: Reached,
  from: ClusterNode,
  to: ClusterNode,
  { signal, log }: Pick<StepContext, 'signal' | 'log'>,
): Promise<void> {
  const { privateKey, knownHosts } = nodeSshFiles(bench.layout)
  const full = nodeSshOf(bench.cluster) === 'full'
  // A login is tried as people and repmgr do it; the archive's key as the archive does it.
  const own = full
    ? []
    : ['-F', '/dev/null', '-i', privateKey, '-o', 'IdentitiesOnly=yes', '-o', `UserKnownHostsFile=${knownHosts}`]
  const options = [
    '-o',
    'BatchMode=yes',
    '-o',
    'StrictHostKeyChecking=yes',
    '-o',
    'UpdateHostKeys=no',
    '-o',
    'ConnectTimeout=20',
  ]
  const target = [
    '-p',
    String(to.ssh.port),
    '-l',
    'postgres',
    '--',
    to.host,
    full ? 'true' : `${ARCHIVE_PROGRAM} hello`,
  ]
  try {
    await bench
      .host(from)
      .run(
        { argv: ['ssh', '-T', ...own, ...options, ...target], as: 'postgres', timeoutMs: 60_000 },
        { signal, onLine: line => log(`${from.name} to ${to.name}: ${line}`) },
      )
  } catch (error) {
    if (!(error instanceof CommandFailed)) throw error
    throw new NodeSshRefused(from, to, await explain(bench, from, to, error.result.stderr.trim(), signal))
  }
}

/** What sshd itself says about this login, so that nobody has to guess between a firewall, AllowUsers and a mode. */
async function explain(bench: Reached, from: ClusterNode, to: ClusterNode, said: string, signal: AbortSignal) {
  const last = said.split('\n').at(-1) ?? ''
  if (/Host key verification failed|REMOTE HOST IDENTIFICATION/i.test(said)) {
    return {
      said,
      why: 'it shows another host key there than the pinned one.',
      remedy: `Something between ${from.name} and ${to.name} answers in its place, or ${to.host} is another host as seen from there. Compare ssh-keyscan ${to.host} on ${from.name} with the pinned key.`,
    }
  }
  if (!/Permission denied/i.test(said)) {
    return {
      said,
      why: last || 'ssh did not say why.',
      remedy: `Let ${from.name} reach port ${to.ssh.port} of ${to.host} (firewall, route, sshd), then repeat the call.`,
    }
  }
  const { stdout } = await bench.host(to).run(
    {
      argv: [
        'sh',
        '-c',
        'sshd -T -C "user=postgres,host=$1,addr=$1" 2>&1 || /usr/sbin/sshd -T -C "user=postgres,host=$1,addr=$1" 2>&1; getent passwd postgres',
        'understudy-sshd',
        from.host,
      ],
      as: 'root',
      timeoutMs: 15_000,
      shownAs: `sshd -T -C user=postgres,host=${from.host},addr=${from.host}`,
    },
    { signal, acceptExit: [0, 1, 2, 255] },
  )
  const rules = stdout
    .split('\n')
    .filter(line => /^(allowusers|denyusers|allowgroups|denygroups|authenticationmethods (?!any))/i.test(line))
  if (/^pubkeyauthentication no/im.test(stdout)) rules.push('pubkeyauthentication no')
  const files = /^authorizedkeysfile (.*)$/im.exec(stdout)?.[1]
  if (files !== undefined && !files.split(' ').includes('.ssh/authorized_keys'))
    rules.push(`authorizedkeysfile ${files}`)
  if (/^postgres:.*:(\/usr)?\/s?bin\/(nologin|false)$/m.test(stdout))
    rules.push('a login shell of postgres that lets nobody in')
  return {
    said,
    why:
      rules.length > 0
        ? `its sshd refuses the key; it has ${rules.join('; ')}.`
        : `its sshd refuses the key (${last}).`,
    remedy:
      rules.length > 0
        ? `Let the user postgres in on ${to.name} (sshd_config: ${rules.join('; ')}), then repeat the call.`
        : `Look at sshd’s log on ${to.name} (journalctl -u ssh): the mode of a directory above ~postgres/.ssh, or another source address than the key is bound to.`,
  }
}
