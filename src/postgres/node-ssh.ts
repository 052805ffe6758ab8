/** The lines of SSH's files that let the postgres users of the nodes in to each other. Pure. */
import { isIP } from 'node:net'
import type { NodeSsh } from '../cluster/node-ssh.js'
import { ARCHIVE_PROGRAM } from './archive.js'
import type { Layout } from './layout.js'
import { asManagedBlock } from './managed-block.js'

export interface NodeSshFiles {
  directory: string
  /** Of our own, so that a key that somebody made for other purposes is neither used nor touched. */
  privateKey: string
  publicKey: string
  authorizedKeys: string
  knownHosts: string
  config: string
}

export function nodeSshFiles({ home }: Pick<Layout, 'home'>): NodeSshFiles {
  const directory = `${home}/.ssh`
  return {
    directory,
    privateKey: `${directory}/understudy_ed25519`,
    publicKey: `${directory}/understudy_ed25519.pub`,
    authorizedKeys: `${directory}/authorized_keys`,
    knownHosts: `${directory}/known_hosts`,
    config: `${directory}/config`,
  }
}

/** Another node's key, as a line of an authorized_keys file is made from it. */
export interface Peer {
  name: string
  /** Where it connects from: addresses, never names, which sshd would have to look up. */
  addresses: readonly string[]
  /** `ssh-ed25519 AAAA…` without a comment. */
  publicKey: string
}

const PUBLIC_KEY = /^(ssh-ed25519 [A-Za-z0-9+/]+={0,2})(?: |$)/

/** The type and the key, without its comment. Undefined where the text is no ed25519 key: nothing else is let through. */
export const barePublicKey = (text: string): string | undefined => PUBLIC_KEY.exec(text.trim())?.[1]

/** No forwarding of anything in either case; a terminal only for a login; one program where it is for the archive alone. */
export function authorizedLine({ name, addresses, publicKey }: Peer, ssh: Exclude<NodeSsh, 'none'>): string {
  const from = [...new Set(addresses.filter(address => isIP(address) !== 0))].sort()
  if (from.length === 0) throw new TypeError(`node ${name} has no address that a key could be bound to`)
  const key = barePublicKey(publicKey)
  if (key === undefined) throw new TypeError(`node ${name} has no ed25519 key`)
  const rights = ssh === 'full' ? 'restrict,pty' : `restrict,command="${ARCHIVE_PROGRAM} serve"`
  return `from="${from.join(',')}",${rights} ${key} ${lineEnd(name)}`
}

const lineEnd = (name: string) => `understudy:${name}`

/** The line of a node in a block that is there already: for one that does not answer just now, and must not be locked out. */
export const lineOf = (name: string, text: string): string | undefined =>
  text.split('\n').find(line => line.endsWith(` ${lineEnd(name)}`))

/** As ssh looks it up: a port other than 22 is part of the name. */
const knownAs = (host: string, port: number) => (port === 22 ? host : `[${host}]:${port}`)

/** `hostKey` is type and key, as in the host's own .pub file. */
export const knownHostLine = (node: { name: string; host: string; port: number; hostKey: string }) =>
  `${knownAs(node.host, node.port)} ${node.hostKey} ${lineEnd(node.name)}`

/**
 * So that `ssh HOST`, and repmgr, use our key, port and pins without further words. Ends with `Host *`, or what stands
 * behind our block for all hosts would count for the last of ours only.
 */
export function configBlock(nodes: readonly { host: string; port: number }[], files: NodeSshFiles): string {
  return asManagedBlock([
    ...nodes.flatMap(({ host, port }) => [
      `Host ${host}`,
      '  User postgres',
      `  Port ${port}`,
      `  IdentityFile ${files.privateKey}`,
      '  IdentitiesOnly yes',
      '  StrictHostKeyChecking yes',
      '  UpdateHostKeys no',
    ]),
    'Host *',
  ])
}
