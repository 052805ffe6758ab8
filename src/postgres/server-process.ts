/**
 * A server's processes, as the process table has them. PostgreSQL writes there what each does, never the text of a query:
 * "postgres: 15/main: archiver archiving 000000010000000000000007".
 *
 * @see https://www.postgresql.org/docs/current/monitoring-ps.html
 */
export type ServerProcess = { pid: number; title: string } & (
  | { kind: 'postmaster' }
  /** `writing`: a checkpoint, and which; PostgreSQL says so since 14. */
  | { kind: 'checkpointer'; writing?: string }
  /** A worker of the server itself. */
  | { kind: 'worker'; doing: string }
  | { kind: 'session'; user: string; database: string; client: string }
  /** `segment`: the file that its command was given and has not answered for. */
  | { kind: 'archiver'; segment?: string }
  | { kind: 'walsender'; address: string; sentLsn?: string }
)

/** A session's title names its client: `[local]`, or an address with its port. */
const SESSION = /^(.+) (\S+) (\[local\]|\S+\(\d+\))(?: .*)?$/

/** `title`: its command line, where the arguments are parted by spaces. */
export function readServerProcess(pid: number, title: string): ServerProcess {
  const [, doing] = /^postgres: (?:\S+: )?(.*?)\s*$/.exec(title) ?? []
  const own = { pid, title: title.trim() }
  if (doing === undefined) return { ...own, kind: 'postmaster' }
  if (/^checkpointer\b/.test(doing)) {
    const writing = /^checkpointer performing (.+)$/.exec(doing)?.[1]
    return { ...own, kind: 'checkpointer', ...(writing === undefined ? {} : { writing }) }
  }
  if (/^archiver\b/.test(doing)) {
    const segment = /^archiver archiving (\S+)/.exec(doing)?.[1]
    return { ...own, kind: 'archiver', ...(segment === undefined ? {} : { segment }) }
  }
  const [, address, sentLsn] =
    /^walsender .*?(\[local\]|\S+(?=\(\d+\)))(?:\(\d+\))?(?: streaming ([0-9A-F]+\/[0-9A-F]+))?/.exec(doing) ?? []
  if (address !== undefined)
    return { ...own, kind: 'walsender', address, ...(sentLsn === undefined ? {} : { sentLsn }) }
  const [, user, database, client] = SESSION.exec(doing) ?? []
  if (user === undefined || database === undefined || client === undefined) return { ...own, kind: 'worker', doing }
  return { ...own, kind: 'session', user, database, client }
}
