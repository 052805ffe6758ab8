/**
 * A client of a cluster, as an application is one: commits a row every few milliseconds on whichever of several hosts
 * accepts writes (libpq's `target_session_attrs=read-write`), and notes each one that was acknowledged. Beside it, each
 * host is asked every 50 ms whether it accepts writes. Ends at SIGTERM, with one line of JSON.
 *
 *   WRITER_PASSWORD=… node dist/lab/writer.js 192.0.2.11,192.0.2.12 [intervalMs]
 *
 * Needs a table `written (id bigint primary key)`, and the role `app`.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import pg from 'pg'

/** Times are in milliseconds since the epoch. */
export interface WriterReport {
  /** Ids of the rows that the server has acknowledged. */
  acknowledged: number[]
  /** Longer than 50 ms between two acknowledgements. */
  gaps: { from: number; ms: number }[]
  /** Of each host: spans in which it said that it accepts writes, from the first answer to the last question. */
  writable: Record<string, { from: number; to: number }[]>
}

const CONNECT_MS = 250
const PROBE_MS = 50

function clientFor(host: string, timeoutMs: number): pg.Client {
  const client = new pg.Client({
    host,
    port: 5432,
    user: 'app',
    database: 'postgres',
    password: process.env.WRITER_PASSWORD ?? '',
    connectionTimeoutMillis: timeoutMs,
    query_timeout: 5000,
  })
  client.on('error', () => undefined)
  return client
}

const drop = (client: pg.Client | undefined) => void client?.end().catch(() => undefined)

async function write(hosts: readonly string[], intervalMs: number, stop: AbortSignal): Promise<WriterReport> {
  const report: WriterReport = { acknowledged: [], gaps: [], writable: {} }
  const probes = hosts.map(host => probe(host, report, stop))
  let client: pg.Client | undefined
  let last = Date.now()
  for (let id = 1; !stop.aborted; id += 1) {
    try {
      client ??= await firstWritable(hosts)
      if (!client) {
        await sleep(5)
        continue
      }
      await client.query('INSERT INTO written (id) VALUES ($1)', [id])
      const now = Date.now()
      report.acknowledged.push(id)
      if (now - last > 50) report.gaps.push({ from: last, ms: now - last })
      last = now
      await sleep(intervalMs)
    } catch {
      drop(client)
      client = undefined
    }
  }
  drop(client)
  await Promise.all(probes)
  return report
}

async function firstWritable(hosts: readonly string[]): Promise<pg.Client | undefined> {
  for (const host of hosts) {
    const client = clientFor(host, CONNECT_MS)
    try {
      await client.connect()
      const { rows } = await client.query('SELECT pg_is_in_recovery() AS standby')
      if (rows[0]?.standby === false) return client
    } catch {
      // The next one.
    }
    drop(client)
  }
  return undefined
}

async function probe(host: string, report: WriterReport, stop: AbortSignal): Promise<void> {
  const spans: { from: number; to: number }[] = []
  report.writable[host] = spans
  let client: pg.Client | undefined
  let open = false
  while (!stop.aborted) {
    const asked = Date.now()
    let writable = false
    try {
      if (!client) {
        client = clientFor(host, CONNECT_MS)
        await client.connect()
      }
      writable = (await client.query('SELECT pg_is_in_recovery() AS standby')).rows[0]?.standby === false
    } catch {
      drop(client)
      client = undefined
    }
    const span = spans.at(-1)
    if (writable && open && span) span.to = asked
    else if (writable) spans.push({ from: Date.now(), to: Date.now() })
    open = writable
    await sleep(PROBE_MS)
  }
  drop(client)
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const stop = new AbortController()
  process.on('SIGTERM', () => stop.abort())
  const [, , hosts = '', intervalMs = '5'] = process.argv
  const report = await write(hosts.split(','), Number(intervalMs), stop.signal)
  // A connection to a host that has vanished would keep it for as long as the kernel tries.
  process.stdout.write(`${JSON.stringify(report)}\n`, () => process.exit(0))
}
