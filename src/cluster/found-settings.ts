/** What the servers of a cluster that is taken over were told by hand, as a description says it: so that nothing of it is lost. Pure. */
import { type ArchivePolicy, archiveContradictions, archiveObjection } from './archive.js'
import { librariesIn, objectionTo, REQUIRED_LIBRARIES, type SettingOverrides } from './setting-overrides.js'

/** What a server says of itself. */
export interface FoundServer {
  node: string
  /** The settings of the archive by name, as they are in force. */
  archive: Readonly<Record<string, string>>
  /** What stands in its configuration files, ALTER SYSTEM’s too: of each name the line that counts. */
  files: Readonly<Record<string, string>>
  /** recovery_min_apply_delay: how far behind it is on purpose while it is a standby. */
  applyDelayMs: number
}

/** Lines that initdb writes into every postgresql.conf: nobody has set them by hand. */
const STOCK: Readonly<Record<string, string>> = { shared_buffers: '128MB', max_wal_size: '1GB', min_wal_size: '80MB' }

const ON = ['on', 'true', 'yes', '1']
/** Commands that archive nothing and say that they did. */
const NOTHING = /^(?:(?:(?:\/usr)?\/bin\/)?true|:|exit 0)$/
const UNSAYABLE = /\p{Cc}/u

/**
 * Overrides for whatever `ours` would set and the primary was told otherwise. What the cluster cannot do without is left
 * out (`objectionTo`), and so is what nobody has chosen.
 */
export function foundOverrides(
  ours: readonly { name: string; value: string | number | boolean }[],
  { files }: Pick<FoundServer, 'files'>,
): SettingOverrides {
  const wanted = new Map(ours.map(({ name, value }) => [name, value]))
  const entries = [...wanted].flatMap(([name, own]): [string, string][] => {
    const said = files[name]
    if (said === undefined || STOCK[name] === said) return []
    const value = name === 'shared_preload_libraries' ? withRequired(said) : said
    const same = value === (own === true ? 'on' : own === false ? 'off' : String(own))
    if (same || value.length > 2000 || UNSAYABLE.test(value)) return []
    return objectionTo(name, value) === undefined ? [[name, value]] : []
  })
  return Object.fromEntries(entries)
}

function withRequired(list: string): string {
  const there = librariesIn(list)
  const missing = REQUIRED_LIBRARIES.filter(name => !there.includes(name))
  return [...missing, ...(list.trim() === '' ? [] : [list.trim()])].join(',')
}

/**
 * The archive that the servers have, the primary first, or why it cannot be described. One that loses WAL is recorded as it
 * is (`archiveObjection`): not to see it would not mend it.
 */
export function foundArchive(servers: readonly FoundServer[]): { archive?: ArchivePolicy; reasons: string[] } {
  const reasons: string[] = []
  const read = servers.map(({ node, archive, files }) => {
    const value = (name: string) => files[name] ?? archive[name] ?? ''
    const mode = value('archive_mode').toLowerCase()
    const on = ON.includes(mode)
    const command = value('archive_command')
    if (mode === 'always')
      reasons.push(`${node} has archive_mode = always, which this service does not know: only the primary archives.`)
    if (value('archive_library') !== '')
      reasons.push(
        `${node} archives with archive_library = ${value('archive_library')}; this service can only be told of an archive_command.`,
      )
    return { node, on, command: on && !NOTHING.test(command.trim()) ? command : '', restore: value('restore_command') }
  })
  const [primary, ...standbys] = read
  if (reasons.length > 0 || !primary) return { reasons }
  if (primary.on && primary.command === '' && !NOTHING.test(commandOf(servers[0])))
    return {
      reasons: [
        `${primary.node} has archive_mode = on and no archive_command, so that its WAL waits: set one, or /bin/true where none is wanted.`,
      ],
    }
  for (const { node, command } of standbys)
    if (command !== '' && command !== primary.command)
      reasons.push(
        `${node} has another archive_command than ${primary.node}; this service gives all nodes the same, for they change roles.`,
      )
  if (reasons.length > 0 || primary.command === '') return { reasons }
  const restores = new Set(read.map(({ restore }) => restore).filter(restore => restore !== ''))
  if (restores.size > 1)
    return {
      reasons: ['The nodes have different commands as restore_command; this service gives all nodes the same.'],
    }
  const timeoutSeconds = Number(servers[0]?.archive.archive_timeout ?? 0)
  const archive: ArchivePolicy = {
    mode: 'command',
    command: primary.command,
    restoreCommand: [...restores][0] ?? '',
    ...(timeoutSeconds > 0 ? { timeoutSeconds } : {}),
  }
  const unsayable = [archive.command ?? '', archive.restoreCommand ?? ''].some(
    text => text.length > 1000 || UNSAYABLE.test(text),
  )
  const useless = archiveObjection(archive) !== undefined
  const wrong = [
    ...archiveContradictions(archive, '')
      .filter(({ pointer }) => !useless || pointer !== '/command')
      .map(({ pointer, detail }) =>
        pointer === '/command' ? `archive_command: ${detail}` : `restore_command: ${detail}`,
      ),
    ...(unsayable ? ['archive_command or restore_command has more than 1000 characters, or more than one line.'] : []),
  ]
  return wrong.length > 0 ? { reasons: wrong } : { archive, reasons: [] }
}

const commandOf = (server: FoundServer | undefined) =>
  (server?.files.archive_command ?? server?.archive.archive_command ?? '').trim()
