/** What the service keeps in its state directory: made at first start, read at the next, for nobody else's eyes. */
import { randomBytes } from 'node:crypto'
import { chmod, link, mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import type { Identity } from './host/host.js'
import { generateIdentity, publicKeyOf } from './host/identity.js'
import { looksLikeToken, makeToken, type TokenStore } from './store/tokens.js'

/** Thrown when a file that the service lives by cannot be used. */
export class StateFileUnusable extends Error {
  constructor(path: string, problem: string, cause?: unknown) {
    super(`${path}: ${problem}`, { cause })
    this.name = 'StateFileUnusable'
  }
}

export async function openStateDirectory(path: string): Promise<void> {
  try {
    await mkdir(path, { recursive: true, mode: 0o700 })
    await chmod(path, 0o700)
  } catch (error) {
    throw new StateFileUnusable(
      path,
      'the state directory cannot be made. Set UNDERSTUDY_STATE_DIR to one that this user may write.',
      error,
    )
  }
}

/** 32 bytes in hex. */
export async function readMasterKey(stateDirectory: string, file: string | undefined): Promise<Buffer> {
  const path = file ?? `${stateDirectory}/master.key`
  const text =
    file === undefined
      ? await readOrMake(path, () => `${randomBytes(32).toString('hex')}\n`)
      : await read(path, 'UNDERSTUDY_MASTER_KEY_FILE')
  if (!/^[0-9a-f]{64}\s*$/i.test(text))
    throw new StateFileUnusable(path, 'it must hold 64 hexadecimal digits: openssl rand -hex 32')
  return Buffer.from(text.trim(), 'hex')
}

/** What the service logs in to hosts with, and the public half for `authorized_keys`. */
export async function readIdentity(
  stateDirectory: string,
  ssh: { keyFile: string | undefined; agent: string | undefined },
): Promise<{ identity: Identity; publicKey: string | undefined }> {
  if (ssh.agent !== undefined) return { identity: { agent: ssh.agent }, publicKey: undefined }
  const path = ssh.keyFile ?? `${stateDirectory}/ssh-key`
  const privateKey =
    ssh.keyFile === undefined
      ? await readOrMake(path, () => generateIdentity('understudy').privateKey)
      : await read(path, 'UNDERSTUDY_SSH_KEY_FILE')
  try {
    return { identity: { privateKey }, publicKey: publicKeyOf(privateKey) }
  } catch (error) {
    throw new StateFileUnusable(
      path,
      'it is no SSH private key without a passphrase. Use an agent (UNDERSTUDY_SSH_AGENT) for one with.',
      error,
    )
  }
}

/**
 * The first token. Made once; a store that was emptied gets the same one again from the file, so that who had it still
 * comes in. Returns the token only when it is new.
 */
export async function ensureAdminToken(
  stateDirectory: string,
  tokens: TokenStore,
): Promise<{ file: string; created: string | undefined }> {
  const file = `${stateDirectory}/admin-token`
  if (!(await tokens.isEmpty())) return { file, created: undefined }
  const made = makeToken()
  let token = (await readOrMake(file, () => `${made}\n`)).trim()
  if (!looksLikeToken(token)) {
    await rm(file, { force: true })
    token = (await readOrMake(file, () => `${made}\n`)).trim()
  }
  // The file first: a token that only the store knew, after a crash in between, would let nobody in.
  await tokens.adopt('admin', token)
  return { file, created: token === made ? made : undefined }
}

async function read(path: string, setting: string): Promise<string> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    throw new StateFileUnusable(path, `cannot be read (${setting}): ${(error as Error).message}`, error)
  }
}

/** Two processes that start at once end with one file: `link` does not replace. */
async function readOrMake(path: string, make: () => string): Promise<string> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw new StateFileUnusable(path, 'cannot be read', error)
  }
  // Not the process id: two containers that share the directory both have 1.
  const temporary = `${path}.${randomBytes(8).toString('hex')}`
  try {
    await writeFile(temporary, make(), { mode: 0o600, flush: true })
    await link(temporary, path).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error
    })
  } finally {
    await rm(temporary, { force: true })
  }
  return readFile(path, 'utf8')
}
