/**
 * No server that answers accepts writes: what can be said of the one that should. Only from what servers answered by SQL, so
 * that a crash and a stop look the same here: both refuse connections, and only the host knows which one it was. Pure.
 */
import { isExchanging } from './handover.js'
import type { Cluster } from './model.js'
import { isAlive, type ProbeFailure } from './observation.js'
import { keptPaused } from './repmgrd.js'
import type { NodeStatus } from './status.js'

export type WithoutPrimary = {
  code: 'primary_starting' | 'primary_unreachable' | 'primary_unreachable_from_here' | 'no_primary'
  detail: string
}

/** `promoted`: the node that the last promotion on record made the primary. */
export function diagnoseWithoutPrimary(
  cluster: Cluster,
  nodes: readonly NodeStatus[],
  promoted: string | undefined,
): WithoutPrimary {
  const silent = new Map(nodes.flatMap(({ name, failure }) => (failure === null ? [] : [[name, failure] as const])))
  const followed = followedInSilence(cluster, nodes, silent)
  if (followed) {
    const { node, follower, heardMs } = followed
    const heard = heardMs === null ? '' : ` (last message ${heardMs} ms before)`
    const detail = `${node} does not answer us, but ${follower} still receives from it${heard}.`
    return { code: 'primary_unreachable_from_here', detail }
  }
  const last = primaryInMetadata(nodes, promoted)
  const failure = last === undefined ? undefined : silent.get(last)
  if (last === undefined || failure === undefined) {
    const inRecovery = nodes.some(({ name, role }) => name === last && role === 'standby')
    const now = inRecovery ? ` ${last}, which was the primary, is in recovery.` : ''
    return { code: 'no_primary', detail: `No node that answers accepts writes.${now}${unfinished(cluster)}` }
  }
  return ofSilent(cluster, last, failure)
}

function ofSilent(cluster: Cluster, name: string, failure: ProbeFailure): WithoutPrimary {
  if (failure.reason === 'starting_up')
    return {
      code: 'primary_starting',
      detail: `${name}, the primary, lives, and accepts no connections for now: it starts, recovers, or is being stopped.${unfinished(cluster)}`,
    }
  if (isAlive(failure))
    return {
      code: 'primary_unreachable_from_here',
      detail: `${name}, the primary, lives, but does not let this service in: ${failure.detail}`,
    }
  const found =
    failure.reason === 'refused'
      ? `${name}, the primary, refuses connections: nothing listens on its port. Whether it crashed or was stopped, only its host can tell.`
      : `${name}, the primary, does not answer (${failure.reason.replaceAll('_', ' ')}), and no standby receives from it: its server hangs, or its host or the network is gone.`
  return { code: 'primary_unreachable', detail: `${found}${unfinished(cluster)}` }
}

/** A cascading standby that follows says nothing of the primary. */
function followedInSilence(
  cluster: Cluster,
  nodes: readonly NodeStatus[],
  silent: ReadonlyMap<string, ProbeFailure>,
): { node: string; follower: string; heardMs: number | null } | undefined {
  const cascading = new Set(cluster.nodes.filter(({ upstream }) => upstream !== undefined).map(({ name }) => name))
  for (const { name, state, upstream, receiver } of nodes) {
    if (state !== 'streaming' || upstream === null || !silent.has(upstream) || cascading.has(name)) continue
    return { node: upstream, follower: name, heardMs: receiver?.lastMessageAgeMs ?? null }
  }
  return undefined
}

/**
 * The one that repmgr.nodes has as the active primary, where the nodes that answer agree on it; where they do not, the
 * promotion on record decides between those that they name.
 */
function primaryInMetadata(nodes: readonly NodeStatus[], promoted: string | undefined): string | undefined {
  const named = new Set(
    nodes.flatMap(({ metadata }) =>
      (metadata?.rows ?? []).flatMap(({ type, active, name }) => (type === 'primary' && active ? [name] : [])),
    ),
  )
  if (named.size === 1) return [...named][0]
  return promoted !== undefined && named.has(promoted) ? promoted : undefined
}

const unfinished = ({ handover, repmgrd }: Cluster) => `${exchange(handover)}${keptPaused(repmgrd)}`

const exchange = (handover: Cluster['handover']) =>
  !isExchanging(handover)
    ? ''
    : ` A switchover from ${handover.from} to ${handover.to} was begun and is not through: POST /v1/operations/${handover.operation}/retry goes on with it, unless it is still running.`
