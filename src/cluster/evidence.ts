/** Plain facts from which a diagnosis was made. Pure. */
import { type Static, Type } from 'typebox'
import type { Cluster } from './model.js'
import { FailureReason, type Observation, type Probe } from './observation.js'
import { dataNodes, isWitness } from './topology.js'

export const Evidence = Type.Object(
  {
    node: Type.String({ description: 'The node whose server said it, or did not answer.' }),
    observed: Type.String({ description: 'What was observed there.' }),
    at: Type.String({ format: 'date-time', description: 'When, by the clock of this service.' }),
    reason: Type.Optional(FailureReason),
  },
  { additionalProperties: false, title: 'Evidence', description: 'A fact that the diagnosis rests on.' },
)
export type Evidence = Static<typeof Evidence>

/** One fact a node: what its server answered, or why it did not. */
export function answersOf(
  cluster: Cluster,
  probes: ReadonlyMap<string, Probe>,
  { identifier, now }: { identifier: string | undefined; now: string },
): Evidence[] {
  return cluster.nodes.map(node => {
    const probe = probes.get(node.name)
    if (!probe) return { node: node.name, observed: 'was not asked', at: now, reason: 'not_asked' }
    const { at } = probe
    if ('failure' in probe)
      return { node: node.name, observed: `does not answer: ${probe.failure.detail}`, at, reason: probe.failure.reason }
    return { node: node.name, observed: answered(cluster, isWitness(node), probe.observation, identifier), at }
  })
}

function answered(cluster: Cluster, witness: boolean, said: Observation, identifier: string | undefined): string {
  if (said.systemIdentifier !== identifier)
    return witness ? 'answers, as a server of its own' : `answers, and has system identifier ${said.systemIdentifier}`
  if (!said.inRecovery)
    return `accepts writes on timeline ${said.timeline}, and has written up to ${said.currentLsn ?? 'an unknown position'}`
  const received = said.receivedLsn === undefined ? 'nothing received by stream' : `received up to ${said.receivedLsn}`
  const replayed = said.replayedLsn === undefined ? 'nothing replayed' : `replayed up to ${said.replayedLsn}`
  return `is in recovery on timeline ${said.timeline}, ${received}, ${replayed}; ${receiverOf(cluster, said)}`
}

function receiverOf(cluster: Cluster, { receiver }: Observation): string {
  if (!receiver) return 'it has no WAL receiver'
  const source = dataNodes(cluster.nodes).find(({ host }) => host === receiver.upstreamHost)
  const from = source?.name ?? receiver.upstreamHost ?? 'nobody yet'
  const heard =
    receiver.lastMessageAgeMs === null
      ? 'has heard nothing yet'
      : `last heard from it ${receiver.lastMessageAgeMs} ms before`
  return `its WAL receiver is ${receiver.status}, from ${from}, and ${heard}`
}
