/**
 * Preflight: what must be so before a cluster is built, changed or relied upon. What the hosts answered comes in, a
 * verdict on each edge goes out. Pure.
 */
import { type Static, Type } from 'typebox'
import { RENEWAL_DAYS } from './certificate.js'

export const CheckResult = Type.Object(
  {
    kind: Type.Enum(
      [
        'ssh',
        'sudo',
        'name_resolution',
        'port',
        'postgres_client',
        'postgres_replication',
        'versions',
        'disk',
        'clock',
        'kernel',
        'rewind',
        'archive',
        'certificate',
      ],
      { title: 'CheckKind', description: 'What was looked at; more may come.' },
    ),
    from: Type.Optional(Type.String({ description: 'Node that it was tried from; absent: from this service.' })),
    to: Type.Optional(Type.String({ description: 'Node that it is about.' })),
    verdict: Type.Enum(['ok', 'warning', 'failed'], {
      title: 'CheckVerdict',
      description:
        'failed: an operation that needs it will not work. warning: it will, and something is not as it should be.',
    }),
    detail: Type.String({ description: 'What was found.' }),
    remedy: Type.Optional(Type.String({ description: 'What to do; absent where all is well.' })),
  },
  { additionalProperties: false, title: 'CheckResult', description: 'One edge that was tried just now.' },
)
export type CheckResult = Static<typeof CheckResult>

export const Checks = Type.Object(
  {
    cluster: Type.String(),
    verdict: Type.Enum(['ok', 'warning', 'failed'], { title: 'ChecksVerdict', description: 'The worst of all.' }),
    items: Type.Array(CheckResult, { description: 'Worst first.' }),
    observedAt: Type.String({ format: 'date-time' }),
  },
  {
    additionalProperties: false,
    title: 'Checks',
    description: 'Every edge that the cluster needs, as it answered just now.',
  },
)
export type Checks = Static<typeof Checks>

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
}

