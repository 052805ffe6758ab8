/** What the contract shows as answers: one cluster, orders, and what happens to it. Typed, so that it cannot go stale. */

import type { Access } from '../cluster/access.js'
import type { Adoption } from '../cluster/adoption.js'
import type { Checks } from '../cluster/checks.js'
import type { Drift } from '../cluster/drift.js'
import type { Cluster, NodeSpec } from '../cluster/model.js'
import type { Pause } from '../cluster/pause.js'
import type { Readiness } from '../cluster/readiness.js'
import type { SettingsReport } from '../cluster/settings-report.js'
import type { ClusterStatus, NodeStatus } from '../cluster/status.js'
import type { Operation, PlanPreview, StepRecord } from '../operations/operation.js'
import type { AuditEvent } from '../store/event.js'
import type { OperationEvent } from '../store/operations.js'
import { PROBLEMS, type Problem, type ProblemCode } from './problems.js'

const KEYS = {
  pg1: 'SHA256:kL4Sd0mNsCXzAVEoGUfOTlZeIkoQbBFNrHqJCrW9yZQ',
  pg2: 'SHA256:0cJcDkqtXqLLQm4vC5e9j3Z4aV9zW2h5aX8oLwq2YhE',
  pg3: 'SHA256:Zp1yq3m0WqUuG2qk5tS4y7nRr1dXb9c8VfHj6LwTaMs',
} as const
const ID = 'op_01KAR3QJ7ZC0V7W0M2E9T1X5YB'

export const exampleNode = (name: keyof typeof KEYS): NodeSpec => ({
  name,
  host: `192.0.2.1${name.slice(-1)}`,
  ssh: { user: 'admin', hostKey: KEYS[name] },
})

export const exampleSpec = { name: 'orders', postgresVersion: 15, nodes: [exampleNode('pg1'), exampleNode('pg2')] }

export const exampleAccess: Access = [
  { address: '10.1.0.0/16', databases: ['orders'], users: ['app'] },
  { address: 'backup.example.net', users: ['barman'], replication: true },
]

/** One that was made for this example; nobody has its key. */
export const EXAMPLE_CA = `-----BEGIN CERTIFICATE-----
MIIBqDCCAU6gAwIBAgIQUh+SiOm8dHcozx4t9CHlBTAKBggqhkjOPQQDAjAiMSAw
HgYDVQQDExdVbmRlcnN0dWR5IENBIG9mIG9yZGVyczAeFw0yNjExMjIwODEyMDNa
Fw00NjExMTcwOTEyMDNaMCIxIDAeBgNVBAMTF1VuZGVyc3R1ZHkgQ0Egb2Ygb3Jk
ZXJzMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEeVLjew8jdpTVeBTe6auwWMRA
xuzw01I/zoOfoo/ihFT19yjDkePouvCv7NwBPjabGdOzHF/keCZ8zAp7zyvnyKNm
MGQwEgYDVR0TAQH/BAgwBgEB/wIBADAOBgNVHQ8BAf8EBAMCAQYwHQYDVR0OBBYE
FPmrH1nUC7udDGaoBU1gB9TOwJHNMB8GA1UdIwQYMBaAFPmrH1nUC7udDGaoBU1g
B9TOwJHNMAoGCCqGSM49BAMCA0gAMEUCICzPDlXiyHwrJWztT8qMh4b5AnoXMgEG
7jnVFIZSGMzHAiEAo2PhkOR4Ix/xcmtVRRMxOC826kXilYS25F5UpGAAWsM=
-----END CERTIFICATE-----
`

export const exampleNewCluster: Cluster = {
  name: 'orders',
  postgresVersion: 15,
  port: 5432,
  nodes: (['pg1', 'pg2'] as const).map((name, index) => ({
    name,
    nodeId: index + 1,
    host: exampleNode(name).host,
    ssh: { user: 'admin', port: 22, hostKey: KEYS[name] },
  })),
  nextNodeId: 3,
  createdAt: '2026-11-22T09:12:03.120Z',
  version: 1,
}

export const exampleCluster: Cluster = {
  ...exampleNewCluster,
  nodes: exampleNewCluster.nodes.map(node => ({ ...node, joinedAt: '2026-11-22T09:14:51.204Z' })),
  systemIdentifier: '7575205301829416217',
  builtAt: '2026-11-22T09:14:51.204Z',
  version: 2,
}

const OBSERVED = '2026-11-22T09:20:00.001Z'

