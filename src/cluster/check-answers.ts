/** What the hosts and servers of a cluster answered when they were tried: what the checks judge. */
import type { ArchiveObservation } from './archive-status.js'
import type { Cluster } from './model.js'

/** How a TCP connection from one host to another ended. */
export type PortAnswer = 'open' | 'refused' | 'silent'

/** What one host found out about another. */
export interface PeerAnswer {
  /** The address that the name resolves to there; undefined where it does not. */
  resolvesTo: string | undefined
  ssh: PortAnswer
  postgres: PortAnswer
  /** What psql said as repmgr, in its database and as a replication client; undefined where there is no psql yet. */
  client: { ok: boolean; said: string } | undefined
  replication: { ok: boolean; said: string } | undefined
  /** SSH between the postgres users; undefined where it is not wanted, or not set up yet. */
  login?: LoginAnswer
}

/** How a login ended, of this service to a server, or of one node's postgres user to another node. */
export type LoginAnswer = { ok: true } | { ok: false; detail: string; remedy: string }

export interface ServerAnswer {
  inRecovery: boolean
  /** `block checksums or wal_log_hints`: without either, pg_rewind refuses. */
  canRewind: boolean
  databaseBytes: number
}

/** Judged where it was read, because a certificate cannot be judged without its clock. */
export interface CertificateAnswer {
  path: string
  /** Whole days; undefined where there is no certificate that can be read. */
  daysLeft: number | undefined
  /** What keeps others from believing it. */
  problem: string | undefined
  /** Whether this service makes it. */
  ours: boolean
}

/** Of every node, whether its host answers or not. */
interface NodeAnswer {
  node: string
  /** A server of its own, with none of the data. */
  witness: boolean
  /** Whether a server of the cluster has to run there: it was started before, or joined by the cluster's record. */
  built: boolean
  /** How this service was let in by its server; undefined where nothing was built. */
  service: LoginAnswer | undefined
}

export type HostAnswer =
  | (NodeAnswer & { failure: { detail: string; remedy: string } })
  | (NodeAnswer & {
      connectMs: number
      clockOffsetMs: number
      /** Of the file system that the data directory is or will be on. */
      disk: { availableBytes: number; totalBytes: number; mount: string }
      /** Whether its data directory holds the cluster's data, and is to keep them. */
      inUse: boolean
      /** What a clone would find in its place and empty before it begins; 0 where the data stay. */
      ownBytes: number
      /** Why the host cannot be this node; undefined where what is there is the cluster's, or nobody's yet. */
      foreign: { detail: string; remedy: string } | undefined
      /** Whether a postmaster works in the data directory. */
      running: boolean
      /** It was told to stop, and not to start by itself. */
      held: boolean
      /** Commands that the postgres user may, or may not, run as root; empty before there is such a user. */
      sudo: { command: string; allowed: boolean }[]
      openFilesLimit: number | undefined
      overcommitMemory: number | undefined
      transparentHugePages: string | undefined
      packages: Record<string, string>
      /** Versions of the packages that an installation would bring, as far as the host knows. */
      wouldInstall: Record<string, string>
      /** Whether the script of the WAL archive is there. */
      hasArchive: boolean
      /** What its server presents, where the cluster has TLS and the server was built. */
      certificate?: CertificateAnswer
      peers: Record<string, PeerAnswer>
      /** What it said to its own superuser; undefined where it does not run or does not answer. */
      server: ServerAnswer | undefined
      /** What it said of the archive to this service; undefined of a standby, and where it could not be asked. */
      archive?: ArchiveObservation
    })

export type Answered = Exclude<HostAnswer, { failure: unknown }>

/** What they are judged by. */
export type CheckedCluster = Pick<Cluster, 'name' | 'postgresVersion' | 'nodes' | 'archive' | 'sshBetweenNodes'>
