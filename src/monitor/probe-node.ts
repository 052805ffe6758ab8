/** Asks one server: PostgreSQL of itself, and repmgr's tables, over one connection and within one time limit. */
import { archiveOf } from '../cluster/archive.js'
import type { Cluster, ClusterNode } from '../cluster/model.js'
import type { MetadataReading, Observation, Probe, ProbeFailure } from '../cluster/observation.js'
import type { Trust } from '../cluster/tls.js'
import { archiveStateDirectory } from '../postgres/archive.js'
import { type Query, ServerUnreachable, withServer } from '../postgres/connect.js'
import { observe } from '../postgres/observe.js'
import { readMetadata } from '../repmgr/metadata.js'

/** For a node's whole answer: connecting, perhaps a second time with another password or by TLS, and every statement. */
const ANSWER_MS = 2500
/** For repmgr's tables within that: whoever has locked them does not take the rest of the answer with it. */
const METADATA_MS = 1000

export interface Access {
  /** The first that is taken. In the middle of a rotation, or after one that failed, a server may have the next one already. */
  passwords: readonly string[]
  trust: Trust
}

export async function probeNode(
  cluster: Cluster,
  node: ClusterNode,
  access: Access,
  { signal, answerMs = ANSWER_MS }: { signal: AbortSignal; answerMs?: number },
): Promise<Probe> {
  const deadline = AbortSignal.timeout(answerMs)
  const limit = AbortSignal.any([signal, deadline])
  // Before the first bootstrap nobody has a password, and no server knows us.
  let failure: ProbeFailure = { reason: 'not_built', detail: 'not built yet' }
  for (const password of access.passwords) {
    let observation: Observation | undefined
    let metadata: MetadataReading | undefined
    try {
      await withServer(
        { host: node.host, port: cluster.port, trust: access.trust },
        { user: 'repmgr', database: 'repmgr', password },
        { timeoutMs: answerMs, signal: limit },
        async query => {
          observation = await observe(query, archiveStateOf(cluster))
          metadata = await readingOf(query, error => failureOf(error, deadline, answerMs).detail)
        },
      )
    } catch (error) {
      failure = failureOf(error, deadline, answerMs)
    }
    const at = new Date().toISOString()
    // What was heard before the time was over is worth telling.
    if (observation) {
      return { node: node.name, at, observation, metadata: metadata ?? { failure: failure.detail } }
    }
    if (failure.reason !== 'authentication') break
  }
  return { node: node.name, at: new Date().toISOString(), failure }
}

const archiveStateOf = (cluster: Cluster) => {
  const archive = archiveOf(cluster)
  return archive.mode === 'ship' ? archiveStateDirectory(archive) : undefined
}

async function readingOf(query: Query, why: (error: unknown) => string): Promise<MetadataReading> {
  await query(`SET statement_timeout = ${METADATA_MS}`)
  try {
    const rows = await readMetadata(query)
    return rows ? { rows } : { failure: 'repmgr is not there.' }
  } catch (error) {
    return { failure: why(error) }
  }
}

function failureOf(error: unknown, deadline: AbortSignal, answerMs: number): ProbeFailure {
  if (deadline.aborted) return { reason: 'timed_out', detail: `No whole answer within ${answerMs} ms.` }
  const detail = error instanceof Error ? error.message : String(error)
  if (error instanceof ServerUnreachable) return { reason: error.reason, detail }
  const { code } = error as { code?: string }
  // query_canceled: by statement_timeout.
  return { reason: code === '57014' || /timeout/i.test(detail) ? 'timed_out' : 'other', detail }
}
