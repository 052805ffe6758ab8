/**
 * A vote: a session on a voter that holds its one advisory lock. Whoever has it may freeze the voter, tell it to be the
 * primary, and put it back; nobody else. The server itself ends a session that is silent, so that a controller that was
 * paused has lost its vote before it wakes, and its statements are refused with it.
 *
 * Before PostgreSQL 14 only an open transaction can be ended for being idle, and `ALTER SYSTEM` is refused inside one:
 * there a second connection carries it, after a look at the first.
 */
import { escapeLiteral } from 'pg'
import { type Connection, type Credentials, openServer, type Query, type ServerAddress } from './connect.js'

/** Advisory locks are of one database: repmgr’s, on every voter. */
const LOCK = '1970, 7433'

export interface Vote {
  /** On the session that holds the lock. */
  query: Query
  /** A statement that PostgreSQL refuses inside a transaction: `ALTER SYSTEM`. */
  outside(statement: string): Promise<void>
  /** False once the vote is lost: the lock is somebody else’s to take. */
  readonly held: boolean
  /** Throws where the vote is lost. */
  ping(): Promise<void>
  release(): Promise<void>
}

export interface VoteOptions {
  connectMs: number
  /** A session that says nothing for so long is ended by the server. */
  idleMs: number
  signal: AbortSignal
}

/** The lock is held by another controller, or by another operation of this one. */
export class VoteTaken extends Error {
  constructor() {
    super('somebody else has its vote')
    this.name = 'VoteTaken'
  }
}

/** Throws `ServerUnreachable`, and `VoteTaken` where another session has it. */
export async function takeVote(
  address: ServerAddress,
  credentials: Credentials,
  { connectMs, idleMs, signal }: VoteOptions,
): Promise<Vote> {
  const options = { timeoutMs: connectMs, signal, name: 'understudy-vote' }
  const session = await openServer(address, credentials, options)
  let aside: Connection | undefined
  let ping: NodeJS.Timeout | undefined
  let held = false
  const release = async () => {
    held = false
    clearInterval(ping)
    await Promise.all([session.end(), aside?.end()])
  }
  try {
    const [server] = await session.query("SELECT current_setting('server_version_num')::int AS version")
    const limit = `${idleMs}ms`
    const old = Number(server?.version) < 140_000
    await session.query(`SET tcp_user_timeout = '${limit}'`)
    if (old) {
      aside = await openServer(address, credentials, options)
      await session.query(`SET idle_in_transaction_session_timeout = '${limit}'`)
      await session.query('BEGIN')
    } else {
      await session.query(`SET idle_session_timeout = '${limit}'`)
    }
    const [lock] = await session.query(`SELECT pg_try_advisory_lock(${LOCK}) AS got`)
    if (lock?.got !== true) throw new VoteTaken()
  } catch (error) {
    await release()
    throw error
  }
  held = true
  const look = async () => {
    if (!held || !session.open) throw new Error('the vote is lost')
    try {
      await session.query('SELECT 1')
    } catch (error) {
      held = false
      throw error
    }
  }
  ping = setInterval(() => void look().catch(() => clearInterval(ping)), idleMs / 5)
  return {
    query: session.query,
    async outside(statement) {
      await look()
      await (aside ?? session).query(statement)
    },
    get held() {
      return held && session.open
    },
    ping: look,
    release,
  }
}

const TRACE = 'understudy.vote'

/** Where a voter keeps its trace: a setting of a name of ours in postgresql.auto.conf, which a standby can be told too. */
export async function writeTrace(vote: Pick<Vote, 'outside'>, trace: object | undefined): Promise<void> {
  const value = trace === undefined ? '' : JSON.stringify(trace)
  // ALTER SYSTEM takes a name of nobody only where the session knows it.
  await vote.outside(`SET ${TRACE} = ''`)
  await vote.outside(
    trace === undefined ? `ALTER SYSTEM RESET ${TRACE}` : `ALTER SYSTEM SET ${TRACE} = ${escapeLiteral(value)}`,
  )
}

/** From the file and not from the server, which may not have read it yet. */
export async function readTraceText(query: Query): Promise<string | undefined> {
  const [row] = await query(
    `SELECT setting FROM pg_file_settings WHERE name = '${TRACE}' AND sourcefile LIKE '%/postgresql.auto.conf' ORDER BY seqno DESC LIMIT 1`,
  )
  return typeof row?.setting === 'string' && row.setting !== '' ? row.setting : undefined
}
