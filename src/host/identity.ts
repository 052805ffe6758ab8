import ssh2 from 'ssh2'

/**
 * Makes an ed25519 key pair in OpenSSH's format. `publicKey` is a line for `authorized_keys`; throws a TypeError when
 * the comment would break that line.
 */
export function generateIdentity(comment: string): { privateKey: string; publicKey: string } {
  if (/[\r\n\0]/.test(comment)) throw new TypeError('the comment of a key must be one line')
  // ssh2 1.17 makes a malformed ed25519 pair about once in 150 (it cuts the key out of DER at a guessed place), so no
  // pair leaves here that has not been read back and has not signed something.
  for (;;) {
    const pair = ssh2.utils.generateKeyPairSync('ed25519', { comment })
    if (signs(pair.private, pair.public)) return { privateKey: pair.private, publicKey: pair.public }
  }
}

/** Returns the line for `authorized_keys` that goes with a private key. Throws a TypeError when it is none. */
export function publicKeyOf(privateKey: string): string {
  const key = parse(privateKey)
  if (!key?.isPrivateKey()) throw new TypeError('this is no private key without a passphrase in a format we can read')
  return `${key.type} ${key.getPublicSSH().toString('base64')} ${key.comment}`.trim()
}

function signs(privateKey: string, publicKey: string): boolean {
  try {
    const signature = parse(privateKey)?.sign('understudy')
    return Buffer.isBuffer(signature) && parse(publicKey)?.verify('understudy', signature) === true
  } catch {
    return false
  }
}

function parse(key: string) {
  const parsed = ssh2.utils.parseKey(key)
  if (parsed instanceof Error) return undefined
  return Array.isArray(parsed) ? parsed[0] : parsed
}
