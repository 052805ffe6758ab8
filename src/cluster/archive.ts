/** The WAL archive of a cluster: what its owner may ask for, what holds where nothing was said, what contradicts itself. */
import { type Static, Type } from 'typebox'

const GIBIBYTE = 1024 ** 3

/** No blanks and no quotes: it stands in configuration files and in commands. */
const Directory = Type.String({
  pattern: '^(?:/[A-Za-z0-9_][A-Za-z0-9._-]{0,99}){2,8}$',
  description:
    'Directory of the archive on every node, at least two levels deep: letters, digits and ._- only. Default /var/lib/postgresql/wal-archive.',
  examples: ['/srv/wal-archive'],
})

const ArchiveCommand = (what: string, example: string, least: '+' | '*' = '+') =>
  Type.String({
    pattern: `^[^\\u0000-\\u001f\\u007f]${least}$`,
    maxLength: 1000,
    description: `${what} One line; it is shown to who may read the cluster, so no passwords.`,
    examples: [example],
  })

export const ArchiveRetention = Type.Object(
  {
    hours: Type.Optional(
      Type.Integer({ minimum: 1, maximum: 87_600, default: 168, description: 'What is older is removed.' }),
    ),
    maxBytes: Type.Optional(
      Type.Integer({
        minimum: 268_435_456,
        maximum: 2 ** 50,
        default: 20 * GIBIBYTE,
        description: 'Beyond that the oldest are removed, on each node by itself.',
      }),
    ),
  },
  {
    additionalProperties: false,
    title: 'ArchiveRetention',
    description: 'How long the archive keeps WAL: whichever of the two is reached first.',
  },
)

export const ArchivePolicy = Type.Object(
  {
    mode: Type.Enum(['none', 'ship', 'command'], {
      title: 'ArchiveMode',
      description:
        'none: no archive. ship: every node keeps one, and the primary brings each segment to all of them. command: commands of your own.',
    }),
    directory: Type.Optional(Directory),
    minimumCopies: Type.Optional(
      Type.Integer({
        minimum: 0,
        maximum: 15,
        default: 1,
        description:
          'ship: how many other nodes must have a segment on their disks before PostgreSQL may forget it. Never more than there are.',
      }),
    ),
    maxWaitingBytes: Type.Optional(
      Type.Integer({
        minimum: 67_108_864,
        maximum: 2 ** 50,
        default: 10 * GIBIBYTE,
        description:
          'ship: when this much WAL waits and no other node can be reached, the primary’s own archive is enough: a full disk would stop it.',
      }),
    ),
    retention: Type.Optional(ArchiveRetention),
    timeoutSeconds: Type.Optional(
      Type.Integer({
        minimum: 0,
        maximum: 86_400,
        default: 0,
        description:
          'archive_timeout: a segment that is not full is archived after this time, if anything was written. 0: never.',
      }),
    ),
    command: Type.Optional(
      ArchiveCommand(
        'command: archive_command, with %p, or %f, or both.',
        'pgbackrest --stanza=orders archive-push %p',
      ),
    ),
    restoreCommand: Type.Optional(
      ArchiveCommand(
        'command: restore_command, with %f and %p. Empty: the servers read nothing back by themselves.',
        'pgbackrest --stanza=orders archive-get %f "%p"',
        '*',
      ),
    ),
  },
  {
    additionalProperties: false,
    title: 'ArchivePolicy',
    description: 'Whether finished WAL segments are kept beside the servers, where, and for how long.',
  },
)
export type ArchivePolicy = Static<typeof ArchivePolicy>

/** The policy with every default in place. `none` where nothing was asked for. */
export type Archive =
  | { mode: 'none' }
  | { mode: 'command'; command: string; restoreCommand: string; timeoutSeconds: number }
  | {
      mode: 'ship'
      directory: string
      minimumCopies: number
      maxWaitingBytes: number
      retentionHours: number
      retentionBytes: number
      timeoutSeconds: number
    }

export const DEFAULT_ARCHIVE_DIRECTORY = '/var/lib/postgresql/wal-archive'

/** Throws a TypeError for a policy that contradicts itself: ask `archiveContradictions` first. */
export function archiveOf({ archive }: { archive?: ArchivePolicy }): Archive {
  if (archive === undefined || archive.mode === 'none') return { mode: 'none' }
  const { timeoutSeconds = 0 } = archive
  if (archive.mode === 'command') {
    const { command, restoreCommand } = archive
    if (command === undefined || restoreCommand === undefined) throw new TypeError('an archive without its commands')
    return { mode: 'command', command, restoreCommand, timeoutSeconds }
  }
  return {
    mode: 'ship',
    directory: archive.directory ?? DEFAULT_ARCHIVE_DIRECTORY,
    minimumCopies: archive.minimumCopies ?? 1,
    maxWaitingBytes: archive.maxWaitingBytes ?? 10 * GIBIBYTE,
    retentionHours: archive.retention?.hours ?? 168,
    retentionBytes: archive.retention?.maxBytes ?? 20 * GIBIBYTE,
    timeoutSeconds,
  }
}

