/** `backup` and `restore` at the command line: the store, and the key files beside it. */
import { createHash } from 'node:crypto'
import { readFile, writeFile } from 'node:fs/promises'
import { parseArgs } from 'node:util'
import type { Redis } from 'ioredis'
import type { Config } from './config.js'
import { openStateDirectory } from './state-directory.js'
import { type BackupSummary, checkBackup, type KeyFile, restoreBackup, writeBackup } from './store/backup.js'
import { startEmbeddedRedis } from './store/embedded-redis.js'
import { migrate } from './store/migrate.js'
import { StateDirectoryInUse, takeProcessLock } from './store/process-lock.js'
import { checkRedis, connectRedis, untilReady } from './store/redis.js'

export const USAGE = `Usage:
  main.js                                      start the service
  main.js backup FILE --with-keys              write its state to FILE, with the key files
  main.js backup FILE --without-keys           without them: they are kept elsewhere
  main.js restore FILE [--replace]             put it back, into an empty store or in place of what is there

Settings are those of the service: its environment, or the file that UNDERSTUDY_CONFIG names.
`

/** Thrown when the arguments are not as USAGE has them. */
export class WrongArguments extends Error {
  constructor(problem: string) {
    super(`${problem}\n\n${USAGE}`)
    this.name = 'WrongArguments'
  }
}

/** Thrown when a key file and a backup do not belong together. Nothing was changed. */
export class KeyMismatch extends Error {
  constructor(problem: string) {
    super(problem)
    this.name = 'KeyMismatch'
  }
}

const READY_TIMEOUT_MS = 10_000

export type StateCommand =
  | { command: 'backup'; file: string; withKeys: boolean }
  | { command: 'restore'; file: string; replace: boolean }

export function readArguments(args: readonly string[]): StateCommand {
  const [command, ...rest] = args
  if (command !== 'backup' && command !== 'restore') throw new WrongArguments(`There is no command ${command}.`)
  const flags = command === 'backup' ? ['with-keys', 'without-keys'] : ['replace']
  let parsed: { values: Record<string, unknown>; positionals: string[] }
  try {
    const options = Object.fromEntries(flags.map(flag => [flag, { type: 'boolean' as const }]))
    parsed = parseArgs({ args: rest, options, allowPositionals: true })
  } catch (error) {
    throw new WrongArguments((error as Error).message)
  }
  const { values, positionals } = parsed
  const [file] = positionals
  if (file === undefined || positionals.length > 1) throw new WrongArguments(`${command} takes one file.`)
  if (command === 'restore') return { command, file, replace: values.replace === true }
  if ((values['with-keys'] === true) === (values['without-keys'] === true))
    throw new WrongArguments(
      'Say --with-keys or --without-keys. With its keys the file alone opens every secret and every host: keep it as safe as those. ' +
        'Without them it is worth nothing when the state directory is lost.',
    )
  return { command, file, withKeys: values['with-keys'] === true }
}

/** Returns what to tell whoever called. */
export async function runStateCommand(command: StateCommand, config: Config): Promise<string> {
  await openStateDirectory(config.stateDirectory)
  if (command.command === 'backup') {
    const files = command.withKeys ? await readKeyFiles(config) : []
    return withRedis(config, { shared: true }, async redis => {
      await migrate(redis)
      const summary = await writeBackup(redis, command.file, { files, now: new Date() })
      return `${command.file} (0600): ${told(summary)}\n`
    })
  }
  const { files, secret } = await checkBackup(command.file)
  const missing = await keysToWrite(config, command.file, files, secret)
  return withRedis(config, { shared: false }, async redis => {
    await checkRedis(redis)
    // Before the store: a service that finds secrets and no key would make another one.
    const prepare = async () => {
      for (const { path, content } of missing) await writeFile(path, content, { mode: 0o600, flag: 'wx', flush: true })
    }
    const summary = await restoreBackup(redis, command.file, { replace: command.replace, now: new Date(), prepare })
    return [
      `Restored from a backup of ${summary.createdAt}: ${told(summary)}`,
      ...missing.map(({ path }) => `Wrote ${path}.`),
      ...(summary.unended > 0
        ? [
            `${counted({ operation: summary.unended })} had not ended, and failed with that. GET /v1/operations has them.`,
          ]
        : []),
      'Tokens are those of the backup. Start the service, and look at the status of each cluster.',
      '',
    ].join('\n')
  })
}

