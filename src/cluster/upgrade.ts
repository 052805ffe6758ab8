/** Which version of each package every node gets in an upgrade: from what the nodes have, and what their sources have. Pure. */

/** A package on a node. */
export interface Offer {
  name: string
  installed: string
  /** The newest that an upgrade would bring. */
  candidate: string
  /** All that can be had. */
  versions: readonly string[]
}

/** What is asked for: exact versions, or the newest. */
export interface WantedVersions {
  /** Of the server, and of everything that is built with it. */
  postgresql?: string
  /** Of repmgr, and of what is built with it. */
  repmgr?: string
}

export type Verdict = { versions: Record<string, string> } | { refused: string[] }

/** Built with repmgr; everything else that is looked at is built with the server. */
const isRepmgr = (name: string) => name.includes('repmgr')

/** Another major version in a package of this one’s name: somebody else’s package. */
export const isMinorOf = (postgresVersion: number, version: string) =>
  new RegExp(`^(?:\\d+:)?${postgresVersion}(?![0-9])`).test(version)

/**
 * One version of each package for all nodes. A package of which the version that is asked for cannot be had stays as it is,
 * unless it is one of `required`. Refused where nodes would get different ones: their sources are not the same.
 */
export function versionsForAll(
  nodes: ReadonlyMap<string, readonly Offer[]>,
  required: { server: string; repmgr: string },
  wanted: WantedVersions,
): Verdict {
  const refused: string[] = []
  const chosen = new Map<string, Map<string, string[]>>()
  for (const [node, offers] of nodes) {
    for (const name of [required.server, required.repmgr]) {
      if (!offers.some(offer => offer.name === name)) refused.push(`${node} does not have ${name}.`)
    }
    for (const { name, installed, candidate, versions } of offers) {
      const asked = isRepmgr(name) ? wanted.repmgr : wanted.postgresql
      const there = asked === undefined || asked === installed || versions.includes(asked)
      if (!there && (name === required.server || name === required.repmgr))
        refused.push(`${node} cannot have ${name} ${asked}: its sources have ${versions.join(', ') || 'none'}.`)
      const version = asked === undefined ? candidate : there ? asked : installed
      const byVersion = chosen.get(name) ?? new Map<string, string[]>()
      byVersion.set(version, [...(byVersion.get(version) ?? []), node])
      chosen.set(name, byVersion)
    }
  }
  for (const [name, byVersion] of chosen) {
    if (byVersion.size < 2) continue
    const each = [...byVersion].map(([version, of]) => `${version} on ${of.join(' and ')}`).join(', ')
    refused.push(`${name} would be ${each}.`)
  }
  if (refused.length > 0) return { refused }
  return {
    versions: Object.fromEntries([...chosen].map(([name, byVersion]) => [name, [...byVersion.keys()][0] ?? ''])),
  }
}
