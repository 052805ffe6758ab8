/**
 * The network of a lab: namespaces and nothing else.
 *
 * A parent namespace holds a bridge with the gateway's address, each host has a namespace with one end of a veth whose other end is a
 * port of the bridge. The root namespace holds no interface, address or rule of it, so that any number of labs can use 192.0.2.0/24
 * side by side, and none of them reaches the world.
 */
import { existsSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { command } from './command.js'
import { namespaceFile, namespaceOfHost, namespaceOfLab } from './paths.js'

/** The address of the parent namespace: where the hosts see the service. 192.0.2.0/24 is set aside for documentation (RFC 5737). */
export const gateway = '192.0.2.1'

/** The address of the n-th host, from 0. */
export const addressOfHost = (index: number): string => `192.0.2.${11 + index}`

/** How many hosts fit into a lab. */
export const maximumHosts = 200

const ip = (...argv: string[]) => command(['ip', ...argv])
const lastOctet = (address: string) => Number(address.split('.').at(-1))

/** The end of a host's cable at the bridge. */
const port = (address: string) => `port${lastOctet(address)}`

/** Makes the parent namespace with its bridge. */
export async function makeLabNetwork(lab: string): Promise<void> {
  const parent = namespaceOfLab(lab)
  await ip('netns', 'add', parent)
  await ip('-n', parent, 'link', 'set', 'lo', 'up')
  // No forwarding delay: a spanning tree would keep each new port silent for 30 s.
  await ip('-n', parent, 'link', 'add', 'lab0', 'type', 'bridge', 'forward_delay', '0')
  await ip('-n', parent, 'address', 'add', `${gateway}/24`, 'dev', 'lab0')
  await ip('-n', parent, 'link', 'set', 'lab0', 'up')
}

/** Makes a host's namespace and connects it. */
export async function connectHost(lab: string, host: string, address: string): Promise<void> {
  const [parent, own] = [namespaceOfLab(lab), namespaceOfHost(lab, host)]
  // A fixed hardware address: after a power cut the others still know the right one.
  const hardware = `02:00:c0:00:02:${lastOctet(address).toString(16).padStart(2, '0')}`
  await ip('netns', 'add', own)
  const peer = ['peer', 'name', 'eth0', 'address', hardware, 'netns', own]
  await ip('-n', parent, 'link', 'add', port(address), 'type', 'veth', ...peer)
  await ip('-n', parent, 'link', 'set', port(address), 'master', 'lab0', 'up')
  await ip('-n', own, 'link', 'set', 'lo', 'up')
  await ip('-n', own, 'address', 'add', `${address}/24`, 'dev', 'eth0')
  await ip('-n', own, 'link', 'set', 'eth0', 'up')
}

/** Removes a host's namespace, and the cable with it. */
export async function disconnectHost(lab: string, host: string): Promise<void> {
  await removeNamespace(namespaceOfHost(lab, host), 'eth0')
}

/** Pulls a host's cable at the bridge, or puts it back: the host keeps its address and hears nothing. */
export async function setLink(lab: string, address: string, state: 'up' | 'down'): Promise<void> {
  await ip('-n', namespaceOfLab(lab), 'link', 'set', port(address), state)
}

/** Removes every namespace of a lab, known or left over. */
export async function removeLabNetwork(lab: string): Promise<void> {
  const parent = namespaceOfLab(lab)
  for (const name of existsSync('/run/netns') ? await readdir('/run/netns') : []) {
    if (name.startsWith(`${parent}.`)) await removeNamespace(name, 'eth0')
  }
  await removeNamespace(parent, 'lab0')
}

/** A program may still hold a namespace whose name is gone: take the interface away, so that nothing is connected any more. */
async function removeNamespace(name: string, device: string): Promise<void> {
  if (!existsSync(namespaceFile(name))) return
  await command(['ip', '-n', name, 'link', 'delete', device], { reject: false })
  await command(['ip', 'netns', 'delete', name], { reject: false })
}
