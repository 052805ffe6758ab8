/** What the checks say of the versions of PostgreSQL and repmgr: those that are there, and those that would come. Pure. */
import type { Answered } from './check-answers.js'
import type { CheckResult } from './checks.js'

interface Found {
  node: string
  version: string
  /** Not there yet. */
  coming: boolean
  answer: Answered
}

/** repmgr wants the same major and minor version of itself on all nodes, PostgreSQL the same major version. */
export function judgeVersions(postgresVersion: number, there: readonly Answered[]): CheckResult[] {
  return [`postgresql-${postgresVersion}`, `postgresql-${postgresVersion}-repmgr`].flatMap((name): CheckResult[] => {
    const found = there.flatMap((answer): Found[] => {
      const installed = answer.packages[name]
      const version = answer.wouldInstall[name] ?? installed
      return version === undefined ? [] : [{ node: answer.node, version, coming: version !== installed, answer }]
    })
    const [first] = found
    if (!first) return []
    if (found.every(({ version }) => version === first.version))
      return [{ kind: 'versions', verdict: 'ok', detail: `${name} ${first.version} on ${found.length} nodes` }]
    return name.endsWith('-repmgr') ? [judgeRepmgr(name, found)] : judgePostgres(name, found)
  })
}

const listed = (name: string, found: readonly Found[]) =>
  `${name} differs: ${found.map(({ node, version, coming }) => `${node} ${version}${coming ? ' (to be installed)' : ''}`).join(', ')}`

/** An epoch comes before the version. */
const numbersOf = (version: string) => /^(?:\d+:)?(\d+)(?:\.(\d+))?/.exec(version)?.slice(1, 3).map(Number) ?? []

function judgeRepmgr(name: string, found: readonly Found[]): CheckResult {
  const series = new Set(found.map(({ version }) => numbersOf(version).join('.')))
  return {
    kind: 'versions',
    verdict: series.size > 1 ? 'failed' : 'warning',
    detail: listed(name, found),
    remedy:
      'repmgr wants the same version on every node: upgrade those that are behind, or name one version for all in the "packages" of the cluster.',
  }
}

/**
 * A newer minor version reads what an older one wrote; the reverse is not promised. So data are not copied to a server
 * that is older than the one they come from.
 *
 * @see https://www.postgresql.org/docs/current/warm-standby.html#STANDBY-PLANNING
 */
function judgePostgres(name: string, found: readonly Found[]): CheckResult[] {
  const primary = found.find(({ answer }) => answer.server?.inRecovery === false && !answer.witness)
  const minor = ({ version }: Found) => numbersOf(version)[1] ?? 0
  const behind = primary ? found.filter(one => !one.answer.inUse && minor(one) < minor(primary)) : []
  return [
    {
      kind: 'versions',
      verdict: 'warning',
      detail: listed(name, found),
      remedy: 'Minor versions work together for a while: upgrade the standbys first, then the primary.',
    },
    ...behind.map(
      ({ node, version }): CheckResult => ({
        kind: 'versions',
        to: node,
        verdict: 'failed',
        detail: `${name} ${version} on ${node} is older than ${primary?.version} on ${primary?.node}, whose data it is to hold`,
        remedy: `Upgrade PostgreSQL on ${node} before the data are copied to it.`,
      }),
    ),
  ]
}