const exampleMetadata: NonNullable<NodeStatus['metadata']> = {
  rows: (['pg1', 'pg2'] as const).map((name, index) => ({
    nodeId: index + 1,
    name,
    type: index === 0 ? 'primary' : 'standby',
    active: true,
    upstream: index === 0 ? null : 'pg1',
    host: exampleNode(name).host,
    port: 5432,
    priority: 100,
    location: 'default',
  })),
  disagreements: [],
}

const exampleSlot: NonNullable<NodeStatus['slot']> = {
  name: 'repmgr_slot_2',
  active: true,
  retainedBytes: 0,
  walStatus: 'reserved',
  safeWalBytes: 10_804_527_800,
}

export const exampleStatus: ClusterStatus = {
  cluster: 'orders',
  primary: 'pg1',
  timeline: 1,
  systemIdentifier: '7575205301829416217',
  diagnosis: {
    code: 'healthy',
    detail: 'pg1 accepts writes and every standby follows.',
    evidence: [
      { node: 'pg1', observed: 'accepts writes on timeline 1, and has written up to 0/5000148', at: OBSERVED },
      {
        node: 'pg2',
        observed:
          'is in recovery on timeline 1, received up to 0/5000148, replayed up to 0/5000148; its WAL receiver is streaming, from pg1, and last heard from it 212 ms before',
        at: OBSERVED,
      },
    ],
  },
  nodes: [
    {
      name: 'pg1',
      nodeId: 1,
      host: '192.0.2.11',
      location: 'default',
      priority: 100,
      role: 'primary',
      state: 'running',
      failure: null,
      upstream: null,
      receiver: null,
      timeline: 1,
      lsn: '0/5000148',
      writtenLsn: '0/5000148',
      receivedLsn: null,
      replayedLsn: null,
      lagBytes: 0,
      lagMs: 0,
      syncState: null,
      slot: null,
      slots: [
        {
          ...exampleSlot,
          kind: 'physical',
          temporary: false,
          database: null,
          node: 'pg2',
          usedBy: 'pg2',
          orphan: false,
        },
      ],
      applyDelayMs: null,
      conflicts: null,
      metadata: exampleMetadata,
      serverVersion: '15.18',
      startedAt: '2026-11-22T09:13:20.412Z',
      problem: null,
    },
    {
      name: 'pg2',
      nodeId: 2,
      host: '192.0.2.12',
      location: 'default',
      priority: 100,
      role: 'standby',
      state: 'streaming',
      failure: null,
      upstream: 'pg1',
      receiver: {
        status: 'streaming',
        upstreamHost: '192.0.2.11',
        slot: 'repmgr_slot_2',
        lastMessageAgeMs: 212,
      },
      timeline: 1,
      lsn: '0/5000148',
      writtenLsn: null,
      receivedLsn: '0/5000148',
      replayedLsn: '0/5000148',
      lagBytes: 0,
      lagMs: 0,
      syncState: 'async',
      slot: exampleSlot,
      slots: [],
      applyDelayMs: null,
      conflicts: { total: 0, tablespace: 0, lock: 0, snapshot: 0, bufferPin: 0, deadlock: 0, logicalSlot: 0 },
      metadata: exampleMetadata,
      serverVersion: '15.18',
      startedAt: '2026-11-22T09:14:31.077Z',
      problem: null,
    },
  ],
  archive: null,
  observedAt: OBSERVED,
  operation: null,
  pause: null,
}

export const examplePause: Pause = {
  since: '2026-11-22T09:20:00.001Z',
  by: 'alice',
  reason: 'new disks in pg1',
  until: '2026-11-22T11:20:00.001Z',
  reference: 'CHG-4711',
}

const STEPS: StepRecord[] = [
  {
    id: 'pg1/packages',
    title: 'install PostgreSQL 15 and repmgr',
    stage: 'prepare the hosts',
    node: 'pg1',
    kind: 'change',
    state: 'changed',
    startedAt: '2026-11-22T09:12:04.310Z',
    endedAt: '2026-11-22T09:12:41.902Z',
  },
  {
    id: 'pg2/clone',
    title: 'clone pg1 to /var/lib/postgresql/15/main',
    stage: 'make the standbys',
    node: 'pg2',
    kind: 'change',
    state: 'changed',
    startedAt: '2026-11-22T09:13:41.550Z',
    endedAt: '2026-11-22T09:14:29.018Z',
    progress: { doneBytes: 31_457_280, totalBytes: 31_457_280, percent: 100 },
  },
  {
    id: 'proof',
    title: 'write on pg1, read on pg2',
    stage: 'prove it',
    kind: 'verify',
    state: 'verified',
    startedAt: '2026-11-22T09:14:50.933Z',
    endedAt: '2026-11-22T09:14:51.180Z',
  },
]

