/**
 * The settings of which a standby must not have less than its primary: it would not start, or would pause its replay
 * (https://www.postgresql.org/docs/current/hot-standby.html#HOT-STANDBY-ADMIN). They are the same on each node, and this
 * decides what each may be told to run with at its next start while they change. Pure.
 */

export const SHARED_SETTINGS = [
  'max_connections',
  'max_worker_processes',
  'max_wal_senders',
  'max_prepared_transactions',
  'max_locks_per_transaction',
] as const
export type SharedSetting = (typeof SHARED_SETTINGS)[number]

/** PostgreSQL’s own, the same in 13 to 18. */
const DEFAULTS: Readonly<Record<SharedSetting, number>> = {
  max_connections: 100,
  max_worker_processes: 8,
  max_wal_senders: 10,
  max_prepared_transactions: 0,
  max_locks_per_transaction: 64,
}

/** What every node shall have in the end: the most that any of them asks for. What does not ask has the default. */
export function sharedTarget(asked: readonly Partial<Record<SharedSetting, number>>[]): Record<SharedSetting, number> {
  const most = (name: SharedSetting) => {
    const values = asked.flatMap(wanted => {
      const value = wanted[name] ?? DEFAULTS[name]
      return Number.isFinite(value) ? [value] : []
    })
    return values.length === 0 ? DEFAULTS[name] : Math.max(...values)
  }
  return Object.fromEntries(SHARED_SETTINGS.map(name => [name, most(name)])) as Record<SharedSetting, number>
}

export type InForce = Readonly<Partial<Record<SharedSetting, number>>>

/**
 * What may stand in the file of a node now, so that whichever server starts again next, for whatever reason, no standby
 * has less than its primary. A standby: the target, or what its primary runs with where that is more. The primary: the
 * target, but no more than every standby runs with; one that cannot be asked is taken to have what the primary has.
 */
export function sharedNow(
  target: Record<SharedSetting, number>,
  role: 'primary' | 'standby',
  running: { primary: InForce | undefined; standbys: readonly InForce[] },
): Record<SharedSetting, number> {
  const { primary, standbys } = running
  if (primary === undefined) return target
  const allowed = (name: SharedSetting) => {
    const now = primary[name]
    if (now === undefined) return target[name]
    if (role === 'standby') return Math.max(target[name], now)
    const least = Math.min(...standbys.map(standby => standby[name] ?? now))
    return target[name] <= now ? target[name] : Math.max(now, Math.min(target[name], least))
  }
  return Object.fromEntries(SHARED_SETTINGS.map(name => [name, allowed(name)])) as Record<SharedSetting, number>
}

/** Whether PostgreSQL would have this value if nobody asked for another. */
export const isDefault = (name: SharedSetting, value: number) => DEFAULTS[name] === value

/** What each would have at its next start, by the files as they are now, and what it runs with. JSON, one row. */
export const nextStartQuery = `SELECT json_build_object('running', json_object_agg(name, setting::int), 'next', json_object_agg(name,
  COALESCE((SELECT f.setting FROM pg_file_settings f WHERE lower(f.name) = s.name ORDER BY seqno DESC LIMIT 1), boot_val)::int))
FROM pg_settings s WHERE name IN (${SHARED_SETTINGS.map(name => `'${name}'`).join(', ')})`

export const parseNextStart = (json: string) => JSON.parse(json) as { running: InForce; next: InForce }

/** What a standby knows its primary to run with: pg_controldata has what it has replayed of it, under names of its own. */
export function knownOfPrimary(controldata: string): InForce {
  const known: Record<string, number> = {}
  for (const [, short = '', value] of controldata.matchAll(/^(max_\w+) setting: *(\d+)$/gm))
    known[short.replace('xacts', 'transactions').replace('xact', 'transaction')] = Number(value)
  return known
}

/** Those of which there is less than the other one has: with them a standby does not start. */
export const tooLowToStart = (values: InForce, other: InForce): SharedSetting[] =>
  SHARED_SETTINGS.filter(name => {
    const [own, needed] = [values[name], other[name]]
    return own !== undefined && needed !== undefined && own < needed
  })
