/**
 * The service's own state in one file, and back. The file is lines of JSON: a head, the records as the store has them
 * (secrets stay encrypted), and an end with the number of lines and the SHA-256 of all that comes before it.
 *
 * Left out is what means nothing elsewhere or later: leases, the queue, who may queue again, requests with an
 * Idempotency-Key, what is being changed just now.
 */
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { link, open, rm } from 'node:fs/promises'
import type { Redis } from 'ioredis'
import { isFinal, type OperationFailure, type OperationState, type StepRecord } from '../operations/operation.js'
import { THE_SERVICE } from './event.js'
import { ALL_KEYS, keys } from './keys.js'
import { type PlainEvent, recordOperationEvent, recordPlainEvent } from './record-event.js'
import { SCHEMA_VERSION } from './schema.js'

const FORMAT = 'understudy-backup'
const FORMAT_VERSION = 1

interface Head {
  format: string
  version: number
  /** Of the records: `schema.ts`. */
  schema: number
  createdAt: string
}

/** Fields of an entry, name after name, and its id. */
type Entry = [id: string, fields: string[]]

type Line =
  | { kind: 'file'; name: string; content: string }
  | { kind: 'cluster' | 'token' | 'secret'; name: string; record: string }
  | { kind: 'epoch'; cluster: string; epoch: string }
  | { kind: 'operation'; id: string; fields: Record<string, string>; steps: Record<string, string> }
  | { kind: 'log'; operation: string; entries: Entry[] }
  | { kind: 'events'; entries: Entry[] }

interface End {
  kind: 'end'
  lines: number
  sha256: string
}

/** What a backup or a restore was about. */
export interface BackupSummary {
  createdAt: string
  clusters: number
  operations: number
  tokens: number
  secrets: number
  events: number
  /** Names of the key files in it. */
  files: string[]
}

/** A key file, beside the store. */
export interface KeyFile {
  name: string
  content: string
}

/** Thrown when a file is no backup, is damaged, or is of a version that this service does not know. */
export class BackupUnusable extends Error {
  constructor(path: string, problem: string) {
    super(`${path} cannot be restored: ${problem}`)
    this.name = 'BackupUnusable'
  }
}

/** Thrown when there is something already where a restore would go. Nothing was changed. */
export class StoreNotEmpty extends Error {
  constructor() {
    super('The store is not empty. Restore into an empty one, or say --replace: then everything that is in it is lost.')
    this.name = 'StoreNotEmpty'
  }
}

/** Thrown when a service is connected to the store that a restore would replace. Nothing was changed. */
export class StoreInUse extends Error {
  constructor(names: readonly string[]) {
    super(`A service uses this store now (${names.join(', ')}). Stop every process of it first.`)
    this.name = 'StoreInUse'
  }
}

const BATCH = 500
/**
 * Hosts refuse an epoch that is smaller than one that they have seen, and epochs are made from the clock. The ones that
 * were given after the backup are not known: this is how far the clock that made them may have been ahead.
 */
const EPOCH_MARGIN_MS = 3_600_000

/** Writes a file that only its owner may read. Throws where it exists. Reads the store as it is, also while it is used. */
export async function writeBackup(
  redis: Redis,
  path: string,
  options: { files: readonly KeyFile[]; now: Date },
): Promise<BackupSummary> {
  const head = { format: FORMAT, version: FORMAT_VERSION, schema: SCHEMA_VERSION, createdAt: options.now.toISOString() }
  const count = counter(head.createdAt)
  const partial = `${path}.${process.pid}.partial`
  const file = await open(partial, 'wx', 0o600)
  try {
    const hash = createHash('sha256')
    let lines = 0
    const put = async (line: Head | Line) => {
      const text = `${JSON.stringify(line)}\n`
      hash.update(text)
      lines += 1
      await file.write(text)
      count.add(line)
    }
    await put(head)
    for (const { name, content } of options.files) await put({ kind: 'file', name, content })
    for await (const line of linesOfStore(redis)) await put(line)
    await file.write(`${JSON.stringify({ kind: 'end', lines, sha256: hash.digest('hex') } satisfies End)}\n`)
    await file.sync()
    // Not `rename`, which would replace a backup that is there.
    await link(partial, path)
  } finally {
    await file.close()
    await rm(partial, { force: true })
  }
  return count.summary
}

/** Operations first: what they are about is then never older than they are. */
async function* linesOfStore(redis: Redis): AsyncGenerator<Line> {
  for (let start = '-'; ; ) {
    const ids = await redis.zrange(keys.operations, start, '+', 'BYLEX', 'LIMIT', 0, BATCH)
    for (const id of ids) {
      const both = await redis.multi().hgetall(keys.operation(id)).hgetall(keys.steps(id)).exec()
      const [fields = {}, steps = {}] = (both ?? []).map(([, value]) => value as Record<string, string>)
      if (fields.base === undefined) continue
      yield { kind: 'operation', id, fields, steps }
      for await (const entries of entriesOf(redis, keys.events(id))) yield { kind: 'log', operation: id, entries }
    }
    const last = ids.at(-1)
    if (last === undefined) break
    start = `(${last}`
  }
  for (const [kind, hash] of HASHES) {
    for (const [name, record] of Object.entries(await redis.hgetall(hash))) yield { kind, name, record }
  }
  const [before = '', after = ''] = keys.clusterEpoch('*').split('*')
  for (const key of await keysLike(redis, keys.clusterEpoch('*'))) {
    const epoch = await redis.get(key)
    if (epoch !== null) yield { kind: 'epoch', cluster: key.slice(before.length, key.length - after.length), epoch }
  }
  for await (const entries of entriesOf(redis, keys.trail)) yield { kind: 'events', entries }
}

