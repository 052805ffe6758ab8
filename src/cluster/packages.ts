/** Where the packages of PostgreSQL and repmgr come from, and in which versions: as an owner asks for it. Pure. */
import { type Static, Type } from 'typebox'

/** As Debian's policy has it (deb-version(7)). */
const VERSION = '^[0-9][A-Za-z0-9.+~:-]{0,99}$'
export const PackageVersion = Type.String({ pattern: VERSION })

const Mirror = Type.Object(
  {
    uri: Type.String({
      pattern: '^(?:https?://[A-Za-z0-9.:\\[\\]-]{1,255}|file:)/[A-Za-z0-9._~/%+=-]{0,500}$',
      description: 'Where it is: `http`, `https`, or `file` for a directory of the hosts. Without a password.',
      examples: ['https://mirror.example.com/pgdg'],
    }),
    suite: Type.Optional(
      Type.String({
        pattern: '^[A-Za-z0-9.][A-Za-z0-9._/-]{0,99}$',
        description:
          'Default: the codename of the host’s release with `-pgdg`, as in PGDG’s own repository. With a slash at its end: a flat repository.',
        examples: ['bookworm-pgdg'],
      }),
    ),
    components: Type.Optional(
      Type.Array(Type.String({ pattern: '^[A-Za-z0-9][A-Za-z0-9._/-]{0,49}$' }), {
        minItems: 1,
        maxItems: 10,
        description: 'Default `main`; a flat repository has none.',
      }),
    ),
    signingKey: Type.String({
      maxLength: 65_536,
      pattern:
        '^-----BEGIN PGP PUBLIC KEY BLOCK-----\\r?\\n[\\x20-\\x7e\\r\\n]+-----END PGP PUBLIC KEY BLOCK-----(?:\\r?\\n)?$',
      description:
        'The public key that signs it, armored, as `gpg --armor --export` prints it. Only this one is believed.',
      examples: [
        '-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmDMEZ…\n-----END PGP PUBLIC KEY BLOCK-----\n'.replaceAll('…', 'AAA'),
      ],
    }),
  },
  { additionalProperties: false, title: 'PackageMirror', description: 'A package repository of the owner’s.' },
)
export type Mirror = Static<typeof Mirror>

export const Packages = Type.Object(
  {
    source: Type.Enum(['distribution', 'pgdg', 'mirror'], {
      title: 'PackageSource',
      description:
        'distribution: what the host has configured. pgdg: apt.postgresql.org beside it. mirror: the repository in `mirror` beside it. ' +
        'PostgreSQL and repmgr are taken from the one that is named here, also where another one has a newer version.',
    }),
    mirror: Type.Optional(Mirror),
    versions: Type.Optional(
      Type.Object(
        {
          postgresql: Type.Optional(
            Type.String({
              pattern: VERSION,
              description: 'Of the server and its client.',
              examples: ['15.14-0+deb12u1'],
            }),
          ),
          repmgr: Type.Optional(Type.String({ pattern: VERSION, examples: ['5.3.3-2'] })),
        },
        {
          additionalProperties: false,
          title: 'PackageVersions',
          description: 'Exact versions of the packages, for hosts that have no server in use yet. Absent: the newest.',
        },
      ),
    ),
    hold: Type.Optional(
      Type.Boolean({
        description:
          'true: nothing but a person moves them to another version (`apt-mark hold`). false: the hold is taken away. ' +
          'Default: true where versions are named, otherwise as it is on the host.',
      }),
    ),
  },
  {
    additionalProperties: false,
    title: 'Packages',
    description:
      'Where PostgreSQL and repmgr come from, and in which versions. Absent: the newest of the distribution.',
  },
)
export type Packages = Static<typeof Packages>

export const packagesPolicies = { packages: Type.Optional(Packages) }

/** What is wrong with it that the schema cannot say: JSON pointer and sentence. */
export function packageInconsistencies(spec: {
  postgresVersion: number
  packages?: Packages
}): { pointer: string; detail: string }[] {
  const { postgresVersion, packages } = spec
  if (!packages) return []
  const found: { pointer: string; detail: string }[] = []
  const { source, mirror, versions } = packages
  if (source === 'mirror' && !mirror) {
    found.push({ pointer: '/packages/mirror', detail: 'The source is a mirror: say where it is, and its signing key.' })
  }
  if (source !== 'mirror' && mirror) {
    found.push({
      pointer: '/packages/mirror',
      detail: `The source is ${source}, so the mirror would not be used: leave it out, or make the source "mirror".`,
    })
  }
  if (mirror?.suite?.endsWith('/') && mirror.components) {
    found.push({ pointer: '/packages/mirror/components', detail: 'A flat repository has no components.' })
  }
  // An epoch comes before the major version.
  const major = versions?.postgresql?.replace(/^\d+:/, '')
  if (major !== undefined && !new RegExp(`^${postgresVersion}(?![0-9])`).test(major)) {
    found.push({
      pointer: '/packages/versions/postgresql',
      detail: `"${versions?.postgresql}" is no version of PostgreSQL ${postgresVersion}.`,
    })
  }
  return found
}

/** Whether the packages are to be held, not to be held, or left as they are. */
export const holdOf = (packages: Packages | undefined): boolean | undefined =>
  packages?.hold ?? (packages?.versions && Object.keys(packages.versions).length > 0 ? true : undefined)

/** A package that a host has to have; any version will do where none is named. */
export interface WantedPackage {
  name: string
  version?: string
}

/** Where installed packages are not the wanted ones. */
export function packageMismatches(
  wanted: readonly WantedPackage[],
  installed: Readonly<Record<string, string>>,
): { name: string; installed: string | undefined; wanted: string | undefined }[] {
  return wanted.flatMap(({ name, version }) => {
    const now = installed[name]
    if (now !== undefined && (version === undefined || version === now)) return []
    return [{ name, installed: now, wanted: version }]
  })
}
