/**
 * The client of a drill: writes one row after the other to whichever node accepts writes, as a client with a connection
 * string of several hosts does, and remembers which of them were acknowledged, and when.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { type DrillReport, longestGap } from '../operations/drill-report.js'
import { type Connection, openServer, type Query } from './connect.js'

export interface DrillTarget {
  addresses: readonly Parameters<typeof openServer>[0][]
  credentials: Parameters<typeof openServer>[1]
  /** Name of the table, in the schema public of the database of the credentials. It is made where it is missing. */
  table: string
}

/**
 * With a code the server has refused it. Without one nobody knows whether the row is there; nor where the server cut the
 * session off (class 57P): it may have waited for a standby to confirm what it had committed itself.
 */
const isUncertain = (error: unknown) => /^(57P|$)/.test((error as { code?: string }).code ?? '')

const EVERY_MS = 10
/** For one statement, and for one connection: a node that hangs is given up for the next. */
const LIMIT_MS = 1000

export class DrillWriter {
  private readonly acknowledged: { id: number; at: number }[] = []
  private uncertain = 0
  private connection: Connection | undefined
  private readonly stopped = new AbortController()
  private readonly loop: Promise<void>

  /** `whole`: no writer before this one wrote for the same drill. */
  constructor(
    private readonly target: DrillTarget,
    private readonly whole: boolean,
    private readonly firstId = 1,
  ) {
    this.loop = this.write()
  }

  /** So many rows are acknowledged. */
  get rows(): number {
    return this.acknowledged.length
  }

  /** Ends it. Idempotent. */
  async stop(): Promise<void> {
    this.stopped.abort()
    await this.loop
    await this.connection?.end()
    this.connection = undefined
  }

  /** What it has seen, once it is stopped. `query`: of the primary that there is now. */
  async report(query: Query): Promise<DrillReport> {
    const rows = await query(`SELECT id::text AS id FROM public."${this.target.table}"`)
    const there = new Set(rows.map(({ id }) => Number(id)))
    return {
      writesRefusedMs: longestGap(this.acknowledged.map(({ at }) => at)),
      acknowledged: this.acknowledged.length,
      lost: this.acknowledged.filter(({ id }) => !there.has(id)).length,
      uncertain: this.uncertain,
      complete: this.whole,
    }
  }

  private async write(): Promise<void> {
    const { signal } = this.stopped
    for (let id = this.firstId; !signal.aborted; id += 1) {
      this.connection ??= await this.connect()
      if (!this.connection) {
        await sleep(EVERY_MS)
        continue
      }
      try {
        await this.connection.query(`INSERT INTO public."${this.target.table}" VALUES ($1)`, [id])
        this.acknowledged.push({ id, at: performance.now() })
      } catch (error) {
        if (isUncertain(error)) this.uncertain += 1
        await this.connection.end()
        this.connection = undefined
      }
      await sleep(EVERY_MS)
    }
  }

  /** All of them at once: the first that accepts writes is taken. */
  private async connect(): Promise<Connection | undefined> {
    const { addresses, credentials, table } = this.target
    const tries = addresses.map(async address => {
      const connection = await openServer(address, credentials, { timeoutMs: LIMIT_MS, name: 'understudy drill' })
      try {
        const [row] = await connection.query(
          "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on' AS refuses",
        )
        if (row?.refuses === false) {
          // A primary that was promoted may never have heard of it.
          await connection.query(`CREATE TABLE IF NOT EXISTS public."${table}" (id bigint PRIMARY KEY)`)
          return connection
        }
      } catch {
        // Told by the next line: it is not one that accepts writes.
      }
      await connection.end()
      throw new Error('it accepts no writes')
    })
    const first = await Promise.any(tries).catch(() => undefined)
    for (const one of tries) {
      one.then(
        connection => (connection === first ? undefined : connection.end()),
        () => undefined,
      )
    }
    return first
  }
}