const QUEUED: Operation = {
  id: ID,
  type: 'bootstrap-cluster',
  cluster: 'orders',
  state: 'queued',
  requestedBy: 'admin',
  createdAt: '2026-11-22T09:12:03.128Z',
  turns: 0,
  steps: [],
}

export function exampleOperation(state: 'queued' | 'running' | 'succeeded' | 'failed'): Operation {
  if (state === 'queued') return QUEUED
  const started: Operation = { ...QUEUED, state, startedAt: '2026-11-22T09:12:03.305Z', turns: 1, steps: STEPS }
  const running = STEPS.map((step, index): StepRecord => {
    if (index === 0) return step
    const { startedAt, endedAt: _endedAt, progress: _progress, ...rest } = step
    if (index > 1) return { ...rest, state: state === 'failed' ? 'not_reached' : 'pending' }
    return state === 'failed'
      ? { ...step, state: 'failed', progress: { doneBytes: 12_582_912, totalBytes: 31_457_280, percent: 40 } }
      : {
          ...rest,
          ...(startedAt === undefined ? {} : { startedAt }),
          state: 'running',
          progress: {
            doneBytes: 12_582_912,
            totalBytes: 31_457_280,
            percent: 40,
            rateBytesPerSecond: 1_048_576,
            remainingSeconds: 18,
          },
        }
  })
  switch (state) {
    case 'running':
      return { ...started, steps: running }
    case 'succeeded':
      return {
        ...started,
        endedAt: '2026-11-22T09:14:51.204Z',
        result: {
          summary: '2 steps changed something, 0 were done already, 1 proofs held.',
          changedSteps: 2,
          unchangedSteps: 0,
          verifiedSteps: 1,
        },
      }
    case 'failed':
      return {
        ...started,
        endedAt: '2026-11-22T09:14:29.018Z',
        steps: running,
        error: {
          code: 'host-unreachable',
          detail: 'admin@192.0.2.12:22 cannot be reached over SSH: no answer within 5000 ms.',
          outcome: 'not_started',
          remedy:
            'Check that 192.0.2.12 is up, that sshd listens on port 22, and that no firewall is in between. Then retry.',
          step: 'pg2/clone',
          node: 'pg2',
        },
      }
  }
}

/** One step on one node, just asked for. */
export const exampleStepOperation = (type: Operation['type']): Operation => ({ ...QUEUED, type, node: 'pg2' })

const { node: _node, ...ofTheCluster } = exampleStepOperation('switchover')
export const exampleSwitchover: Operation = ofTheCluster
export const exampleRestart: Operation = { ...ofTheCluster, type: 'restart-cluster' }
export const exampleUpgrade: Operation = { ...ofTheCluster, type: 'upgrade-cluster' }
export const exampleDrill: Operation = { ...ofTheCluster, type: 'drill' }

const { node: _promoted, ...promotionOfTheCluster } = exampleStepOperation('promote')
export const examplePromotion: Operation = promotionOfTheCluster

const ASKED = { at: '2026-11-22T09:14:02.480Z', by: 'admin', reference: 'CHG-4711' }

/** Its worker has not ended it yet. */
export const exampleCancelling: Operation = { ...exampleOperation('running'), cancelRequest: ASKED }

export const exampleCancelled: Operation = {
  ...exampleOperation('failed'),
  state: 'cancelled',
  cancelRequest: ASKED,
  error: {
    code: 'cancelled',
    detail: 'It was cancelled by admin (CHG-4711).',
    outcome: 'failed_partial',
    remedy: 'Nothing more was started. Retry the operation to go on from the step that it stopped at.',
    step: 'pg2/clone',
    node: 'pg2',
  },
}

const { endedAt: _ended, error: _error, ...untilThen } = exampleOperation('failed')
export const exampleRetried: Operation = { ...untilThen, state: 'queued', retries: 1, lastRetry: ASKED }

export const exampleNodeDetail = {
  cluster: 'orders',
  record: { name: 'pg2', nodeId: 2, host: '192.0.2.12', ssh: { user: 'admin', port: 22, hostKey: KEYS.pg2 } },
  status: rowOf('pg2'),
  observedAt: exampleStatus.observedAt,
}

