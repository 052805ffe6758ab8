/** SCRAM verifiers, computed here so that no server ever sees, or logs, a password in the clear. */
import { createHash, createHmac, pbkdf2Sync, randomBytes } from 'node:crypto'

/** PostgreSQL's default, `scram_iterations`. */
const ITERATIONS = 4096

/**
 * What PostgreSQL keeps for `password`, ready for `ALTER ROLE … PASSWORD`. ASCII only: SASLprep is then the identity.
 * @see RFC 5803 and src/common/scram-common.c, scram_build_secret()
 */
export function scramVerifier(password: string, salt: Buffer = randomBytes(16)): string {
  if (!/^[\x21-\x7e]+$/.test(password)) throw new RangeError('only printable ASCII passwords are made here')
  const salted = pbkdf2Sync(password, salt, ITERATIONS, 32, 'sha256')
  const hmac = (text: string) => createHmac('sha256', salted).update(text).digest()
  const storedKey = createHash('sha256').update(hmac('Client Key')).digest('base64')
  return `SCRAM-SHA-256$${ITERATIONS}:${salt.toString('base64')}$${storedKey}:${hmac('Server Key').toString('base64')}`
}
