/** Certificates that somebody else puts on the hosts: looked at before anything depends on them, and never changed. */
import { certificatesIn, daysLeft, type Objection, objectionTo, validTo } from '../../src/cluster/certificate.js'
import type { ClusterNode } from '../../src/cluster/model.js'
import { tlsOf } from '../../src/cluster/tls.js'
import { readFile } from '../../src/host/files.js'
import { OperationError } from '../../src/operations/errors.js'
import type { Check, Step } from '../../src/operations/step.js'
import { servedFiles } from '../../src/postgres/tls.js'
import type { Bench } from '../bench.js'
import { reloadIfRunning, staleReason } from './reload.js'

/** Thrown when a certificate that was named cannot be used, before anything is written for its sake. */
export class CertificateUnusable extends OperationError {
  constructor(problems: readonly Problem[]) {
    super(problems.map(({ node, detail }) => `${node}: ${detail}.`).join(' '), {
      code: 'certificate-unusable',
      outcome: 'not_started',
      remedy: [...new Set(problems.map(({ remedy }) => remedy))].join(' '),
    })
  }
}

interface Problem {
  node: string
  detail: string
  remedy: string
}

/**
 * As root, and what postgres can read as postgres, where there is such a user already. The CA comes over standard input.
 * `-untrusted`: what stands behind the server's certificate in its file is used and not believed.
 */
const LOOK = `certificate=$1 key=$2
[ -f "$certificate" ] || { echo absent=certificate; exit 0; }
[ -f "$key" ] || { echo absent=key; exit 0; }
stat -L -c 'key=%U %a' -- "$key"
if id postgres >/dev/null 2>&1; then
  for file in certificate key; do
    eval "path=\\$$file"
    sudo -n -u postgres test -r "$path" || echo "unreadable=$file"
  done
fi
echo "certificate=$(base64 -w0 -- "$certificate")"
command -v openssl >/dev/null || exit 0
public=$(openssl pkey -in "$key" -pubout -passin pass: 2>/dev/null | base64 -w0)
echo "public=$public"
said=$(openssl verify -purpose sslserver -no-CApath -no-CAstore -CAfile /dev/stdin -untrusted "$certificate" "$certificate" 2>&1) || \\
  echo "untrusted=$(printf '%s' "$said" | tr '\\n' ' ')"`

/** What keeps a node from using the certificate that is on its host; undefined where nothing does. */
async function problemOf(bench: Bench, node: ClusterNode, signal: AbortSignal): Promise<Problem | undefined> {
  const files = servedFiles(tlsOf(bench.cluster), bench.layout)
  const { ca } = bench.tls
  if (!files || ca === undefined) throw new TypeError('no certificate was named')
  const { stdout } = await bench.host(node).run(
    {
      argv: ['sh', '-c', LOOK, 'understudy-certificate', files.certificate, files.key],
      as: 'root',
      stdin: ca,
      timeoutMs: 30_000,
      shownAs: `look at ${files.certificate} and ${files.key}`,
    },
    { signal },
  )
  const lines = stdout.split('\n')
  const said = (word: string) => lines.find(line => line.startsWith(`${word}=`))?.slice(word.length + 1)
  const problem = (detail: string, remedy: string): Problem => ({ node: node.name, detail, remedy })
  const absent = said('absent')
  if (absent === 'certificate' || absent === 'key') {
    return problem(
      `there is no file ${files[absent]}`,
      'Put certificate and key on every host, at the same paths, then repeat the call.',
    )
  }
  const owner = wrongOwner(said('key') ?? '')
  if (owner !== undefined)
    return problem(
      `${files.key} ${owner}`,
      'PostgreSQL takes a key of postgres with mode 0600, or of root with mode 0640 and a group that postgres is in.',
    )
  const unreadable = said('unreadable')
  if (unreadable === 'certificate' || unreadable === 'key') {
    return problem(
      `postgres may not read ${files[unreadable]}`,
      'Let it, and see to the folders above it (on Debian: adduser postgres ssl-cert, then restart the server). Then repeat the call.',
    )
  }
  const pem = Buffer.from(said('certificate') ?? '', 'base64').toString('utf8')
  const encoded = said('public')
  if (encoded === '') return problem(`${files.key} is no private key in PEM, or has a passphrase`, REMEDIES.key)
  const publicKey = encoded === undefined ? undefined : Buffer.from(encoded, 'base64').toString('utf8')
  const objection = objectionTo(pem, {
    ...(publicKey === undefined ? {} : { publicKey }),
    names: [node.host],
    now: new Date(),
  })
  if (objection) return problem(`${files.certificate}: ${objection.detail}`, REMEDIES[objection.kind])
  const untrusted = said('untrusted')
  if (untrusted === undefined) return undefined
  const why =
    /error \d+ at \d+ depth lookup: ?([^:]+?)(?= error |$)/.exec(untrusted.trim())?.[1]?.trim() ?? untrusted.trim()
  return problem(
    `${files.certificate} is not verified by the CA of the description: ${why}`,
    '"ca" has to hold the certificate of the CA that signed it; what is between the two belongs behind the server’s own in its file.',
  )
}

