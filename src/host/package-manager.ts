/**
 * What is asked of a package manager, and which one a host has. apt is the only one so far: dnf will be a file like
 * apt.ts, and a line at the end of this one.
 */
import type { OperationError } from '../operations/errors.js'
import { apt } from './apt.js'
import type { Command } from './command.js'
import type { CommandFailed } from './errors.js'
import type { RemoteFile } from './files.js'
import type { Host, RunOptions } from './host.js'
import type { SystemFacts } from './system.js'

/** A package with the version that it must have, where it must. */
export interface PackageChoice {
  name: string
  version?: string
}

/** A signed repository. `flat`: the suite is a path, and there are no components. */
export interface PackageRepository {
  uri: string
  suite: string
  components: readonly string[]
  /** Armored. */
  signingKey: string
  /** How its packages are told from those of other sources. */
  knownBy: { origin: string } | { host: string }
}

export interface PackagesOnHost {
  /** Versions of those that are installed, of the names that were asked for. */
  installed: Record<string, string>
  /** Those of them that are held. */
  held: string[]
  /** Versions that an installation would bring, of those that its sources have; of an installed one it may be the same. */
  candidates: Record<string, string>
  /** Major versions of PostgreSQL that the host’s sources have with repmgr; undefined where it has no lists of them yet. */
  offers: number[] | undefined
  /** The name of its release, such as `bookworm`. */
  codename: string | undefined
  /** A source that this service wrote is there. */
  ownSource: boolean
}

/** An installed package, and what the host’s sources have of it now. */
export interface UpgradablePackage {
  name: string
  installed: string
  /** What an upgrade would bring: by the host’s preferences, and never an older one. */
  candidate: string
  versions: string[]
}

export interface UpgradesOnHost {
  packages: UpgradablePackage[]
  /** The sources could not be read: what they had when the host read them last is told instead. */
  stale: boolean
}

export interface PackageManager {
  inspect(host: Host, names: readonly string[], options?: RunOptions): Promise<PackagesOnHost>
  /** The files that tell the host of a repository, in the order in which they are written. */
  repositoryFiles(repository: PackageRepository, about: string): RemoteFile[]
  /** Makes the directories that `repositoryFiles` need. */
  repositoryDirectories: Command
  /** Removes what `repositoryFiles` wrote. */
  forgetRepository: Command
  /** Fetches the lists of a repository and checks their signature, aside: the host’s own are not touched. */
  tryRepository(repository: PackageRepository): Command
  /**
   * What is installed of those that are built from one source with any of `names`, and what could be had: as the host has
   * read it last, or `fresh`, from lists that are fetched aside. Nothing on the host changes.
   */
  inspectUpgrades(host: Host, names: readonly string[], fresh: boolean, options?: RunOptions): Promise<UpgradesOnHost>
  /** Fetches what `upgrade` will need, and touches nothing that is installed. */
  fetchUpgrade(packages: readonly Required<PackageChoice>[]): Command
  /**
   * Installs exactly these versions, removes nothing, and starts and stops no PostgreSQL server. What was held is held
   * afterwards. Not to be cut short.
   */
  upgrade(packages: readonly Required<PackageChoice>[]): Command
  /** Fetches all lists, then installs; waits for other package managers. Not to be cut short. */
  install(packages: readonly PackageChoice[]): Command
  hold(names: readonly string[], held: boolean): Command
  /** Makes a clearer error of a failed command of the above, where its output tells. */
  explain(
    host: Host,
    failed: CommandFailed,
    about: { packages?: readonly PackageChoice[]; uri?: string },
  ): Promise<OperationError>
}

export function packageManagerOf({ family }: Pick<SystemFacts, 'family'>): PackageManager | undefined {
  return family === 'debian' ? apt : undefined
}