const HASHES = [
  ['cluster', keys.clusters],
  ['token', keys.tokens],
  ['secret', keys.secrets],
] as const

async function* entriesOf(redis: Redis, stream: string): AsyncGenerator<Entry[]> {
  for (let start = '-'; ; ) {
    const entries = await redis.xrange(stream, start, '+', 'COUNT', BATCH)
    const last = entries.at(-1)
    if (!last) return
    yield entries
    start = `(${last[0]}`
  }
}

async function keysLike(redis: Redis, pattern: string): Promise<string[]> {
  const found = new Set<string>()
  let cursor = '0'
  do {
    const [next, batch] = await redis.scan(cursor, 'MATCH', pattern, 'COUNT', 1000)
    for (const key of batch) found.add(key)
    cursor = next
  } while (cursor !== '0')
  return [...found].sort()
}

/** Reads the whole file and says what is in it. Throws BackupUnusable; then nothing of it may be believed. */
export async function checkBackup(
  path: string,
): Promise<{ summary: BackupSummary; files: KeyFile[]; secret?: string }> {
  const hash = createHash('sha256')
  const count = counter('')
  const files: KeyFile[] = []
  let secret: string | undefined
  let lines = 0
  let end: End | undefined
  for await (const text of linesOfFile(path)) {
    if (end) throw new BackupUnusable(path, 'something comes after its end.')
    const line = parse(path, text)
    if ('kind' in line && line.kind === 'end') {
      end = line
      continue
    }
    if (lines === 0) checkHead(path, line as Head)
    hash.update(`${text}\n`)
    lines += 1
    count.add(line)
    if ('kind' in line && line.kind === 'file') files.push({ name: line.name, content: line.content })
    if ('kind' in line && line.kind === 'secret') secret ??= line.record
  }
  if (!end) throw new BackupUnusable(path, 'it is not whole: its end is missing.')
  if (end.lines !== lines || end.sha256 !== hash.digest('hex'))
    throw new BackupUnusable(path, 'it was changed or damaged: its checksum is another one.')
  return { summary: count.summary, files, ...(secret === undefined ? {} : { secret }) }
}

function checkHead(path: string, { format, version, schema }: Partial<Head>): void {
  if (format !== FORMAT) throw new BackupUnusable(path, 'it is no backup of this service.')
  if (version !== FORMAT_VERSION || typeof schema !== 'number' || schema > SCHEMA_VERSION)
    throw new BackupUnusable(path, 'a newer version of the service has made it. Restore it with that version.')
}

function parse(path: string, text: string): Head | Line | End {
  try {
    return JSON.parse(text) as Head | Line | End
  } catch {
    throw new BackupUnusable(path, 'it is no backup, or it is damaged: a line cannot be read.')
  }
}

/** Node's own reader of lines would also end them at U+2028. */
async function* linesOfFile(path: string): AsyncGenerator<string> {
  let rest = ''
  for await (const chunk of createReadStream(path, { encoding: 'utf8' })) {
    const parts = `${rest}${chunk}`.split('\n')
    rest = parts.pop() ?? ''
    yield* parts
  }
  if (rest !== '') yield rest
}

/**
 * Puts a backup into a store. Until it has ended, no service starts on it. Operations that had not ended are failed, and
 * say why: nobody knows what became of them since. Throws BackupUnusable, StoreNotEmpty and StoreInUse before anything is
 * changed. `prepare` is called when nothing can refuse any more.
 */
