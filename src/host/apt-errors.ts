/** What apt's messages mean. They are matched in English: every command runs with LC_ALL=C.UTF-8. */
import { OperationError } from '../operations/errors.js'
import type { CommandFailed, Where } from './errors.js'
import type { Host } from './host.js'
import type { PackageChoice } from './package-manager.js'

/** Thrown when a package source does not answer, or is no package source. */
export class PackageSourceUnreachable extends OperationError {
  constructor(where: Where, uri: string | undefined, said: string, cause: CommandFailed) {
    super(`${where.host} cannot fetch packages from ${uri ?? 'its sources'}: ${said}`, {
      code: 'package-source-unreachable',
      outcome: 'failed_clean',
      remedy:
        `Check from ${where.host} that the address is right and can be reached (name resolution, firewall, proxy in ` +
        '/etc/apt/apt.conf.d), and that it has this release. A host without the internet needs a mirror. Nothing was installed.',
      ...outputOf(cause),
    })
  }
}

/** Thrown when the signature of a package source is not by the key that is believed, or has expired. */
export class PackageSourceUntrusted extends OperationError {
  constructor(where: Where, uri: string | undefined, said: string, cause: CommandFailed) {
    super(
      `${where.host} does not trust ${uri === undefined ? 'a package source' : `the package source ${uri}`}: ${said}`,
      {
        code: 'package-source-untrusted',
        outcome: 'failed_clean',
        remedy:
          'Compare the signing key with the one that its owner publishes. Where it has expired, or the repository has not been ' +
          'signed for too long, its owner has to renew it; look at the clock of the host, too. Nothing was installed.',
        ...outputOf(cause),
      },
    )
  }
}

/** Thrown when no source of a host has a package, or not in the version that is asked for. */
export class PackagesUnavailable extends OperationError {
  constructor(
    node: string,
    { missing, offered }: { missing: string; offered: string },
    outcome: 'not_started' | 'failed_clean',
    remedy: string,
    cause?: CommandFailed,
  ) {
    super(`The package sources of ${node} do not have ${missing}; they have ${offered}.`, {
      code: 'packages-unavailable',
      outcome,
      remedy: `${remedy} Nothing was installed.`,
      ...(cause ? outputOf(cause) : {}),
    })
  }
}

/** Thrown when another program has held the package manager's lock for longer than it was waited for. */
export class PackageManagerBusy extends OperationError {
  constructor(where: Where, holder: string, cause: CommandFailed) {
    super(`The package manager of ${where.host} is locked by ${holder}, and was not set free in time.`, {
      code: 'package-manager-busy',
      outcome: 'failed_clean',
      remedy: `Wait until it has ended (ps -ef on ${where.host} shows it), then repeat the call. Do not remove the lock file.`,
      ...outputOf(cause),
    })
  }
}

/** Thrown when an installation before ours was cut short: dpkg does nothing until that is put right. */
export class PackageManagerInterrupted extends OperationError {
  constructor(where: Where, cause: CommandFailed) {
    super(`On ${where.host} an installation was cut short before, and dpkg waits for it to be completed.`, {
      code: 'package-manager-interrupted',
      outcome: 'failed_clean',
      remedy: `On ${where.host}, as root: dpkg --configure -a && apt-get -f install. Then repeat the call.`,
      ...outputOf(cause),
    })
  }
}

/** Thrown when packages do not fit on the disk. */
export class PackageDiskFull extends OperationError {
  constructor(where: Where, detail: string, outcome: 'failed_clean' | 'failed_partial', cause: CommandFailed) {
    super(`The packages do not fit on a disk of ${where.host}: ${detail}`, {
      code: 'disk-full',
      outcome,
      remedy:
        outcome === 'failed_clean'
          ? `Free space on ${where.host}, then repeat the call.`
          : `Free space on ${where.host}, then, as root: dpkg --configure -a && apt-get -f install. Then repeat the call.`,
      ...outputOf(cause),
    })
  }
}

const outputOf = (cause: CommandFailed) => ({ cause, ...(cause.output === undefined ? {} : { output: cause.output }) })

export type AptFailure =
  | { kind: 'interrupted' }
  | { kind: 'busy'; holder: string }
  | { kind: 'disk-full'; detail: string; partial: boolean }
  /** `unread`: why the lists of a source are not those that it has now. */
  | { kind: 'unavailable'; packages: string[]; unread: string | undefined }
  | { kind: 'untrusted'; detail: string }
  | { kind: 'unreachable'; detail: string }

/** What is printed before another try. */
export const WAITING = 'waiting until it is free'

const LOCKED = /Could not get lock (\S+)\. It is held by process (\d+)(?: \((.*)\))?/
const LOCKED_DPKG = /lock was locked by (?:another|(\S+)) process with pid (\d+)/
const UNTRUSTED =
  /NO_PUBKEY|EXPKEYSIG|KEYEXPIRED|BADSIG|REVKEYSIG|couldn't be verified|signatures were invalid|is not signed|Missing key|OpenPGP signature verification failed|Release file .* (?:is expired|is not valid yet)|Clearsigned file isn't valid/
