/** The work bench of an operation: the cluster, its hosts, what was found on them, and how to ask its servers. */
import type { Authority } from '../src/certificates/authority.js'
import type { FenceHook } from '../src/cluster/fence-hook.js'
import type { Handover } from '../src/cluster/handover.js'
import type { Cluster, ClusterNode } from '../src/cluster/model.js'
import type { OperationInputs } from '../src/cluster/operation-inputs.js'
import { hasTls, type Trust } from '../src/cluster/tls.js'
import { isWitness } from '../src/cluster/topology.js'
import {
  AuthenticationFailed,
  CommandTimedOut,
  ConnectionLost,
  HostKeyMismatch,
  HostUnreachable,
} from '../src/host/errors.js'
import { type HardwareFacts, readHardware } from '../src/host/hardware.js'
import type { Host, HostPool } from '../src/host/host.js'
import { type PackagesOnHost, packageManagerOf, type UpgradesOnHost } from '../src/host/package-manager.js'
import { readSystemFacts, type SystemFacts } from '../src/host/system.js'
import { OperationError } from '../src/operations/errors.js'
import type { OperationType } from '../src/operations/operation.js'
import type { Plan } from '../src/operations/step.js'
import { type Query, type QueryOptions, withServer } from '../src/postgres/connect.js'
import { inspectServer, type ServerState } from '../src/postgres/inspect.js'
import { debianLayout, type Layout } from '../src/postgres/layout.js'
import { tlsFiles } from '../src/postgres/tls.js'
import type { StoreVote } from '../src/store/voter.js'

export interface SurveyOptions {
  /** A host that has not answered everything by then is away. */
  surveyMs?: number | undefined
  /** What is looked at beside the servers: for an operation that neither installs nor configures anything, nothing. */
  surveys?: 'everything' | 'servers' | undefined
}

/** To ask for what was not looked at is a fault of ours: a TypeError. */
export interface Survey {
  system: SystemFacts
  /** Its disks: that of the data directory, that of the WAL. */
  hardware: HardwareFacts
  packages: PackagesOnHost
  server: ServerState
}

/** What it takes to make TLS, and to go through it. */
export interface BenchTls {
  /** How this service connects meanwhile. */
  trust: Trust
  /** PEM by which the servers are verified once the cluster is as the operation is to leave it. Undefined without TLS. */
  ca?: string
  /** Where it is the service's own. Its key is never shown, never an argument. */
  authority?: Authority
}

/** Where the other nodes, and repmgr, find a server. */
export interface NodeAddress {
  host: string
  port: number
  /** By TLS, and the server must have a certificate of this authority: a path on every node. */
  rootCertificate?: string
}

/** What is read and written of the store while an operation runs. */
export interface Ledger {
  /** The record of the cluster as it is now. */
  read(): Promise<Cluster | undefined>
  update(change: (cluster: Cluster) => Cluster): Promise<Cluster>
  /** Whether the store may vote on who is the primary. */
  vote(): Promise<StoreVote>
  /** For how long this worker still has its operation. */
  leaseLeftMs(operationId: string, epoch: number): Promise<number>
}

export interface Bench {
  readonly cluster: Cluster
  readonly layout: Layout
  /** Of the operation that this is the bench of; a dry run has none. */
  readonly operationId?: string
  /** Writes into the cluster's record how far the operation has come; a dry run has nothing to write. */
  keepHandover?(change: (handover: Handover) => Handover): Promise<void>
  /** Of the role repmgr. Never shown, never an argument. */
  readonly password: string
  readonly tls: BenchTls
  /** Of an upgrade: what each host that answers has of the packages, and what its sources have. */
  readonly upgrades?: ReadonlyMap<string, UpgradesOnHost>
  host(node: ClusterNode): Host
  found(node: ClusterNode): Survey
  /** Nodes that did not answer and that the operation can do without, with the reason. */
  readonly absent: ReadonlyMap<string, string>
  /** Addresses under which the hosts see this service, and those that its settings name. */
  readonly controllers: readonly string[]
  /** Of these, what a host has seen: recorded, because another worker may be seen under another one. */
  readonly seenControllers: readonly string[]
  /** Looks at the host again: checks do, because the survey is from before the first step. */
  inspect(node: ClusterNode, signal: AbortSignal): Promise<ServerState>
  /** Of an operation, and of a dry run of one. */
  readonly ledger?: Ledger
  /** Who can cut a host off where SSH does not reach it. */
  readonly fenceHook?: FenceHook
  /** The plan of another operation, by what is found on the hosts now: for a step that is one. */
  nested?<T extends OperationType>(type: T, input: OperationInputs[T], signal: AbortSignal): Promise<Plan>
  /** Over the network as repmgr, in its database. */
  ask<T>(node: ClusterNode, options: Partial<QueryOptions>, work: (query: Query) => Promise<T>): Promise<T>
}

