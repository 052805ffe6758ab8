import { NO_HOST_KEY, offeredKey } from './connect.js'
import { HostUnreachable } from './errors.js'
import { type HostKey, KEY_FAMILIES } from './host-key.js'

/**
 * Returns the keys that a host offers, without logging in: at most one each of ed25519, ecdsa and rsa, in this order.
 * What it returns is a claim and no proof: someone who holds the host's console must compare it before it is pinned.
 * Throws HostUnreachable.
 */
export async function scanHostKeys(host: string, port: number, options: { timeoutMs: number }): Promise<HostKey[]> {
  const keys: HostKey[] = []
  // One after the other: sshd counts connections that never log in, and drops them when many come at once.
  for (const family of KEY_FAMILIES) {
    const key = await offeredKey({ host, port }, family, options.timeoutMs)
    if (key) keys.push(key)
  }
  if (keys.length === 0) throw new HostUnreachable({ host, port }, NO_HOST_KEY)
  return keys
}
