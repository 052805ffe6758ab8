/** What the contract shows as answers: one cluster, orders, and what happens to it. Typed, so that it cannot go stale. */
import type { Cluster, NodeSpec } from '../cluster/model.js'
import type { ClusterStatus } from '../cluster/status.js'
import type { Operation, PlanPreview, StepRecord } from '../operations/operation.js'
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

export const exampleStatus: ClusterStatus = {
  cluster: 'orders',
  primary: 'pg1',
  timeline: 1,
  systemIdentifier: '7575205301829416217',
  diagnosis: { code: 'healthy', detail: 'pg1 accepts writes and every standby follows.' },
  nodes: [
    {
      name: 'pg1',
      host: '192.0.2.11',
      role: 'primary',
      state: 'running',
      upstream: null,
      timeline: 1,
      lsn: '0/5000148',
      lagBytes: 0,
      lagMs: 0,
      syncState: null,
      slot: null,
      serverVersion: '15.18',
      startedAt: '2026-11-22T09:13:20.412Z',
      problem: null,
    },
    {
      name: 'pg2',
      host: '192.0.2.12',
      role: 'standby',
      state: 'streaming',
      upstream: 'pg1',
      timeline: 1,
      lsn: '0/5000148',
      lagBytes: 0,
      lagMs: 0,
      syncState: 'async',
      slot: { name: 'repmgr_slot_2', active: true, retainedBytes: 0 },
      serverVersion: '15.18',
      startedAt: '2026-11-22T09:14:31.077Z',
      problem: null,
    },
  ],
  observedAt: '2026-11-22T09:20:00.001Z',
  operation: null,
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
          progress: { doneBytes: 12_582_912, totalBytes: 31_457_280, percent: 40 },
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

export const examplePlan: PlanPreview = {
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

export function exampleProblem(code: ProblemCode): Problem {
  const { status, title, example } = PROBLEMS[code]
  const errors = VIOLATIONS[code]
  return {
    type: `/problems/${code}`,
    title,
    status,
    detail: example,
    instance: '/v1/clusters',
    requestId: '5f0c2c4e-6a51-4b0e-9d2e-0f8f0e6c1c57',
    ...(code === 'cluster-busy' || code === 'operation-failed' ? { operation: `/v1/operations/${ID}` } : {}),
    ...(errors ? { errors: [...errors] } : {}),
  }
}

const VIOLATIONS: { [C in ProblemCode]?: NonNullable<Problem['errors']> } = {
  'bad-request': [{ pointer: '/bootstap', detail: 'is not a field here' }],
  'cluster-exists': [{ pointer: '/postgresVersion', detail: 'is 15 there' }],
  inconsistent: [{ pointer: '/nodes/1/host', detail: '192.0.2.11 is also the host of nodes[0]; one node a host.' }],
  'host-key-unconfirmed': [
    { pointer: '/nodes/0/ssh/hostKey', detail: `pg1 (192.0.2.11) offers ssh-ed25519 ${KEYS.pg1}` },
  ],
}
