import { createHash, timingSafeEqual } from 'node:crypto'
import type { ServerHostKeyAlgorithm } from 'ssh2'

export interface HostKey {
  type: string
  /** `SHA256:` and unpadded base64, as `ssh-keygen -l` prints it. */
  fingerprint: string
}

export type KeyFamily = 'ed25519' | 'ecdsa' | 'rsa'

/** What we accept, in the order that we prefer. No ssh-rsa (SHA-1), no ssh-dss. */
export const ALGORITHMS: Readonly<Record<KeyFamily, readonly ServerHostKeyAlgorithm[]>> = {
  ed25519: ['ssh-ed25519'],
  ecdsa: ['ecdsa-sha2-nistp256', 'ecdsa-sha2-nistp384', 'ecdsa-sha2-nistp521'],
  rsa: ['rsa-sha2-512', 'rsa-sha2-256'],
}

export const KEY_FAMILIES: readonly KeyFamily[] = ['ed25519', 'ecdsa', 'rsa']

/** Reads a host key as it comes over the wire: a length, the name of its type, and the key. */
export function describeHostKey(key: Buffer): HostKey {
  return {
    type: key.subarray(4, 4 + key.readUInt32BE(0)).toString('latin1'),
    fingerprint: `SHA256:${digest(key).toString('base64').replace(/=+$/, '')}`,
  }
}

/** Compares in constant time. A pin that is no SHA-256 fingerprint matches nothing. */
export function matchesPin(key: Buffer, pin: string): boolean {
  const expected = Buffer.from(pin.replace(/^SHA256:/, ''), 'base64')
  return pin.startsWith('SHA256:') && expected.length === 32 && timingSafeEqual(digest(key), expected)
}

export function familyOf(type: string): KeyFamily {
  if (type === 'ssh-ed25519') return 'ed25519'
  return type.startsWith('ecdsa-') ? 'ecdsa' : 'rsa'
}

function digest(key: Buffer): Buffer {
  return createHash('sha256').update(key).digest()
}