const UNREACHABLE = /Failed to fetch|Unable to fetch|does not have a Release file/
const UNAVAILABLE = [
  /^E: Unable to locate package (\S+)/,
  /^E: Version '.*' for '([^']+)' was not found/,
  /^E: Package '([^']+)' has no installation candidate/,
]

/** Reads why apt failed from the end of what it printed. Undefined where it is none of the known reasons. */
export function readAptFailure(output: string): AptFailure | undefined {
  const lines = output
    .split('\n')
    .map(line => line.trimEnd())
    .filter(line => line !== '')
  const find = (pattern: RegExp) => lines.map(line => pattern.exec(line)).find(found => found !== null)
  if (find(/dpkg was interrupted, you must manually run/)) return { kind: 'interrupted' }

  // Of the last try only: one that was waited for, and set free, stands further up.
  const lastTry = lines.slice(lines.findLastIndex(line => line.startsWith(WAITING)) + 1)
  for (const line of lastTry.slice(-6)) {
    const [, lock, pid, name] = LOCKED.exec(line) ?? []
    if (lock) return { kind: 'busy', holder: `${name ?? 'a program'} (process ${pid}, ${lock})` }
    const [, program = 'a program', dpkgPid] = LOCKED_DPKG.exec(line) ?? []
    if (dpkgPid) return { kind: 'busy', holder: `${program} (process ${dpkgPid})` }
  }

  const [, tooSmall] = find(/^E: You don't have enough free space in (\S+?)\.?$/) ?? []
  if (tooSmall) return { kind: 'disk-full', detail: `not enough is free in ${tooSmall}.`, partial: false }
  const full = find(/No space left on device/)
  // Once dpkg is at work, packages are half-unpacked.
  if (full) return { kind: 'disk-full', detail: full.input.trim(), partial: find(/^(?:dpkg|Unpacking) /) !== undefined }

  const packages = UNAVAILABLE.flatMap(pattern => lines.map(line => pattern.exec(line)?.[1] ?? '')).filter(Boolean)
  const untrusted = reason(lines, UNTRUSTED)
  const unreachable = reason(lines, UNREACHABLE)
  if (packages.length > 0) {
    return { kind: 'unavailable', packages: [...new Set(packages)], unread: untrusted ?? unreachable }
  }
  if (untrusted !== undefined) return { kind: 'untrusted', detail: untrusted }
  return unreachable === undefined ? undefined : { kind: 'unreachable', detail: unreachable }
}

/** The line that says most: the cause, which apt prints indented below what it could not fetch, or else the error. */
function reason(lines: readonly string[], pattern: RegExp): string | undefined {
  const fitting = lines.filter(line => pattern.test(line) && /^(?:[EW]: |\s)/.test(line))
  if (fitting.length === 0) return undefined
  const cause = lines[lines.findIndex(line => line.startsWith('Err:')) + 1]
  const best = cause?.startsWith('  ') ? cause : (fitting.find(line => line.startsWith('E: ')) ?? fitting[0] ?? '')
  return best.replace(/^(?:[EW]: |\s+)/, '').trim()
}

/** Of what `apt-cache madison` prints, the versions of a package. */
export const madisonVersions = (output: string, name: string): string[] => [
  ...new Set(
    output
      .split('\n')
      .map(line => line.split('|').map(part => part.trim()))
      .filter(([found]) => found === name)
      .map(([, version = '']) => version),
  ),
]

export async function explainApt(
  host: Host,
  failed: CommandFailed,
  about: { packages?: readonly PackageChoice[]; uri?: string },
): Promise<OperationError> {
  const where = host.address
  const found = readAptFailure(failed.output ?? '')
  switch (found?.kind) {
    case 'interrupted':
      return new PackageManagerInterrupted(where, failed)
    case 'busy':
      return new PackageManagerBusy(where, found.holder, failed)
    case 'disk-full':
      return new PackageDiskFull(where, found.detail, found.partial ? 'failed_partial' : 'failed_clean', failed)
    case 'untrusted':
      return new PackageSourceUntrusted(where, about.uri, found.detail, failed)
    case 'unreachable':
      return new PackageSourceUnreachable(where, about.uri, found.detail, failed)
    case 'unavailable':
      return unavailable(host, found, failed, about.packages ?? [])
    default:
      return failed
  }
}

async function unavailable(
  host: Host,
  { packages, unread }: Extract<AptFailure, { kind: 'unavailable' }>,
  failed: CommandFailed,
  asked: readonly PackageChoice[],
): Promise<OperationError> {
  const madison = { argv: ['apt-cache', 'madison', ...packages], as: 'root', timeoutMs: 60_000 } as const
  const { stdout } = await host.run(madison).catch(() => ({ stdout: '' }))
  const missing = packages.map(name => {
    const version = asked.find(choice => choice.name === name)?.version
    return version === undefined ? name : `${name} ${version}`
  })
  const offered = packages.map(name => `${name} ${madisonVersions(stdout, name).join(', ') || 'in no version'}`)
  return new PackagesUnavailable(
    host.address.host,
    { missing: missing.join(' and '), offered: offered.join('; ') },
    'failed_clean',
    `${unread === undefined ? '' : `Not every source could be read: ${unread} `}` +
      'Ask for a version that they have, or name a source that has it ("packages": {"source": "pgdg"}, or a mirror).',
    failed,
  )
}