export const exampleForgotten = {
  cluster: 'orders',
  forgotten: true,
  remains: (['pg1', 'pg2'] as const).map(name => ({
    node: name,
    host: exampleNode(name).host,
    what: 'PostgreSQL 15/main on port 5432, running or not, with its data, /etc/repmgr.conf, the managed block of pg_hba.conf and .pgpass, and /var/lib/understudy.',
  })),
}

function rowOf(name: string) {
  const row = exampleStatus.nodes.find(one => one.name === name)
  if (!row) throw new TypeError(`the example has no ${name}`)
  return row
}

export const examplePlan: PlanPreview = {
  planId: 'plan_5f1c0b8d2e7a4496_9c1185a5c5e9fc54612808977ee8f548_x3Qa0-',
  operation: 'bootstrap-cluster',
  cluster: 'orders',
  steps: [
    {
      id: 'pg1/packages',
      title: 'install PostgreSQL 15 and repmgr',
      stage: 'prepare the hosts',
      node: 'pg1',
      kind: 'change',
      verdict: 'would_run',
      reason: 'postgresql-15, postgresql-15-repmgr are missing',
      actions: [{ kind: 'command', text: 'apt-get install -y postgresql-15 postgresql-15-repmgr' }],
    },
    {
      id: 'proof',
      title: 'write on pg1, read on pg2',
      stage: 'prove it',
      kind: 'verify',
      verdict: 'would_verify',
      actions: [{ kind: 'sql', text: 'select pg_current_wal_lsn()' }],
    },
  ],
  stepsThatWouldRun: 1,
}

export const exampleAdoption: Adoption = {
  cluster: {
    ...exampleNewCluster,
    systemIdentifier: '7443829501823984625',
    nodes: exampleNewCluster.nodes.map(node => ({ ...node, adopted: true })),
  },
  ready: false,
  missing: ['The password of the role repmgr is not known.'],
  next: 'PUT /v1/clusters/orders with its description lets the service in and brings what it manages into place; with ?dryRun=true it shows every step first.',
}

export const exampleChecks: Checks = {
  cluster: 'orders',
  verdict: 'failed',
  items: [
    {
      kind: 'server',
      to: 'pg2',
      verdict: 'failed',
      detail: 'PostgreSQL on pg2 does not run',
      remedy:
        'Its log says why it ended. POST /v1/clusters/orders/nodes/pg2/start starts it; where another node has become the primary since, POST /v1/clusters/orders/nodes/pg2/rejoin brings it back as a standby.',
    },
    {
      kind: 'port',
      from: 'pg1',
      to: 'pg2',
      verdict: 'failed',
      detail: 'the PostgreSQL port does not answer within 3 s',
      remedy: 'Look for a firewall between pg1 and pg2.',
    },
    { kind: 'ssh', to: 'pg1', verdict: 'ok', detail: 'logged in, became root, and was answered in 12 ms' },
  ],
  observedAt: '2026-11-23T07:12:44.000Z',
}

export const exampleReadiness: Readiness = {
  cluster: 'orders',
  ready: false,
  primary: 'pg1',
  successor: 'pg2',
  expectedLossBytes: 0,
  fence: { method: 'ssh', detail: 'pg1 would be ended over SSH, and marked as a standby before that.' },
  votes: { needed: 2, of: 3, available: ['pg2', 'pg3', 'the store'], missing: [] },
  candidates: [
    {
      node: 'pg2',
      fit: true,
      rank: 1,
      lsn: '0/5000148',
      behindBytes: 0,
      why: 'It would take over: 0 bytes behind, priority 100.',
    },
    {
      node: 'pg3',
      fit: false,
      rank: null,
      lsn: '0/4FFF2A0',
      behindBytes: 3752,
      why: 'It does not replay: it is paused.',
    },
  ],
  obstacles: [
    {
      node: 'pg3',
      detail: 'pg3 does not replay: it is paused.',
      remedy: 'On pg3: SELECT pg_wal_replay_resume().',
    },
  ],
  observedAt: '2026-11-25T03:12:44.000Z',
}

export const exampleDrift: Drift = {
  cluster: 'orders',
  inSync: false,
  items: [
    {
      kind: 'changed',
      node: 'pg2',
      step: 'pg2/access',
      detail:
        '"let the nodes and the service in, by password (SCRAM) only" is not so: /etc/postgresql/15/main/pg_hba.conf is missing or different.',
      remedy: 'PUT the description of the cluster puts it right; with ?dryRun=true it shows how.',
    },
  ],
  checkedSteps: 21,
  observedAt: '2026-11-23T07:12:44.000Z',
}

