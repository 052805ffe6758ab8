/** repmgr.nodes of every server beside what the servers are: where they differ, and on which server. Pure. */
import type { Finding } from './diagnosis.js'
import { lagBytes, parseLsn } from './lsn.js'
import { describeMetadata, type Facts, type NodeMetadata } from './metadata.js'
import type { View } from './node-row.js'
import type { Probe } from './observation.js'
import type { NodeStatus } from './status.js'

/** A standby has the primary's rows a moment later: only what stays wrong for so long is wrong. */
const MOMENT_MS = 5000

const REMEDY = 'A standby gets the rows of the primary by replaying; what is wrong on the primary is put right by'

type Row = Omit<NodeStatus, 'metadata'>

export interface ToldMetadata {
  nodes: ReadonlyMap<string, { metadata: NodeMetadata | null; problem?: string }>
  findings: Finding[]
}

export function metadataOfNodes(view: View, rows: readonly Row[], probes: ReadonlyMap<string, Probe>): ToldMetadata {
  const facts = factsOf(rows, view.primary?.name)
  const nodes = new Map<string, { metadata: NodeMetadata | null; problem?: string }>()
  const problems: Finding[] = []
  for (const { name, role } of rows) {
    const probe = probes.get(name)
    if (role === 'unknown' || !probe || !('observation' in probe) || !probe.metadata) continue
    if ('failure' in probe.metadata) {
      const problem = `repmgr.nodes cannot be read there: ${probe.metadata.failure}`
      nodes.set(name, { metadata: null, problem })
      problems.push({
        code: 'metadata_drift',
        detail: `repmgr.nodes cannot be read on ${name}: ${probe.metadata.failure}`,
        evidence: [{ node: name, observed: `repmgr.nodes: ${probe.metadata.failure}` }],
      })
      continue
    }
    nodes.set(name, { metadata: describeMetadata(view.cluster, probe.metadata.rows, facts) })
  }
  const onPrimary = (view.primary && nodes.get(view.primary.name)?.metadata?.disagreements) ?? []
  // Several servers mostly have the same wrong row, and it is told once.
  const told = new Map<string, string[]>()
  for (const row of rows) {
    const late = isLate(view, row)
    for (const words of nodes.get(row.name)?.metadata?.disagreements ?? []) {
      if (late && !onPrimary.includes(words)) continue
      told.set(words, [...(told.get(words) ?? []), row.name])
    }
  }
  const drift = [...told].map(
    ([words, on]): Finding => ({
      code: 'metadata_drift',
      detail: `repmgr.nodes on ${on.join(', ')} ${words}.`,
      evidence: on.map(node => ({ node, observed: `repmgr.nodes ${words}` })),
    }),
  )
  const remedy: Finding[] =
    drift.length === 0 ? [] : [{ code: 'metadata_drift', detail: `${REMEDY} PUT /v1/clusters/${view.cluster.name}.` }]
  return { nodes, findings: [...problems, ...drift, ...remedy] }
}

function factsOf(rows: readonly Row[], primary: string | undefined): Facts {
  const roles: [string, 'primary' | 'standby' | 'witness'][] = []
  const upstreams: [string, string][] = []
  for (const { name, role, state, upstream } of rows) {
    if (state === 'unreachable' || role === 'unknown') continue
    roles.push([name, role])
    if (role === 'standby' && upstream !== null && state !== 'detached') upstreams.push([name, upstream])
  }
  return { roles: new Map(roles), upstreams: new Map(upstreams), primary }
}

/** Whether it has simply not replayed yet what the primary has; a delayed one may take its time. */
function isLate({ ours, primary }: View, { name, role, replayedLsn, lagMs, applyDelayMs }: Row): boolean {
  const head = primary && ours(primary.name)?.currentLsn
  if (role !== 'standby' || name === primary?.name || !head || replayedLsn === null || lagMs === null) return false
  return lagBytes(parseLsn(head), parseLsn(replayedLsn)) > 0 && lagMs <= MOMENT_MS + (applyDelayMs ?? 0)
}