const told = ({ clusters, operations, tokens, secrets, events, files }: BackupSummary) =>
  `${counted({ cluster: clusters, operation: operations, event: events, token: tokens, secret: secrets })}, ` +
  `${files.length === 0 ? 'no key files' : files.join(' and ')}.`

const counted = (things: Record<string, number>) =>
  Object.entries(things)
    .map(([thing, count]) => `${count} ${thing}${count === 1 ? '' : 's'}`)
    .join(', ')

/** The Redis of the service: its own, started for this where the service does not run, or the one that it was given. */
async function withRedis<T>(
  config: Config,
  { shared }: { shared: boolean },
  use: (redis: Redis) => Promise<T>,
): Promise<T> {
  const closers: (() => unknown)[] = []
  try {
    let url = config.redisUrl
    if (url === undefined) {
      try {
        closers.push(await takeProcessLock(config.stateDirectory))
        const embedded = await startEmbeddedRedis(config.stateDirectory)
        closers.push(embedded.stop)
        url = embedded.url
      } catch (error) {
        if (!shared || !(error instanceof StateDirectoryInUse)) throw error
        url = `unix:${config.stateDirectory}/redis/redis.sock`
      }
    }
    const redis = connectRedis(url, { purpose: 'operations' })
    closers.push(() => redis.disconnect())
    await untilReady(redis, READY_TIMEOUT_MS)
    return await use(redis)
  } finally {
    for (const close of closers.reverse()) await close()
  }
}

const MASTER_KEY = 'master.key'
const SSH_KEY = 'ssh-key'

/** Where the service has them, or would have them. An SSH agent keeps its key to itself. */
function keyPaths({ stateDirectory, masterKeyFile, ssh }: Config): { name: string; path: string; given: boolean }[] {
  return [
    { name: MASTER_KEY, path: masterKeyFile ?? `${stateDirectory}/${MASTER_KEY}`, given: masterKeyFile !== undefined },
    ...(ssh.agent === undefined
      ? [{ name: SSH_KEY, path: ssh.keyFile ?? `${stateDirectory}/${SSH_KEY}`, given: ssh.keyFile !== undefined }]
      : []),
  ]
}

async function readKeyFiles(config: Config): Promise<KeyFile[]> {
  const files: KeyFile[] = []
  for (const { name, path } of keyPaths(config)) files.push({ name, content: await readFile(path, 'utf8') })
  return files
}

const readIfThere = (path: string) =>
  readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined
    throw error
  })

/** The key files of the backup that are not here yet. One that is here is never overwritten. */
async function keysToWrite(
  config: Config,
  backup: string,
  files: readonly KeyFile[],
  secret: string | undefined,
): Promise<{ path: string; content: string }[]> {
  const missing: { path: string; content: string }[] = []
  for (const { name, path, given } of keyPaths(config)) {
    const here = await readIfThere(path)
    const kept = files.find(file => file.name === name)?.content
    if (kept !== undefined && here !== undefined && here.trim() !== kept.trim())
      throw new KeyMismatch(
        `${path} is another key than the ${name} in ${backup}. Move it away first, if nothing needs it.`,
      )
    if (here === undefined && kept !== undefined) {
      if (given)
        throw new KeyMismatch(
          `${path} is not there. Take the setting that names it away: then the key goes into the state directory.`,
        )
      missing.push({ path, content: kept })
    }
    if (name !== MASTER_KEY || secret === undefined) continue
    const key = here ?? kept
    if (key === undefined)
      throw new KeyMismatch(
        `${backup} has secrets and not the key that opens them. Put the ${MASTER_KEY} of the service that it was made of at ${path} first.`,
      )
    // A secret names the key that it was encrypted with: `secrets.ts`.
    const id = createHash('sha256').update(Buffer.from(key.trim(), 'hex')).digest('hex').slice(0, 8)
    if (secret.split('.')[1] !== id)
      throw new KeyMismatch(
        `The secrets in ${backup} were encrypted with another key than ${path}. Put that one there first.`,
      )
  }
  return missing
}
