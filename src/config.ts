/** Every setting of the service, its default and its check. */
import { readFileSync } from 'node:fs'
import { parseEnv } from 'node:util'
import { envSchema } from 'env-schema'
import { type Static, Type } from 'typebox'
import { placeOf } from './cluster/access.js'
import type { FenceSettings } from './fence-hook.js'
import { redact } from './redact.js'
import { REDIS_URL_PATTERN } from './store/redis-url.js'

const Settings = Type.Object({
  UNDERSTUDY_ROLES: Type.String({
    default: 'api,worker',
    pattern: '^(api|worker)(,(api|worker))*$',
    description: 'What this process does: "api", "worker", or both, separated by a comma.',
  }),
  UNDERSTUDY_HOST: Type.String({ default: '127.0.0.1', minLength: 1, description: 'Address that the API listens on.' }),
  UNDERSTUDY_PORT: Type.Integer({
    default: 7433,
    minimum: 0,
    maximum: 65535,
    description: 'Port of the API; 0 picks a free one.',
  }),
  UNDERSTUDY_SOCKET: Type.Optional(
    Type.String({
      pattern: '^/',
      maxLength: 107,
      description: 'Listen on this Unix socket instead of an address and port.',
    }),
  ),
  UNDERSTUDY_STATE_DIR: Type.String({
    default: '/var/lib/understudy-service',
    pattern: '^/',
    description: 'Keys, the admin token, and the data of the embedded Redis. Created with mode 0700.',
  }),
  REDIS_URL: Type.Optional(
    Type.String({
      pattern: REDIS_URL_PATTERN,
      description:
        'redis://, rediss://, unix:/path, or redis+sentinel://host:port,host:port/name. Without it the service starts its own redis-server.',
    }),
  ),
  UNDERSTUDY_MASTER_KEY_FILE: Type.Optional(
    Type.String({
      pattern: '^/',
      description: 'File with 32 bytes in hex that secrets are encrypted with. Default: made in the state directory.',
    }),
  ),
  UNDERSTUDY_SSH_KEY_FILE: Type.Optional(
    Type.String({
      pattern: '^/',
      description: 'Private key to log in to hosts with. Default: an ed25519 key made in the state directory.',
    }),
  ),
  UNDERSTUDY_SSH_AGENT: Type.Optional(
    Type.String({ pattern: '^/', description: 'Socket of an SSH agent to log in with, instead of a key file.' }),
  ),
  UNDERSTUDY_CONTROLLER_ADDRESSES: Type.String({
    default: '',
    pattern: '^([A-Za-z0-9:][A-Za-z0-9.:/_-]*(,[A-Za-z0-9:][A-Za-z0-9.:/_-]*)*)?$',
    description:
      'Addresses, ranges or host names from which the servers let this service in, beside those that the hosts see.',
  }),
  UNDERSTUDY_LOG_LEVEL: Type.Enum(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'], {
    default: 'info',
    description: 'Logs are JSON lines on standard output.',
  }),
  UNDERSTUDY_WORKER_CONCURRENCY: Type.Integer({
    default: 8,
    minimum: 1,
    maximum: 100,
    description: 'Operations that one worker runs side by side; each cluster has at most one.',
  }),
  UNDERSTUDY_WORKER_LEASE_MS: Type.Integer({
    default: 10_000,
    minimum: 1000,
    maximum: 600_000,
    description:
      'A worker that was not heard of for this long loses its operation to another one, which takes about as long again.',
  }),
  UNDERSTUDY_FENCE_COMMAND: Type.Optional(
    Type.String({
      pattern: '^/',
      description:
        'Program that cuts a host off, called with the names of cluster and node and the host. Exit status 0: it is off.',
    }),
  ),
  UNDERSTUDY_FENCE_URL: Type.Optional(
    Type.String({
      pattern: '^https?://',
      description: 'The same by a POST, which has to answer with {"fenced": true, "receipt": "…"}.',
    }),
  ),
  UNDERSTUDY_FENCE_TOKEN_FILE: Type.Optional(
    Type.String({ pattern: '^/', description: 'File with a bearer token for UNDERSTUDY_FENCE_URL.' }),
  ),
  UNDERSTUDY_FENCE_TIMEOUT_MS: Type.Integer({
    default: 20_000,
    minimum: 100,
    maximum: 300_000,
    description: 'How long the fence hook may take.',
  }),
  UNDERSTUDY_BODY_LIMIT_BYTES: Type.Integer({
    default: 1_048_576,
    minimum: 1024,
    maximum: 104_857_600,
    description: 'Largest request body that is read.',
  }),
  UNDERSTUDY_SHUTDOWN_GRACE_MS: Type.Integer({
    default: 20_000,
    minimum: 0,
    maximum: 3_600_000,
    description:
      'How long running steps may take to reach their end when the service stops. Then they are left to the next worker.',
  }),
  UNDERSTUDY_OPERATION_RETENTION_DAYS: Type.Integer({
    default: 90,
    minimum: 1,
    maximum: 36_500,
    description: 'Days for which operations are kept after their end, with their steps and logs.',
  }),
  UNDERSTUDY_EVENT_RETENTION_DAYS: Type.Integer({
    default: 400,
    minimum: 1,
    maximum: 36_500,
    description: 'Days for which the events of the audit trail are kept.',
  }),
})
type Settings = Static<typeof Settings>