/** Thrown when a host runs something that provisioning does not know. */
export class SystemUnsupported extends OperationError {
  constructor(node: string, osName: string) {
    super(`${node} runs ${osName}, which cannot be provisioned.`, {
      code: 'system-unsupported',
      outcome: 'not_started',
      remedy: 'Debian and Ubuntu with systemd are supported so far.',
    })
  }
}

/** Thrown when several hosts could not be surveyed; a single one's own error is thrown as it is. */
export class HostsNotReady extends OperationError {
  constructor(failures: readonly { node: string; error: OperationError }[]) {
    super(failures.map(({ node, error }) => `${node}: ${error.message}`).join(' '), {
      code: failures[0]?.error.code ?? 'hosts-not-ready',
      outcome: 'not_started',
      remedy: [...new Set(failures.map(({ error }) => error.remedy))].join(' '),
    })
  }
}

/** Whether the host that was meant did not answer: nothing does, not any more, or another one does in its place. */
const isAway = (error: OperationError) =>
  [HostUnreachable, HostKeyMismatch, AuthenticationFailed, CommandTimedOut, ConnectionLost].some(
    kind => error instanceof kind,
  )

/**
 * Looks at every host, side by side and changing nothing. Throws before anything is planned when one is not fit, unless
 * it only does not answer and `mayBeAbsent` says that the operation can do without it.
 */
export async function openBench(
  cluster: Cluster,
  password: string,
  pool: HostPool,
  mayBeAbsent: (node: ClusterNode) => boolean,
  signal: AbortSignal,
  tls: BenchTls,
  configuredControllers: readonly string[] = [],
  { surveyMs, surveys = 'everything' }: SurveyOptions = {},
): Promise<Bench> {
  const layout = debianLayout(cluster.postgresVersion)
  const hosts = new Map(
    cluster.nodes.map(node => [
      node.name,
      pool.host({ host: node.host, port: node.ssh.port, user: node.ssh.user, hostKey: node.ssh.hostKey }),
    ]),
  )
  const host = (node: ClusterNode) => {
    const found = hosts.get(node.name)
    if (!found) throw new TypeError(`no host for node ${node.name}`)
    return found
  }
  const inspect = async (node: ClusterNode, abort: AbortSignal) =>
    takenOver(cluster, node, await inspectServer(host(node), layout, cluster.port, { signal: abort }))
  const survey = async (node: ClusterNode): Promise<Survey> => {
    const disks = [layout.dataDirectory, `${layout.dataDirectory}/pg_wal`]
    const whole = surveys === 'everything'
    // Asked at once, and heard in this order, so that the first thing that is wrong is what is told.
    const server = inspect(node, signal)
    const disk = whole ? readHardware(host(node), disks, { signal }) : undefined
    for (const answer of [disk, server]) answer?.catch(() => undefined)
    const system = await readSystemFacts(host(node), { signal })
    const packageManager = packageManagerOf(system)
    if (!packageManager || !system.systemd) throw new SystemUnsupported(node.name, system.osName)
    const hardware = await disk
    const packages = whole ? await packageManager.inspect(host(node), layout.packages, { signal }) : undefined
    const looked = <T>(what: string, found: T | undefined): T => {
      if (found === undefined) throw new TypeError(`the ${what} of ${node.name} was not looked at`)
      return found
    }
    return {
      system,
      server: await server,
      get hardware() {
        return looked('hardware', hardware)
      },
      get packages() {
        return looked('packages', packages)
      },
    }
  }
  const looks = await Promise.allSettled(
    cluster.nodes.map(node => (surveyMs === undefined ? survey(node) : within(surveyMs, node, survey(node)))),
  )
  const absent = new Map<string, string>()
  const failures = looks.flatMap((result, index) => {
    const node = cluster.nodes[index]
    if (result.status === 'fulfilled' || !node) return []
    // Not an answer of a host but a fault of ours: it must not be dressed up as one.
    if (!(result.reason instanceof OperationError)) throw result.reason
    if (isAway(result.reason) && mayBeAbsent(node)) {
      absent.set(node.name, result.reason.message)
      return []
    }
    return [{ node: node.name, error: result.reason }]
  })
  const [first, second] = failures
  if (first) throw second ? new HostsNotReady(failures) : first.error
  const byNode = new Map(
    looks.flatMap((result, index) =>
      result.status === 'fulfilled' ? [[cluster.nodes[index]?.name ?? '', result.value] as const] : [],
    ),
  )
  const found = (node: ClusterNode) => {
    const survey = byNode.get(node.name)
    if (!survey) throw new TypeError(`no survey of node ${node.name}`)
    return survey
  }
  const seenControllers = [
    ...(cluster.controllers ?? []),
    ...[...byNode.values()].map(({ system }) => system.controllerAddress),
  ]
  return {
    cluster,
    layout,
    password,
    tls,
    host,
    found,
    absent,
    inspect,
    controllers: [...seenControllers, ...configuredControllers],
    seenControllers,
    ask: askAs(cluster, password, tls.trust),
  }
}

