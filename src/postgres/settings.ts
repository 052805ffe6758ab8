/** The managed settings file. The first cut is the same on every node; a standby must not have less than its primary. */

/** A string for postgresql.conf: quotes are doubled, backslashes are literal only when doubled too. */
export const settingString = (value: string) => `'${value.replaceAll('\\', '\\\\').replaceAll("'", "''")}'`

/**
 * @see https://www.postgresql.org/docs/current/hot-standby.html#HOT-STANDBY-ADMIN on settings that a standby must match,
 * https://www.postgresql.org/docs/current/app-pgrewind.html on wal_log_hints.
 */
export function managedSettings({ cluster, node }: { cluster: string; node: string }): string {
  return [
    `# Managed by Understudy: cluster ${cluster}, node ${node}. What is changed here is overwritten;`,
    '# put settings of your own into another file of this directory, with a name that sorts after this one.',
    "listen_addresses = '*'                # who may come in is decided in pg_hba.conf",
    "password_encryption = 'scram-sha-256'",
    "shared_preload_libraries = 'repmgr'",
    'wal_level = replica',
    'hot_standby = on',
    'wal_log_hints = on                    # lets pg_rewind bring an old primary back',
    'max_wal_senders = 10                  # a clone needs two beside one for each standby',
    'max_replication_slots = 10',
    "max_slot_wal_keep_size = '10GB'       # a lost standby must not fill the primary's disk",
    '',
  ].join('\n')
}
