/** What a cluster's hosts have that its record does not say, or the other way round. */
import { type Static, Type } from 'typebox'
import { RENEWAL_DAYS } from './certificate.js'
import type { ClusterNode } from './model.js'
import { packageMismatches, type WantedPackage } from './packages.js'

export const DriftItem = Type.Object(
  {
    kind: Type.Enum(['changed', 'package', 'metadata', 'unreachable', 'undecided', 'certificate'], {
      title: 'DriftKind',
      description:
        'changed: something that the service manages was changed, or is missing. package: another version than when an operation last ' +
        'looked. metadata: repmgr.nodes and the record differ. unreachable: nobody could look. undecided: what was found on the hosts does ' +
        'not say how the cluster is to be put right. certificate: one that somebody else makes ends soon.',
    }),
    node: Type.Optional(Type.String({ description: 'The node, where it is about one.' })),
    step: Type.Optional(
      Type.String({ description: 'The step of apply-cluster that puts it right.', examples: ['pg2/access'] }),
    ),
    detail: Type.String({ description: 'What was found.' }),
    remedy: Type.String({ description: 'What to do.' }),
  },
  { additionalProperties: false, title: 'DriftItem', description: 'One thing that is not as the record says.' },
)
export type DriftItem = Static<typeof DriftItem>

export const Drift = Type.Object(
  {
    cluster: Type.String(),
    inSync: Type.Boolean({
      description: 'Everything that was looked at is as the record says, and everybody answered.',
    }),
    items: Type.Array(DriftItem),
    checkedSteps: Type.Integer({ description: 'How many checks looked at the hosts.' }),
    observedAt: Type.String({ format: 'date-time' }),
  },
  {
    additionalProperties: false,
    title: 'Drift',
    description: 'Where the hosts differ from the record, as they answered just now. Nothing is changed by looking.',
  },
)
export type Drift = Static<typeof Drift>

/** The versions that are named, and otherwise those that an operation saw last, against those that are installed now. */
export function movedPackages(
  node: Pick<ClusterNode, 'name' | 'installed'>,
  wanted: readonly WantedPackage[],
  now: Readonly<Record<string, string>>,
): DriftItem[] {
  const named = packageMismatches(wanted, now).filter(({ installed }) => installed !== undefined)
  const moved = Object.entries(node.installed ?? {})
    .filter(([name, version]) => now[name] !== undefined && now[name] !== version)
    .filter(([name]) => !named.some(mismatch => mismatch.name === name))
  const item = (detail: string, remedy: string): DriftItem => ({ kind: 'package', node: node.name, detail, remedy })
  return [
    ...named.map(({ name, installed, wanted: version }) =>
      item(
        `${name} is ${installed}, and the description says ${version}.`,
        'If it was moved on purpose, say so in "packages". Otherwise install the other version by hand, on one standby after the other ' +
          'and the primary last: it restarts the server.',
      ),
    ),
    ...moved.map(([name, version]) =>
      item(
        `${name} was ${version} when an operation last looked, and is ${now[name]} now.`,
        'If that was meant, PUT the description of the cluster takes note of it. A server runs with its old program until it is restarted.',
      ),
    ),
  ]
}

/** Of a certificate that somebody else makes. One that has ended already is what the step itself objects to. */
export function endingCertificate(
  { name }: Pick<ClusterNode, 'name'>,
  end: { days: number; at: string } | undefined,
): DriftItem[] {
  if (end === undefined || end.days < 0 || end.days >= RENEWAL_DAYS) return []
  return [
    {
      kind: 'certificate',
      node: name,
      detail: `The certificate of the server ends in ${end.days} days, at ${end.at}.`,
      remedy: `Put a new one in its place; then POST …/nodes/${name}/provision lets the running server read it.`,
    },
  ]
}