export const settingsSchema = Settings

export interface Config {
  roles: { api: boolean; worker: boolean }
  listen: { host: string; port: number } | { path: string }
  stateDirectory: string
  redisUrl: string | undefined
  masterKeyFile: string | undefined
  ssh: { keyFile: string | undefined; agent: string | undefined }
  /** From where processes of this service reach the servers, beside what the hosts see of their workers. */
  controllerAddresses: readonly string[]
  logLevel: Settings['UNDERSTUDY_LOG_LEVEL']
  workerConcurrency: number
  workerLeaseMs: number
  fence: FenceSettings
  bodyLimitBytes: number
  shutdownGraceMs: number
  retention: { operationDays: number; eventDays: number }
}

/** Thrown when a setting is wrong; the message names it and says what it may be. */
export class SettingWrong extends Error {
  constructor(problems: readonly string[]) {
    super(problems.join('\n'))
    this.name = 'SettingWrong'
  }
}

/**
 * Reads the environment, and under it the file that UNDERSTUDY_CONFIG names: `NAME=value` lines, the names of the
 * environment. A setting of ours that nobody knows is refused: a misspelt one must not be a silent default.
 */
export function readConfig(env: Readonly<Record<string, string | undefined>>): Config {
  const file = env.UNDERSTUDY_CONFIG
  const fromFile = file === undefined ? {} : readSettingsFile(file)
  const given: Record<string, string> = {}
  const problems: string[] = []
  for (const [source, values] of [
    [file ?? '', fromFile],
    ['the environment', env],
  ] as const) {
    for (const [name, value] of Object.entries(values)) {
      if (value === undefined) continue
      const known = Object.hasOwn(Settings.properties, name)
      if (known) given[name] = value
      else if (
        source === file ||
        (name.startsWith('UNDERSTUDY_') && name !== 'UNDERSTUDY_CONFIG' && !name.startsWith('UNDERSTUDY_LAB'))
      ) {
        problems.push(`${name}: no such setting (in ${source}). ${closest(name)}`)
      }
    }
  }
  if (problems.length > 0) throw new SettingWrong(problems)
  // One by one, so that the message can name the setting and say what it may be.
  const settings: Record<string, unknown> = {}
  for (const [name, schema] of Object.entries(Settings.properties)) {
    const text = given[name]
    const refuse = (problem: string) => {
      const { description } = schema as { description?: string }
      // A URL may hold a password.
      problems.push(`${name}: ${redact(JSON.stringify(text))} is not possible (${problem}). ${description ?? ''}`)
    }
    // Converted as JavaScript does, a space would be 0, and 0x50 would be 80.
    if ('type' in schema && schema.type === 'integer' && text !== undefined && !/^-?\d+$/.test(text)) {
      refuse('must be a whole number')
      continue
    }
    try {
      const single = envSchema<Record<string, unknown>>({
        schema: { type: 'object', properties: { [name]: schema } },
        data: text === undefined ? {} : { [name]: text },
        env: false,
      })
      settings[name] = single[name]
    } catch (error) {
      refuse((error as Error).message)
      continue
    }
    if (name === 'UNDERSTUDY_CONTROLLER_ADDRESSES') {
      const wrong = addressesIn(String(settings[name])).flatMap(address => {
        const place = placeOf(address)
        return place.kind === 'problem' ? [place.detail] : []
      })
      if (wrong.length > 0) refuse(wrong.join(' '))
    }
  }
  if (problems.length > 0) throw new SettingWrong(problems)
  const checked = settings as Settings
  const roles = checked.UNDERSTUDY_ROLES.split(',')
  return {
    roles: { api: roles.includes('api'), worker: roles.includes('worker') },
    listen:
      checked.UNDERSTUDY_SOCKET === undefined
        ? { host: checked.UNDERSTUDY_HOST, port: checked.UNDERSTUDY_PORT }
        : { path: checked.UNDERSTUDY_SOCKET },
    stateDirectory: checked.UNDERSTUDY_STATE_DIR.replace(/\/+$/, ''),
    redisUrl: checked.REDIS_URL,
    masterKeyFile: checked.UNDERSTUDY_MASTER_KEY_FILE,
    ssh: { keyFile: checked.UNDERSTUDY_SSH_KEY_FILE, agent: checked.UNDERSTUDY_SSH_AGENT },
    controllerAddresses: addressesIn(checked.UNDERSTUDY_CONTROLLER_ADDRESSES),
    logLevel: checked.UNDERSTUDY_LOG_LEVEL,
    workerConcurrency: checked.UNDERSTUDY_WORKER_CONCURRENCY,
    workerLeaseMs: checked.UNDERSTUDY_WORKER_LEASE_MS,
    fence: {
      command: checked.UNDERSTUDY_FENCE_COMMAND,
      url: checked.UNDERSTUDY_FENCE_URL,
      tokenFile: checked.UNDERSTUDY_FENCE_TOKEN_FILE,
      timeoutMs: checked.UNDERSTUDY_FENCE_TIMEOUT_MS,
    },
    bodyLimitBytes: checked.UNDERSTUDY_BODY_LIMIT_BYTES,
    shutdownGraceMs: checked.UNDERSTUDY_SHUTDOWN_GRACE_MS,
    retention: {
      operationDays: checked.UNDERSTUDY_OPERATION_RETENTION_DAYS,
      eventDays: checked.UNDERSTUDY_EVENT_RETENTION_DAYS,
    },
  }
}