/** Who gives up waiting leaves the question to its own limit: it changes nothing. */
async function within<T>(limitMs: number, { host, ssh }: ClusterNode, answer: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const overdue = new Promise<never>((_, reject) => {
    const late = () => reject(new HostUnreachable({ host, port: ssh.port }, `no answer within ${limitMs} ms`))
    timer = setTimeout(late, limitMs)
  })
  try {
    return await Promise.race([answer, overdue])
  } finally {
    clearTimeout(timer)
    answer.catch(() => undefined)
  }
}

/**
 * The bench as a worker has it, for a process that is none: only a worker's address is written to the hosts, so the one that
 * they see this process under is not among those that should be there.
 */
export const withoutOwnAddress = (bench: Bench, configuredControllers: readonly string[]): Bench => {
  const seenControllers = bench.cluster.controllers ?? []
  return { ...bench, seenControllers, controllers: [...seenControllers, ...configuredControllers] }
}

/** A node as the others are to connect to it. */
export const addressOf = (cluster: Cluster, layout: Layout, { host }: Pick<ClusterNode, 'host'>): NodeAddress => ({
  host,
  port: cluster.port,
  ...(hasTls(cluster) ? { rootCertificate: tlsFiles(layout).ca } : {}),
})

export const askAs =
  (cluster: Cluster, password: string, trust: Trust): Bench['ask'] =>
  (node, options, work) =>
    withServer(
      { host: node.host, port: cluster.port, trust },
      { user: 'repmgr', database: 'repmgr', password },
      { timeoutMs: 5000, ...options },
      work,
    )

/**
 * A server that was adopted has no mark until the first operation leaves one. It is ours all the same, and in use, as
 * long as it is the very database that was adopted; a witness has one of its own. Its repmgr.conf is another one's until an operation writes ours.
 */
export function takenOver(cluster: Cluster, node: ClusterNode, state: ServerState): ServerState {
  if (node.adopted !== true) return state
  const { marker } = state
  if (marker) {
    const own = marker.cluster === cluster.name && marker.node === node.name
    return own ? { ...state, foreignRepmgrConf: false } : state
  }
  const identifier = isWitness(node) ? node.systemIdentifier : cluster.systemIdentifier
  if (state.directory !== 'database' || identifier === undefined || state.systemIdentifier !== identifier) return state
  return {
    ...state,
    marker: { cluster: cluster.name, node: node.name, state: 'in-use' },
    unmarked: true,
    untouched: false,
    foreignRepmgrConf: false,
  }
}
