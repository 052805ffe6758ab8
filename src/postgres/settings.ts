/** The managed settings file: what this service sets on a server, line by line, each with its reason. */

export interface Setting {
  name: string
  value: string | number | boolean
  /** Why it has this value; a comment in the file. */
  because?: string
}

/** A string for postgresql.conf: quotes are doubled, backslashes are literal only when doubled too. */
export const settingString = (value: string) => `'${value.replaceAll('\\', '\\\\').replaceAll("'", "''")}'`

/**
 * What a replicating server needs whatever it is used for.
 *
 * @see https://www.postgresql.org/docs/current/hot-standby.html#HOT-STANDBY-ADMIN on settings that a standby must match,
 * https://www.postgresql.org/docs/current/app-pgrewind.html on wal_log_hints.
 */
export const REPLICATION_SETTINGS: readonly Setting[] = [
  { name: 'listen_addresses', value: '*', because: 'who may come in is decided in pg_hba.conf' },
  { name: 'password_encryption', value: 'scram-sha-256' },
  { name: 'shared_preload_libraries', value: 'repmgr' },
  { name: 'wal_level', value: 'replica' },
  { name: 'hot_standby', value: true },
  { name: 'wal_log_hints', value: true, because: 'lets pg_rewind bring an old primary back' },
  { name: 'max_wal_senders', value: 10, because: 'a clone needs two beside one for each standby' },
  { name: 'max_replication_slots', value: 10 },
]

/** A standby that applies each commit only so much later; a primary takes no notice of it. */
export const delaySettings = ({ applyDelayMs }: { applyDelayMs?: number }): Setting[] =>
  applyDelayMs === undefined
    ? []
    : [{ name: 'recovery_min_apply_delay', value: `${applyDelayMs}ms`, because: 'behind on purpose' }]

/** The file. Of settings with the same name the last one counts. */
export function managedSettings(about: { cluster: string; node: string }, settings: readonly Setting[]): string {
  const last = new Map(settings.map(setting => [setting.name, setting]))
  return [
    `# Managed by Understudy: cluster ${about.cluster}, node ${about.node}. What is changed here is overwritten;`,
    '# put settings of your own into another file of this directory, with a name that sorts after this one.',
    ...[...last.values()].map(line),
    '',
  ].join('\n')
}

function line({ name, value, because }: Setting): string {
  const text = typeof value === 'string' ? settingString(value) : typeof value === 'boolean' ? onOff(value) : value
  return because === undefined ? `${name} = ${text}` : `${`${name} = ${text}`.padEnd(38)}# ${because}`
}

const onOff = (value: boolean) => (value ? 'on' : 'off')
