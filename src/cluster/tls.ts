/** TLS of a cluster: whether its servers speak it, by which certificates, and what that means for who connects. */
import { type Static, Type } from 'typebox'
import { certificatesIn } from './certificate.js'

/** No blanks and no quotes: it stands in configuration files and in connection strings. */
const HostFile = (description: string, example: string) =>
  Type.String({
    pattern: '^(?:/[A-Za-z0-9_.][A-Za-z0-9._@+-]{0,99}){1,12}$',
    maxLength: 400,
    description,
    examples: [example],
  })

export const TlsPolicy = Type.Object(
  {
    mode: Type.Enum(['off', 'own-ca', 'files'], {
      title: 'TlsMode',
      description:
        'off: the service does nothing about TLS; what the servers’ own configuration says counts. own-ca: this service signs a certificate for ' +
        'each node, with a CA that it keeps for this cluster alone. files: certificates that your own tooling puts on every host.',
    }),
    clients: Type.Optional(
      Type.Enum(['required', 'allowed'], {
        default: 'required',
        title: 'TlsClients',
        description:
          'Of those who may come in by "access". required: by TLS only (`hostssl`). allowed: with or without. The nodes and this service always use TLS.',
      }),
    ),
    names: Type.Optional(
      Type.Array(
        Type.String({ pattern: '^[A-Za-z0-9:](?:[A-Za-z0-9.:-]{0,251}[A-Za-z0-9])?$', examples: ['db.example.net'] }),
        {
          maxItems: 20,
          description:
            'own-ca: further names and addresses under which clients reach the nodes; they are in the certificate of each, beside its host and its name.',
        },
      ),
    ),
    certificateFile: Type.Optional(
      HostFile(
        'files: PEM of the server’s certificate, with those between it and the CA behind it. The same path on every node.',
        '/etc/ssl/certs/postgresql.pem',
      ),
    ),
    keyFile: Type.Optional(
      HostFile(
        'files: PEM of its key, without a passphrase, as PostgreSQL wants it: of postgres with mode 0600, or of root with 0640.',
        '/etc/ssl/private/postgresql.key',
      ),
    ),
    ca: Type.Optional(
      Type.String({
        minLength: 1,
        maxLength: 65_536,
        description: 'files: PEM of the CA, or the CAs, by which the certificates are verified.',
        examples: ['-----BEGIN CERTIFICATE-----\nMIIB…\n-----END CERTIFICATE-----\n'],
      }),
    ),
  },
  {
    additionalProperties: false,
    default: { mode: 'off' },
    title: 'TlsPolicy',
    description: 'Encrypted and verified connections between the nodes, from this service, and for clients.',
  },
)
export type TlsPolicy = Static<typeof TlsPolicy>

type WithTls = { tls?: TlsPolicy | undefined }

export const tlsOf = ({ tls = { mode: 'off' } }: WithTls): TlsPolicy => tls
export const hasTls = (cluster: WithTls): boolean => tlsOf(cluster).mode !== 'off'

/** What a node’s certificate has to be for: what others connect to first. */
export const certificateNames = (
  cluster: WithTls,
  { host, name }: { host: string; name: string },
): [string, ...string[]] => [host, name, ...(tlsOf(cluster).names ?? [])]

/** How this service connects to servers. */
export interface Trust {
  /**
   * verified: by TLS with a certificate that `ca` vouches for, or not at all. as-asked: without TLS as long as the server
   * lets it; by verified TLS where its rules ask for that, which is so only while TLS is switched on or off.
   */
  tls: 'verified' | 'as-asked'
  /** PEM; one certificate or several. */
  ca?: string
}

/** What is wrong with a policy that its schema cannot say: JSON pointer and sentence. */
export function tlsProblems(tls: TlsPolicy | undefined, base = '/tls'): { pointer: string; detail: string }[] {
  if (tls === undefined) return []
  const { mode, ca } = tls
  const OF_MODE = {
    'own-ca': ['clients', 'names'],
    files: ['clients', 'certificateFile', 'keyFile', 'ca'],
    off: [],
  } as const
  const allowed: readonly string[] = OF_MODE[mode]
  const stray = Object.keys(tls)
    .filter(field => field !== 'mode' && !allowed.includes(field))
    .map(field => ({ pointer: `${base}/${field}`, detail: `With the mode ${mode} there is no "${field}".` }))
  if (mode !== 'files') return stray
  const missing = (['certificateFile', 'keyFile', 'ca'] as const)
    .filter(field => tls[field] === undefined)
    .map(field => ({ pointer: `${base}/${field}`, detail: `The mode files needs "${field}".` }))
  return [...stray, ...missing, ...(ca === undefined ? [] : authorityProblems(ca, `${base}/ca`))]
}

function authorityProblems(ca: string, pointer: string): { pointer: string; detail: string }[] {
  if (/PRIVATE KEY/.test(ca))
    return [{ pointer, detail: 'It holds a private key. Only the CA’s certificate is wanted here.' }]
  const certificates = certificatesIn(ca)
  if (!certificates) return [{ pointer, detail: 'It is not PEM of certificates.' }]
  const servers = certificates.filter(one => !one.ca)
  return servers.map(one => ({
    pointer,
    detail: `${one.subject.replaceAll('\n', ', ')} is no CA’s certificate: it may not sign others.`,
  }))
}