export async function restoreBackup(
  redis: Redis,
  path: string,
  { replace, now, prepare }: { replace: boolean; now: Date; prepare?: () => Promise<void> },
): Promise<BackupSummary & { unended: number }> {
  const { summary } = await checkBackup(path)
  await refuseUsed(redis)
  const present = await keysLike(redis, ALL_KEYS)
  if (present.length > 0 && !replace) throw new StoreNotEmpty()
  await prepare?.()
  await redis.set(keys.restoring, '1')
  const others = present.filter(key => key !== keys.restoring)
  for (let at = 0; at < others.length; at += BATCH) await redis.del(...others.slice(at, at + BATCH))
  const [seconds = '0'] = (await redis.time()) as unknown as [string, string]
  const leastEpoch = Math.max(Number(seconds) * 1000, now.getTime()) + EPOCH_MARGIN_MS
  const unended: string[] = []
  for await (const text of linesOfFile(path)) {
    const line = parse(path, text)
    if ('format' in line) await redis.set(keys.schema, String(line.schema))
    else if (line.kind === 'epoch')
      await redis.set(keys.clusterEpoch(line.cluster), String(Math.max(Number(line.epoch), leastEpoch)))
    else if (line.kind === 'cluster') await redis.hset(keys.clusters, line.name, line.record)
    else if (line.kind === 'token') await redis.hset(keys.tokens, line.name, line.record)
    else if (line.kind === 'secret') await redis.hset(keys.secrets, line.name, line.record)
    else if (line.kind === 'log') await addEntries(redis, keys.events(line.operation), line.entries)
    else if (line.kind === 'events') await addEntries(redis, keys.trail, line.entries)
    else if (line.kind === 'operation') {
      await putOperation(redis, line)
      if (!isFinal(line.fields.state as OperationState)) unended.push(line.id)
    }
  }
  for (const id of unended) await failUnended(redis, id, summary.createdAt, now)
  const detail = `The service’s own state was restored from a backup of ${summary.createdAt}. ${unended.length} operations had not ended then.`
  const event = { who: THE_SERVICE, detail } satisfies PlainEvent
  await redis.eval(recordPlainEvent('store-restored', 'ARGV[1]'), 0, JSON.stringify(event))
  await redis.del(keys.restoring)
  return { ...summary, unended: unended.length }
}

/** Best effort: a managed Redis may not say who is connected. */
async function refuseUsed(redis: Redis): Promise<void> {
  const list = await redis.client('LIST').then(String, () => '')
  const own = String(await redis.client('ID').catch(() => ''))
  const names = list.split('\n').flatMap(line => {
    const client = Object.fromEntries(line.split(' ').map(pair => pair.split(/=(.*)/s).slice(0, 2)))
    return client.name?.startsWith('understudy-') && client.id !== own ? [`${client.name} from ${client.addr}`] : []
  })
  if (names.length > 0) throw new StoreInUse(names)
}

async function addEntries(redis: Redis, stream: string, entries: readonly Entry[]): Promise<void> {
  const pipeline = redis.pipeline()
  for (const [id, fields] of entries) pipeline.xadd(stream, id, ...fields)
  for (const [error] of (await pipeline.exec()) ?? []) if (error) throw error
}

async function putOperation(
  redis: Redis,
  { id, fields, steps }: { id: string; fields: Record<string, string>; steps: Record<string, string> },
): Promise<void> {
  const { cluster } = JSON.parse(fields.base ?? '{}') as { cluster: string }
  await redis.hset(keys.operation(id), fields)
  if (Object.keys(steps).length > 0) await redis.hset(keys.steps(id), steps)
  await redis.zadd(keys.operations, 0, id)
  await redis.zadd(keys.operationsOf(cluster), 0, id)
}

/** Which version of the cluster's record it had come to by then, nobody knows: none is compared when it is retried. */
const FAIL = `
redis.call('hset', KEYS[1], 'state', 'failed', 'endedAt', ARGV[1], 'error', ARGV[2], 'epoch', '0')
redis.call('hdel', KEYS[1], 'clusterVersion')
redis.call('xadd', KEYS[2], '*', 'type', 'state', 'data', ARGV[3])
${recordOperationEvent("'operation-failed'")}`

async function failUnended(redis: Redis, id: string, createdAt: string, now: Date): Promise<void> {
  const error = lostSince(createdAt)
  const steps = await redis.hgetall(keys.steps(id))
  for (const [name, text] of Object.entries(steps)) {
    const step = JSON.parse(text) as StepRecord
    if (step.state !== 'running' && step.state !== 'pending') continue
    const left: StepRecord =
      step.state === 'pending'
        ? { ...step, state: 'not_reached' }
        : { ...step, state: 'failed', note: 'It was running when the backup was made.', endedAt: now.toISOString() }
    await redis.hset(keys.steps(id), name, JSON.stringify(left))
  }
  const state = JSON.stringify({ state: 'failed', error })
  await redis.eval(FAIL, 2, keys.operation(id), keys.events(id), now.toISOString(), JSON.stringify(error), state)
}

const lostSince = (createdAt: string): OperationFailure => ({
  code: 'store-restored',
  detail: `It had not ended when the backup was made from which the service’s state was restored (${createdAt}).`,
  outcome: 'unknown',
  remedy: 'Look at the cluster’s status. Retry it if it is still wanted: each step looks at the hosts first.',
})

function counter(createdAt: string) {
  const summary: BackupSummary = {
    ...{ createdAt, clusters: 0, operations: 0, tokens: 0, secrets: 0, events: 0, files: [] as string[] },
  }
  return {
    summary,
    add(line: Head | Line) {
      if ('format' in line) summary.createdAt = line.createdAt
      else if (line.kind === 'cluster') summary.clusters += 1
      else if (line.kind === 'operation') summary.operations += 1
      else if (line.kind === 'token') summary.tokens += 1
      else if (line.kind === 'secret') summary.secrets += 1
      else if (line.kind === 'events') summary.events += line.entries.length
      else if (line.kind === 'file') summary.files.push(line.name)
    },
  }
}