export const exampleEvents: OperationEvent[] = [
  { id: '1795338723128-0', type: 'state', data: { state: 'queued' } },
  { id: '1795338723305-0', type: 'state', data: { state: 'running' } },
  { id: '1795338724310-0', type: 'step', data: { id: 'pg1/packages', state: 'running' } },
  { id: '1795338724402-0', type: 'log', data: { step: 'pg1/packages', line: 'Setting up postgresql-15 ...' } },
  { id: '1795338761902-0', type: 'step', data: { id: 'pg1/packages', state: 'changed' } },
  {
    id: '1795338891204-0',
    type: 'state',
    data: { state: 'succeeded', result: exampleOperation('succeeded').result },
  },
]

const WHO = { name: 'admin', tokenId: '01kar3p5r4qb6bmd2n3e4g5h6j', address: '192.0.2.1' }
const ABOUT = { cluster: 'orders', operation: ID, operationType: 'bootstrap-cluster', who: WHO } as const

export const exampleAuditEvents: AuditEvent[] = [
  {
    id: '1795338723120-0',
    time: '2026-11-22T09:12:03.120Z',
    type: 'cluster-described',
    cluster: 'orders',
    who: WHO,
    summary: 'orders was described.',
  },
  {
    id: '1795338723128-0',
    time: '2026-11-22T09:12:03.128Z',
    type: 'operation-created',
    ...ABOUT,
    summary: 'bootstrap-cluster of orders was asked for.',
  },
  {
    id: '1795338891204-0',
    time: '2026-11-22T09:14:51.204Z',
    type: 'operation-succeeded',
    ...ABOUT,
    summary: 'bootstrap-cluster of orders succeeded: 2 steps changed something, 0 were done already, 1 proofs held.',
    ...(exampleOperation('succeeded').result ? { result: exampleOperation('succeeded').result } : {}),
  },
]

const WITH_OPERATION = new Set<ProblemCode>([
  'cluster-busy',
  'operation-failed',
  'cancelled',
  'operation-ended',
  'not-retryable',
  'retry-outdated',
])

export function exampleProblem(code: ProblemCode): Problem {
  const { status, title, example } = PROBLEMS[code]
  const errors = VIOLATIONS[code]
  const outcome = OUTCOMES[code]
  return {
    type: `/problems/${code}`,
    title,
    status,
    detail: example,
    instance: '/v1/clusters',
    requestId: '5f0c2c4e-6a51-4b0e-9d2e-0f8f0e6c1c57',
    ...(WITH_OPERATION.has(code) ? { operation: `/v1/operations/${ID}` } : {}),
    ...(outcome === undefined ? {} : { outcome }),
    ...(errors ? { errors: [...errors] } : {}),
  }
}

const OUTCOMES: { [C in ProblemCode]?: NonNullable<Problem['outcome']> } = {
  'operation-refused': 'not_started',
  'operation-failed': 'failed_partial',
  cancelled: 'failed_clean',
}

const VIOLATIONS: { [C in ProblemCode]?: NonNullable<Problem['errors']> } = {
  'bad-request': [{ pointer: '/bootstap', detail: 'is not a field here' }],
  'cluster-exists': [{ pointer: '/postgresVersion', detail: 'is 15 there' }],
  inconsistent: [{ pointer: '/nodes/1/host', detail: '192.0.2.11 is also the host of nodes[0]; one node a host.' }],
  'host-key-unconfirmed': [
    { pointer: '/nodes/0/ssh/hostKey', detail: `pg1 (192.0.2.11) offers ssh-ed25519 ${KEYS.pg1}` },
  ],
}

const settingsOfNode = (node: string): SettingsReport['nodes'][number] => ({
  node,
  pendingRestart: ['max_connections'],
  settings: [
    {
      name: 'max_connections',
      inEffect: '200',
      wanted: 300,
      computed: 200,
      source: 'cluster',
      pendingRestart: true,
    },
    {
      name: 'shared_buffers',
      inEffect: '2GB',
      wanted: '2GB',
      computed: '2GB',
      source: 'computed',
      because: 'a quarter of 8GB of RAM',
      pendingRestart: false,
    },
    {
      name: 'work_mem',
      inEffect: '64MB',
      wanted: '64MB',
      computed: '9984kB',
      source: 'cluster',
      pendingRestart: false,
    },
  ],
})

export const exampleSettings: SettingsReport = {
  cluster: 'orders',
  workload: 'web',
  nodes: [settingsOfNode('pg1'), settingsOfNode('pg2')],
  observedAt: '2026-11-22T09:20:00.001Z',
}