const addressesIn = (list: string) => list.split(',').filter(address => address !== '')

function readSettingsFile(path: string): Record<string, string | undefined> {
  try {
    return { ...parseEnv(readFileSync(path, 'utf8')) }
  } catch (error) {
    throw new SettingWrong([`UNDERSTUDY_CONFIG: cannot read ${path}: ${(error as Error).message}`])
  }
}

/** The setting that was probably meant: a few letters away from what was written. */
function closest(name: string): string {
  const [near] = Object.keys(Settings.properties)
    .map(known => ({ known, distance: Math.min(distance(name, known), distance(name, `UNDERSTUDY_${known}`)) }))
    .sort((a, b) => a.distance - b.distance)
  return near === undefined || near.distance > 3 ? 'See docs/settings.md for all of them.' : `Was ${near.known} meant?`
}

/** Letters to insert, remove or replace (Levenshtein). */
function distance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, index) => index)
  for (const [at, letter] of [...from].entries()) {
    const next = [at + 1]
    for (let index = 1; index <= to.length; index += 1) {
      const replaced = (row[index - 1] ?? 0) + (letter === to[index - 1] ? 0 : 1)
      next.push(Math.min(replaced, (row[index] ?? 0) + 1, (next[index - 1] ?? 0) + 1))
    }
    row = next
  }
  return row[to.length] ?? 0
}