export interface ServerAnswer {
  inRecovery: boolean
  /** `block checksums or wal_log_hints`: without either, pg_rewind refuses. */
  canRewind: boolean
  databaseBytes: number
  archiving: boolean
  archiveFailing: string | undefined
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

export type HostAnswer =
  | { node: string; failure: { detail: string; remedy: string } }
  | {
      node: string
      connectMs: number
      clockOffsetMs: number
      /** Of the file system that the data directory is or will be on. */
      disk: { availableBytes: number; totalBytes: number; mount: string }
      /** Whether its data directory holds this cluster's data. */
      inUse: boolean
      /** Commands that the postgres user may, or may not, run as root; empty before there is such a user. */
      sudo: { command: string; allowed: boolean }[]
      openFilesLimit: number | undefined
      overcommitMemory: number | undefined
      transparentHugePages: string | undefined
      packages: Record<string, string>
      /** What its server presents, where the cluster has TLS and the server was built. */
      certificate?: CertificateAnswer
      peers: Record<string, PeerAnswer>
      server: ServerAnswer | undefined
    }

type Answered = Exclude<HostAnswer, { failure: unknown }>

const GIB = 1024 ** 3
const gibibytes = (bytes: number) => `${(bytes / GIB).toFixed(1)} GiB`

/** Everything that the answers say, worst first. `postgresVersion` is the cluster's. */
export function judgeAnswers(postgresVersion: number, answers: readonly HostAnswer[]): CheckResult[] {
  const there = answers.filter((answer): answer is Answered => !('failure' in answer))
  const neededBytes = Math.max(0, ...there.map(({ server }) => server?.databaseBytes ?? 0))
  const items = [
    ...answers.map(judgeSsh),
    ...there.flatMap(answer => [
      ...judgeSudo(answer),
      judgeClock(answer),
      judgeDisk(answer, neededBytes),
      ...judgeKernel(answer),
      ...judgeServer(answer),
      ...judgeCertificate(answer),
      ...Object.entries(answer.peers).flatMap(([to, peer]) => judgePeer(answer.node, to, peer)),
    ]),
    ...judgeVersions(postgresVersion, there),
  ]
  const rank = { failed: 0, warning: 1, ok: 2 }
  return items.sort((a, b) => rank[a.verdict] - rank[b.verdict])
}

export const worstOf = (items: readonly CheckResult[]): CheckResult['verdict'] =>
  items.some(({ verdict }) => verdict === 'failed')
    ? 'failed'
    : items.some(({ verdict }) => verdict === 'warning')
      ? 'warning'
      : 'ok'

function judgeSsh(answer: HostAnswer): CheckResult {
  const edge = { kind: 'ssh', to: answer.node } as const
  return 'failure' in answer
    ? { ...edge, verdict: 'failed', ...answer.failure }
    : { ...edge, verdict: 'ok', detail: `logged in, became root, and was answered in ${answer.connectMs} ms` }
}

function judgeSudo({ node, sudo }: Answered): CheckResult[] {
  return sudo.map(({ command, allowed }) =>
    allowed
      ? { kind: 'sudo', to: node, verdict: 'ok', detail: `postgres may run ${command}` }
      : {
          kind: 'sudo',
          to: node,
          verdict: 'warning',
          detail: `postgres may not run ${command}`,
          remedy:
            'repmgr needs it to start and stop the server by itself; the operations of this service do not. PUT the description of the cluster writes the sudoers file.',
        },
  )
}

const CLOCK_WARNING_MS = 1000
const CLOCK_FAILED_MS = 60_000

function judgeClock({ node, clockOffsetMs }: Answered): CheckResult {
  const behind = Math.abs(clockOffsetMs)
  const detail = `its clock is ${behind} ms ${clockOffsetMs < 0 ? 'behind' : 'ahead of'} this service’s`
  if (behind < CLOCK_WARNING_MS) return { kind: 'clock', to: node, verdict: 'ok', detail }
  const remedy = 'Let chrony or systemd-timesyncd keep the clocks of all hosts, and of this service’s.'
  return { kind: 'clock', to: node, verdict: behind < CLOCK_FAILED_MS ? 'warning' : 'failed', detail, remedy }
}

function judgeDisk({ node, disk, inUse }: Answered, neededBytes: number): CheckResult {
  const free = `${disk.mount} has ${gibibytes(disk.availableBytes)} of ${gibibytes(disk.totalBytes)} free`
  const edge = { kind: 'disk', to: node } as const
  if (!inUse && disk.availableBytes < neededBytes * 1.05) {
    return {
      ...edge,
      verdict: 'failed',
      detail: `${free}; a clone needs ${gibibytes(neededBytes * 1.05)}`,
      remedy: 'Free space there, or give it a larger disk.',
    }
  }
  if (disk.availableBytes < disk.totalBytes * 0.1 || disk.availableBytes < GIB / 4) {
    return {
      ...edge,
      verdict: 'warning',
      detail: free,
      remedy: 'A full disk stops the server. Free space there, or give it a larger disk.',
    }
  }
  return { ...edge, verdict: 'ok', detail: inUse ? free : `${free}; a clone needs ${gibibytes(neededBytes * 1.05)}` }
}

/** @see https://www.postgresql.org/docs/current/kernel-resources.html */
function judgeKernel({ node, openFilesLimit, overcommitMemory, transparentHugePages }: Answered): CheckResult[] {
  const items: CheckResult[] = []
  const say = (fine: boolean, detail: string, remedy: string) =>
    items.push({ kind: 'kernel', to: node, verdict: fine ? 'ok' : 'warning', detail, ...(fine ? {} : { remedy }) })
  if (openFilesLimit !== undefined)
    say(
      openFilesLimit >= 4096,
      `the server may have ${openFilesLimit} files open`,
      'Raise LimitNOFILE of the PostgreSQL unit to 65536 or so.',
    )
  if (overcommitMemory !== undefined)
    say(
      overcommitMemory !== 1,
      `vm.overcommit_memory is ${overcommitMemory}`,
      'With 1 the kernel promises memory that it does not have, and ends a process, often PostgreSQL, when it is wanted. Set it to 2, or 0.',
    )
  if (transparentHugePages !== undefined)
    say(
      transparentHugePages !== 'always',
      `transparent huge pages: ${transparentHugePages}`,
      'They cost latency under PostgreSQL. Set /sys/kernel/mm/transparent_hugepage/enabled to madvise.',
    )
  return items
}

function judgeServer({ node, server }: Answered): CheckResult[] {
  if (!server) return []
  const rewind: CheckResult = server.canRewind
    ? { kind: 'rewind', to: node, verdict: 'ok', detail: 'data checksums or wal_log_hints are on' }
    : {
        kind: 'rewind',
        to: node,
        verdict: 'warning',
        detail: 'neither data checksums nor wal_log_hints are on: pg_rewind cannot bring an old primary back',
        remedy: 'Set wal_log_hints to on and restart the server. Until then an old primary has to be cloned again.',
      }
  if (!server.archiving) return [rewind]
  const archive: CheckResult =
    server.archiveFailing === undefined
      ? { kind: 'archive', to: node, verdict: 'ok', detail: 'the WAL archive took the last segment' }
      : {
          kind: 'archive',
          to: node,
          verdict: 'failed',
          detail: server.archiveFailing,
          remedy:
            'Look at the server’s log for what the archive command said. WAL stays on the primary’s disk until it works.',
        }
  return server.inRecovery ? [rewind] : [rewind, archive]
}

function judgeCertificate({ node, certificate }: Answered): CheckResult[] {
  if (!certificate) return []
  const { path, daysLeft, problem, ours } = certificate
  const edge = { kind: 'certificate', to: node } as const
  const remedy = ours
    ? `POST …/nodes/${node}/provision makes a new one, and the running server reads it.`
    : `Put a new one into ${path}; then POST …/nodes/${node}/provision lets the running server read it.`
  if (problem !== undefined) return [{ ...edge, verdict: 'failed', detail: `${path}: ${problem}`, remedy }]
  const detail = `the certificate of the server ends in ${daysLeft} days`
  return (daysLeft ?? 0) < RENEWAL_DAYS
    ? [{ ...edge, verdict: 'warning', detail, remedy }]
    : [{ ...edge, verdict: 'ok', detail }]
}

function judgePeer(from: string, to: string, peer: PeerAnswer): CheckResult[] {
  const edge = { from, to } as const
  const items: CheckResult[] = []
  if (peer.resolvesTo === undefined) {
    return [
      {
        ...edge,
        kind: 'name_resolution',
        verdict: 'failed',
        detail: `the name of ${to} does not resolve on ${from}`,
        remedy: `Put it into DNS or into /etc/hosts of ${from}, or describe the node by its address.`,
      },
    ]
  }
  items.push({ ...edge, kind: 'name_resolution', verdict: 'ok', detail: peer.resolvesTo })
  const port = (what: string, answer: PortAnswer, expected: boolean) => {
    if (answer === 'open') return items.push({ ...edge, kind: 'port', verdict: 'ok', detail: `${what} can be reached` })
    // Nobody listens before the server is built; a firewall that drops is wrong at any time.
    const verdict = answer === 'silent' || expected ? 'failed' : 'ok'
    const detail = answer === 'silent' ? `${what} does not answer within 3 s` : `nobody listens on ${what}`
    return items.push({
      ...edge,
      kind: 'port',
      verdict,
      detail: verdict === 'ok' ? `${detail} yet` : detail,
      ...(verdict === 'ok'
        ? {}
        : {
            remedy:
              answer === 'silent'
                ? `Look for a firewall between ${from} and ${to}.`
                : `Is its service running on ${to}?`,
          }),
    })
  }
  port('the PostgreSQL port', peer.postgres, peer.client !== undefined)
  if (peer.ssh !== 'open') {
    items.push({
      ...edge,
      kind: 'port',
      verdict: 'warning',
      detail: `the SSH port ${peer.ssh === 'silent' ? 'does not answer' : 'is refused'}`,
      remedy: 'Only repmgr’s own switchover and a shipped WAL archive need SSH between the nodes.',
    })
  }
  if (peer.postgres === 'open') {
    items.push(...judgeLogin(edge, 'postgres_client', 'a client', peer.client))
    items.push(...judgeLogin(edge, 'postgres_replication', 'a replication client', peer.replication))
  }
  return items
}

function judgeLogin(
  edge: { from: string; to: string },
  kind: 'postgres_client' | 'postgres_replication',
  what: string,
  login: PeerAnswer['client'],
): CheckResult[] {
  if (!login) return []
  return [
    login.ok
      ? { ...edge, kind, verdict: 'ok', detail: `${edge.from} is let in as ${what}` }
      : {
          ...edge,
          kind,
          verdict: 'failed',
          detail: `${edge.from} is not let in as ${what}: ${login.said}`,
          remedy:
            'The managed block of pg_hba.conf or the pass file is not as it should be. PUT the description of the cluster mends both.',
        },
  ]
}

/** repmgr wants the same major and minor version of itself on all nodes, PostgreSQL the same major version. */
function judgeVersions(postgresVersion: number, there: readonly Answered[]): CheckResult[] {
  return [`postgresql-${postgresVersion}`, `postgresql-${postgresVersion}-repmgr`].flatMap((name): CheckResult[] => {
    const found = there.flatMap(({ node, packages }) =>
      packages[name] === undefined ? [] : [[node, packages[name]] as const],
    )
    if (found.length === 0) return []
    const versions = new Set(found.map(([, version]) => version))
    const list = found.map(([node, version]) => `${node} ${version}`).join(', ')
    if (versions.size === 1)
      return [{ kind: 'versions', verdict: 'ok', detail: `${name} ${found[0]?.[1]} on ${found.length} nodes` }]
    const series = new Set(found.map(([, version]) => /^\d+(?:\.\d+)?/.exec(version ?? '')?.[0]))
    const repmgr = name.endsWith('-repmgr')
    return [
      {
        kind: 'versions',
        verdict: repmgr && series.size > 1 ? 'failed' : 'warning',
        detail: `${name} differs: ${list}`,
        remedy: repmgr
          ? 'repmgr wants the same version on every node: upgrade those that are behind.'
          : 'Minor versions work together for a while: upgrade the standbys first, then the primary.',
      },
    ]
  })
}