const ONLY: Readonly<Record<ArchivePolicy['mode'], readonly (keyof ArchivePolicy)[]>> = {
  none: [],
  ship: ['directory', 'minimumCopies', 'maxWaitingBytes', 'retention', 'timeoutSeconds'],
  command: ['command', 'restoreCommand', 'timeoutSeconds'],
}

/**
 * What belongs to the system, to people, to PostgreSQL or to the service itself: the archive’s directory is made the
 * postgres user’s alone, and what is in it expires.
 */
const TAKEN = [
  // All of it: programs, configuration, the kernel’s, homes, and what is emptied at a start.
  /^\/(?:bin|boot|dev|etc|home|lib|lib32|lib64|libx32|lost\+found|proc|root|run|sbin|snap|sys|tmp|usr)(?:\/|$)/,
  /^\/var\/(?:backups|cache|crash|lock|log|mail|run|spool|tmp|www)(?:\/|$)/,
  // The directories that others have theirs in.
  /^\/(?:[^/]+|var\/[^/]+|var\/lib\/(?:postgresql|pgsql))$/,
  // Where the package has its servers, with everything below, and what is the service’s or another package’s own.
  /^\/var\/lib\/(?:postgresql|pgsql)\/(?:\d+|repmgr)(?:\/|$)/,
  /^\/var\/lib\/(?:apt|dpkg|private|sudo|systemd|understudy)(?:\/|$)/,
  /\/pg_wal(?:\/|$)/,
  /(?:^|\/)\.{1,2}(?:\/|$)/,
]

const hasMark = (command: string, mark: string) => command.replaceAll('%%', '').includes(mark)

/**
 * Why what looks like an archive is none, in sentences: a command that is told neither the path nor the name of a segment
 * cannot keep it, whatever it answers. Nobody can describe one; a cluster that somebody else built may have one.
 *
 * @see https://www.postgresql.org/docs/current/continuous-archiving.html
 */
export function archiveObjection(archive: ArchivePolicy | undefined): string | undefined {
  const command = archive?.mode === 'command' ? archive.command : undefined
  if (command === undefined || hasMark(command, '%p') || hasMark(command, '%f')) return undefined
  return (
    `The archive loses WAL: its archive_command is ${JSON.stringify(command)}, without %p and %f, so that PostgreSQL does not tell it which segment to keep. ` +
    'If it fails, WAL piles up until the disk of the primary is full; if it does not, the segment is gone and was kept nowhere.'
  )
}

/** What its schema cannot say: JSON pointer below `base`, and sentence. */
export function archiveContradictions(
  archive: ArchivePolicy | undefined,
  base: string,
): { pointer: string; detail: string }[] {
  if (archive === undefined) return []
  const { mode } = archive
  const found = Object.keys(archive)
    .filter(name => name !== 'mode' && !ONLY[mode].includes(name as keyof ArchivePolicy))
    .map(name => ({
      pointer: `${base}/${name}`,
      detail: `${name} has no meaning where the archive’s mode is ${mode}.`,
    }))
  const need = (name: 'command' | 'restoreCommand', ...marks: string[]) => {
    const text = archive[name]
    if (text === undefined) {
      found.push({ pointer: `${base}/${name}`, detail: `${name} is needed where the archive’s mode is command.` })
      return
    }
    for (const mark of marks) {
      if (!hasMark(text, mark))
        found.push({
          pointer: `${base}/${name}`,
          detail: `${name} must contain ${mark}: PostgreSQL puts a path or a name there.`,
        })
    }
  }
  if (mode === 'command') {
    need('command')
    if (archiveObjection(archive) !== undefined)
      found.push({
        pointer: `${base}/command`,
        detail: 'command must contain %p, or %f: PostgreSQL puts the path, or the name, of the segment there.',
      })
    if (archive.restoreCommand !== '') need('restoreCommand', '%f', '%p')
  }
  if (archive.directory !== undefined && TAKEN.some(place => place.test(archive.directory ?? ''))) {
    found.push({
      pointer: `${base}/directory`,
      detail: `${archive.directory} belongs to the system, to its users, or to PostgreSQL itself. Give the archive a directory of its own, as /srv/wal-archive.`,
    })
  }
  return found
}