const REMEDIES: Record<Objection['kind'], string> = {
  unreadable: 'The file has to hold the server’s certificate in PEM first, then those between it and the CA.',
  key: 'The key has to be the one that the certificate was made for, in PEM and without a passphrase.',
  future: 'Look at the clock of this service, and at who makes the certificates.',
  expired: 'Put a new one in its place, then repeat the call.',
  name: 'The nodes verify whom they connect to: the host of the node, as it is described, has to be among the names of its certificate.',
}

/** @see https://www.postgresql.org/docs/current/ssl-tcp.html#SSL-SETUP */
function wrongOwner(stat: string): string | undefined {
  const [owner = '', mode = ''] = stat.split(' ')
  const bits = Number.parseInt(mode, 8)
  if (owner !== 'postgres' && owner !== 'root') return `belongs to ${owner}`
  if ((bits & (owner === 'root' ? 0o137 : 0o177)) !== 0)
    return `has mode ${mode.padStart(4, '0')} and belongs to ${owner}`
  return undefined
}

/** Of every node that answers; all that is wrong at once. Nothing where the certificates are not somebody else's. */
export async function refuseUnusableCertificates(
  bench: Bench,
  signal: AbortSignal,
  nodes: readonly ClusterNode[] = bench.cluster.nodes,
): Promise<void> {
  if (tlsOf(bench.cluster).mode !== 'files') return
  const present = nodes.filter(({ name }) => !bench.absent.has(name))
  const problems = await Promise.all(present.map(node => problemOf(bench, node, signal)))
  const found = problems.filter(problem => problem !== undefined)
  if (found.length > 0) throw new CertificateUnusable(found)
}

/** Looks again, because the user postgres may not have been there before; and lets a running server read what is new. */
export function readGivenCertificate(bench: Bench, node: ClusterNode, certificate: string): Step {
  return {
    id: `${node.name}/tls-files`,
    kind: 'change',
    title: 'let the server read the certificate that it was given',
    node: node.name,
    actions: reloadIfRunning(bench, node),
    async check({ signal }): Promise<Check> {
      await refuseUnusableCertificates(bench, signal, [node])
      const reason = await staleReason(bench, node, certificate, signal)
      return reason === undefined ? { done: true } : { done: false, reason }
    },
  }
}

/** Until when; undefined where it cannot be read, which has its own words elsewhere. */
export async function endOfCertificate(
  bench: Bench,
  node: ClusterNode,
  signal: AbortSignal,
): Promise<{ days: number; at: string } | undefined> {
  const files = servedFiles(tlsOf(bench.cluster), bench.layout)
  if (!files) return undefined
  const pem = await readFile(bench.host(node), files.certificate, { signal })
  const [certificate] = certificatesIn(pem ?? '') ?? []
  return certificate && { days: daysLeft(certificate, new Date()), at: validTo(certificate).toISOString() }
}
