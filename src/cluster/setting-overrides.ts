/**
 * Settings of PostgreSQL that the owner of a cluster asks for, beside those that are computed: which may be asked for at
 * all, and why others may not. Whether a name exists and a value is in its range, only PostgreSQL itself knows.
 */
import { type Static, Type } from 'typebox'

/** As PostgreSQL takes them: names of its own, and with a dot those of an extension. */
export const SettingName = Type.String({
  pattern: '^[a-z_][a-z0-9_.]{0,62}$',
  description: 'Name of a setting of PostgreSQL, in lower case; with a dot, one of an extension.',
  examples: ['work_mem'],
})

export const SettingValue = Type.Union(
  [Type.String({ maxLength: 2000, pattern: '^[^\\u0000-\\u001f\\u007f]*$' }), Type.Number(), Type.Boolean()],
  {
    title: 'SettingValue',
    description: 'As in postgresql.conf, without the quotes around it; with its unit where it has one.',
    examples: ['64MB', 1.1, true],
  },
)
export type SettingValue = Static<typeof SettingValue>

export const SettingOverrides = Type.Record(Type.String(), SettingValue, {
  // In place of patternProperties, which the published contract would lose.
  propertyNames: SettingName,
  maxProperties: 200,
  title: 'SettingOverrides',
  description:
    'Settings of PostgreSQL by name. They count before those that are computed from the hardware; a node’s count before the cluster’s.',
  examples: [{ work_mem: '64MB', log_min_duration_statement: '250ms' }],
})
export type SettingOverrides = Static<typeof SettingOverrides>

type Rule = (value: SettingValue) => string | undefined

const never =
  (why: string): Rule =>
  () =>
    why
const only =
  (allowed: readonly string[], why: string): Rule =>
  value =>
    allowed.includes(plain(value)) ? undefined : why

const ON = ['on', 'true', 'yes', '1']
const PLACE = 'Where PostgreSQL’s files are is decided when the server is made.'
const REPLICATION = 'This service and repmgr write it, for each node as its role needs it.'
const ARCHIVE = 'The archive, and the way back from it, is "archive" in the description of the cluster.'

const TLS = 'It is "tls" in the description of the cluster, and PUT …/tls changes it.'

/** The libraries that a server must load: repmgr’s keeps its functions in shared memory. */
export const REQUIRED_LIBRARIES = ['repmgr'] as const

/**
 * What a cluster cannot do without. Everything else is the owner’s to set.
 *
 * @see https://www.postgresql.org/docs/current/runtime-config.html
 */
const RULES: Readonly<Record<string, Rule>> = {
  listen_addresses: never(
    'The nodes and this service must reach the server. Who may come in is decided in pg_hba.conf.',
  ),
  port: never('It is "port" in the description of the cluster.'),
  unix_socket_directories: never('The tools on the host look for the socket where the package puts it.'),
  data_directory: never(PLACE),
  config_file: never(PLACE),
  hba_file: never(PLACE),
  ident_file: never(PLACE),
  external_pid_file: never(PLACE),
  wal_level: only(['replica', 'logical'], 'Standbys need "replica" or "logical".'),
  hot_standby: only(ON, 'A standby that answers no queries cannot be watched.'),
  wal_log_hints: only(ON, 'Without it an old primary cannot be brought back with pg_rewind.'),
  fsync: only(ON, 'Without it a crash leaves a database that nobody can trust, and its standbys cannot mend it.'),
  full_page_writes: only(ON, 'Without it a crash leaves torn pages, and pg_rewind does not work.'),
  password_encryption: only(['scram-sha-256'], 'Other passwords could not be used: pg_hba.conf asks for SCRAM.'),
  shared_preload_libraries: value => {
    const missing = REQUIRED_LIBRARIES.filter(name => !librariesIn(value).includes(name))
    return missing.length === 0 ? undefined : `It must have ${missing.join(', ')} among its libraries.`
  },
  max_wal_senders: value => atLeast(value, 4, 'A clone needs two beside one for each standby.'),
  max_replication_slots: value => atLeast(value, 4, 'Each standby has a slot.'),
  primary_conninfo: never(REPLICATION),
  primary_slot_name: never(REPLICATION),
  promote_trigger_file: never(REPLICATION),
  recovery_min_apply_delay: never(REPLICATION),
  recovery_target: never(REPLICATION),
  recovery_target_action: never(REPLICATION),
  recovery_target_inclusive: never(REPLICATION),
  recovery_target_lsn: never(REPLICATION),
  recovery_target_name: never(REPLICATION),
  recovery_target_time: never(REPLICATION),
  recovery_target_timeline: never(REPLICATION),
  recovery_target_xid: never(REPLICATION),
  ssl: never(TLS),
  ssl_cert_file: never(TLS),
  ssl_key_file: never(TLS),
  archive_mode: never(ARCHIVE),
  archive_command: never(ARCHIVE),
  archive_library: never(ARCHIVE),
  archive_cleanup_command: never(ARCHIVE),
  recovery_end_command: never(ARCHIVE),
  restore_command: never(ARCHIVE),
}

/** Why a setting cannot be had, in a sentence; undefined where nothing of ours stands against it. */
export function objectionTo(name: string, value: SettingValue): string | undefined {
  return Object.hasOwn(RULES, name) ? RULES[name]?.(value) : undefined
}

/** Where a description asks for what cannot be had: JSON pointer and sentence. */
export function settingObjections(asked: {
  settings?: SettingChanges
  nodes?: readonly { settings?: SettingChanges }[]
}): { pointer: string; detail: string }[] {
  const of = (settings: SettingChanges = {}, base: string) =>
    Object.entries(settings).flatMap(([name, value]) => {
      const objection = value === null ? undefined : objectionTo(name, value)
      return objection === undefined
        ? []
        : [{ pointer: `${base}/${name}`, detail: `${name} cannot be set so. ${objection}` }]
    })
  return [
    ...of(asked.settings, '/settings'),
    ...(asked.nodes ?? []).flatMap(({ settings }, index) => of(settings, `/nodes/${index}/settings`)),
  ]
}

/** `null` takes an override away. */
export type SettingChanges = Readonly<Record<string, SettingValue | null>>

/** Gives undefined where none is left, as a description without any says it. */
export function changed(
  before: SettingOverrides | undefined,
  changes: SettingChanges | undefined,
): SettingOverrides | undefined {
  const after: SettingOverrides = { ...before }
  for (const [name, value] of Object.entries(changes ?? {})) {
    if (value === null) delete after[name]
    else after[name] = value
  }
  return Object.keys(after).length === 0 ? undefined : after
}

/** The names in a list of libraries, which may be quoted and may have a path. */
export function librariesIn(value: SettingValue): string[] {
  return plain(value)
    .split(',')
    .map(name => name.trim().replace(/^["']|["']$/g, ''))
    .filter(name => name !== '')
}

const plain = (value: SettingValue) => (value === true ? 'on' : value === false ? 'off' : String(value).trim())

const atLeast = (value: SettingValue, least: number, why: string) =>
  Number(plain(value)) < least ? `${why} ${least} are the least.` : undefined
