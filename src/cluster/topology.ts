/**
 * The shape of a cluster beyond a primary and its standbys: who streams from whom, who is behind on purpose, who only
 * has a vote. Options of a node, the rules that bind them together, and what follows from them. Pure.
 */
import { Type } from 'typebox'

export const topologyPolicies = {
  kind: Type.Optional(
    Type.Enum(['data', 'witness'], {
      title: 'NodeKind',
      default: 'data',
      description:
        'data: a primary or a standby, as things go. witness: a small server of its own that holds none of the data, only ' +
        'a copy of repmgr’s metadata; it tells a dead primary from a cut network.',
    }),
  ),
  upstream: Type.Optional(
    Type.String({
      minLength: 2,
      maxLength: 63,
      description:
        'Name of the node that it streams from while it is a standby: a cascading standby. Default: the primary, whichever that is.',
      examples: ['pg2'],
    }),
  ),
  applyDelayMs: Type.Optional(
    Type.Integer({
      minimum: 1,
      maximum: 2_147_483_647,
      description:
        'A delayed standby: it receives at once, and applies each commit this much later. What was deleted by mistake is ' +
        'still there for so long.',
      examples: [3_600_000],
    }),
  ),
  priority: Type.Optional(
    Type.Integer({
      minimum: 0,
      maximum: 1000,
      description:
        'Of standbys that are equal otherwise, the one with the highest is promoted; 0: never. Default: 100, of a delayed standby 0.',
      examples: [100],
    }),
  ),
  location: Type.Optional(
    Type.String({
      pattern: '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$',
      default: 'default',
      description:
        'Where it stands: repmgr’s `location`, the same for nodes that see each other over one local network.',
      examples: ['helsinki-1'],
    }),
  ),
}

/** What is asked here of a node; a description's nodes and a record's nodes both have it. */
export interface Placed {
  name: string
  kind?: 'data' | 'witness'
  upstream?: string
  applyDelayMs?: number
  priority?: number
  location?: string
}

export const isWitness = ({ kind }: Pick<Placed, 'kind'>) => kind === 'witness'

/** Those that hold the data: primary and standbys. */
export const dataNodes = <T extends Pick<Placed, 'kind'>>(nodes: readonly T[]) => nodes.filter(node => !isWitness(node))

export const witnesses = <T extends Pick<Placed, 'kind'>>(nodes: readonly T[]) => nodes.filter(isWitness)

/** repmgr's own default is 100, and its `witness register` writes 0. Promoting a node that is behind on purpose loses commits. */
export const priorityOf = ({ kind, applyDelayMs, priority }: Pick<Placed, 'kind' | 'applyDelayMs' | 'priority'>) =>
  kind === 'witness' ? 0 : (priority ?? (applyDelayMs === undefined ? 100 : 0))

export const locationOf = ({ location = 'default' }: Pick<Placed, 'location'>) => location

/**
 * Whom a standby is to stream from, now that `primary` is the primary. A described upstream that is no node any more, or
 * is the standby itself, counts for nothing; the primary streams from nobody, so that this never goes round in a circle.
 */
export function upstreamOf<T extends Placed>(standby: T, nodes: readonly T[], primary: T): T {
  const named = dataNodes(nodes).find(({ name }) => name === standby.upstream)
  return named === undefined || named.name === standby.name ? primary : named
}

/** The standbys, those that stream from the primary first, then those that stream from them, and so on. */
export function standbysByDepth<T extends Placed>(nodes: readonly T[], primary: T): T[][] {
  const levels: T[][] = []
  let left = dataNodes(nodes).filter(({ name }) => name !== primary.name)
  let above = [primary]
  while (left.length > 0) {
    const level = left.filter(node => above.includes(upstreamOf(node, nodes, primary)))
    // Only a circle hangs on nobody, and a description with one is refused.
    if (level.length === 0) throw new TypeError(`${left.map(({ name }) => name).join(', ')} stream in a circle`)
    left = left.filter(node => !level.includes(node))
    levels.push(level)
    above = level
  }
  return levels
}

/** What is wrong with the shape that is described: JSON pointer and sentence. */
export function misplacements(nodes: readonly Placed[], base: string): { pointer: string; detail: string }[] {
  const found: { pointer: string; detail: string }[] = []
  const byName = new Map(nodes.map(node => [node.name, node]))
  const firstWitness = nodes.findIndex(isWitness)
  for (const [index, node] of nodes.entries()) {
    const refuse = (field: keyof Placed, detail: string) => found.push({ pointer: `${base}/${index}/${field}`, detail })
    if (isWitness(node)) {
      if (index === 0)
        refuse('kind', `${node.name} is the first node, which becomes the primary; a witness holds no data.`)
      if (index > firstWitness)
        refuse('kind', `${nodes[firstWitness]?.name} is the witness already; one is enough for a cluster.`)
      if (node.upstream !== undefined)
        refuse('upstream', `${node.name} is a witness: it streams from nobody, so it has no upstream.`)
      if (node.applyDelayMs !== undefined)
        refuse('applyDelayMs', `${node.name} is a witness: it applies nothing that could be delayed.`)
      if (node.priority !== undefined && node.priority !== 0)
        refuse('priority', `${node.name} is a witness: it is never promoted, so its priority is 0.`)
      continue
    }
    if (index === 0 && node.upstream !== undefined)
      refuse('upstream', `${node.name} is the first node, which becomes the primary; a primary has no upstream.`)
    if (index === 0 && node.applyDelayMs !== undefined)
      refuse(
        'applyDelayMs',
        `${node.name} is the first node, which becomes the primary; only a standby can be delayed.`,
      )
    if (node.upstream === undefined) continue
    const objection = objectionTo(node, node.upstream, byName)
    if (objection !== undefined) refuse('upstream', objection)
  }
  return found
}

/** Why a standby cannot be told to stream from the node of that name, whoever streams from whom now: a sentence. */
export function upstreamObjection(node: Placed, name: string, byName: ReadonlyMap<string, Placed>): string | undefined {
  if (name === node.name) return `${node.name} cannot stream from itself.`
  const upstream = byName.get(name)
  if (!upstream) return `${node.name} is to stream from ${name}, and there is no such node.`
  if (isWitness(upstream)) return `${node.name} is to stream from ${name}, which is a witness and has no data.`
  // repmgr reads the metadata of the node that it clones from, and that node has them late.
  if (upstream.applyDelayMs !== undefined)
    return `${node.name} is to stream from ${name}, which is delayed; take the node that ${name} itself streams from.`
  return undefined
}

/** The same of a description, in which the chain of upstreams must end somewhere. */
function objectionTo(node: Placed, name: string, byName: ReadonlyMap<string, Placed>): string | undefined {
  const objection = upstreamObjection(node, name, byName)
  const upstream = byName.get(name)
  if (objection !== undefined || !upstream) return objection
  const path = [node.name]
  for (
    let at: Placed | undefined = upstream;
    at;
    at = at.upstream === undefined ? undefined : byName.get(at.upstream)
  ) {
    if (at.name === node.name) return `${[...path, node.name].join(' streams from ')}: a circle, without a primary.`
    // A circle further up is told of at its own members.
    if (path.includes(at.name)) return undefined
    path.push(at.name)
  }
  return undefined
}
