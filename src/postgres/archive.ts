/** The WAL archive on a node: where its parts are, its configuration, and what PostgreSQL is told. The script is beside this. */
import { readFileSync } from 'node:fs'
import type { Archive } from '../cluster/archive.js'
import { quote } from '../host/quote.js'
import type { Layout } from './layout.js'
import type { Setting } from './settings.js'

type Shipping = Extract<Archive, { mode: 'ship' }>

/** In a directory of programs, because of SELinux: PostgreSQL may run what is labelled as one. */
export const ARCHIVE_PROGRAM = '/usr/local/bin/understudy-wal-archive'
export const ARCHIVE_CONF_DIRECTORY = '/etc/understudy'
export const ARCHIVE_CONF = `${ARCHIVE_CONF_DIRECTORY}/wal-archive.conf`
export const ARCHIVE_SERVICE = 'understudy-wal-archive.service'
export const ARCHIVE_TIMER = 'understudy-wal-archive.timer'

/** The script's text. Read once: it does not change under a running service. */
export const archiveScript = (): string => {
  script ??= readFileSync(new URL('./wal-archive.sh', import.meta.url), 'utf8')
  return script
}
let script: string | undefined

export const archiveStateDirectory = ({ directory }: Pick<Shipping, 'directory'>) => `${directory}/.state`

export interface ArchiveNode {
  name: string
  host: string
  sshPort: number
}

/** Shell assignments, one a line; what has blanks is quoted. */
export function archiveConf(
  cluster: string,
  node: string,
  others: readonly ArchiveNode[],
  archive: Shipping,
  { dataDirectory }: Pick<Layout, 'dataDirectory'>,
  ssh: { privateKey: string; knownHosts: string },
): string {
  const values: [string, string | number][] = [
    ['cluster', cluster],
    ['node', node],
    ['directory', archive.directory],
    ['data_directory', dataDirectory],
    ['minimum_copies', archive.minimumCopies],
    ['max_waiting_bytes', archive.maxWaitingBytes],
    ['retention_hours', archive.retentionHours],
    ['retention_bytes', archive.retentionBytes],
    ['identity', ssh.privateKey],
    ['known_hosts', ssh.knownHosts],
    // name, host and port of each other node, one a line
    ['targets', others.map(({ name, host, sshPort }) => `${name} ${host} ${sshPort}`).join('\n')],
  ]
  return [
    `# Managed by Understudy: cluster ${cluster}, node ${node}. What is changed here is overwritten.`,
    ...values.map(([name, value]) => `${name}=${quote([String(value)])}`),
    '',
  ].join('\n')
}

export const archiveUnits = (): { path: string; content: string }[] => [
  {
    path: `/etc/systemd/system/${ARCHIVE_SERVICE}`,
    content: [
      '# Managed by Understudy: what is changed here is overwritten.',
      '[Unit]',
      'Description=Bring other nodes the WAL that they missed, and remove what is expired',
      'After=network-online.target',
      '',
      '[Service]',
      'Type=oneshot',
      'User=postgres',
      `ExecStart=${ARCHIVE_PROGRAM} sync`,
      'Nice=10',
      'IOSchedulingClass=idle',
      '',
    ].join('\n'),
  },
  {
    path: `/etc/systemd/system/${ARCHIVE_TIMER}`,
    content: [
      '# Managed by Understudy: what is changed here is overwritten.',
      '[Unit]',
      'Description=The WAL archive’s housekeeping, twice a minute',
      '',
      '[Timer]',
      'OnBootSec=30',
      'OnUnitInactiveSec=30',
      'AccuracySec=5',
      '',
      '[Install]',
      'WantedBy=timers.target',
      '',
    ].join('\n'),
  },
]

/**
 * archive_mode is on in every mode, because to change it takes a restart and to change the command takes none. With
 * nothing to archive the command is one that always succeeds, so that no WAL waits.
 */
export function archiveSettings(archive: Archive): Setting[] {
  const mode: Setting = {
    name: 'archive_mode',
    value: true,
    because: 'always: to switch an archive on then takes no restart',
  }
  const settings = (command: string, restore: string, timeoutSeconds: number): Setting[] => [
    mode,
    { name: 'archive_command', value: command },
    { name: 'archive_timeout', value: timeoutSeconds },
    { name: 'restore_command', value: restore },
  ]
  switch (archive.mode) {
    case 'none':
      return [mode, { name: 'archive_command', value: '/bin/true', because: 'no archive' }]
    case 'command':
      return settings(archive.command, archive.restoreCommand, archive.timeoutSeconds)
    case 'ship':
      return settings(
        `${ARCHIVE_PROGRAM} archive "%p" "%f"`,
        `${ARCHIVE_PROGRAM} restore "%f" "%p"`,
        archive.timeoutSeconds,
      )
  }
}
