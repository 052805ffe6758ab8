/** The certificates of a node: its key made on its host, signed by the CA of the cluster; and that CA, to verify others by. */
import { type Authority, signRequest } from '../../src/certificates/authority.js'
import { renewalReason } from '../../src/cluster/certificate.js'
import type { ClusterNode } from '../../src/cluster/model.js'
import { certificateNames, hasTls, tlsOf } from '../../src/cluster/tls.js'
import { changing, runCommand } from '../../src/host/actions.js'
import { fileMatches, type RemoteFile, readFile, writeFile } from '../../src/host/files.js'
import { OperationError } from '../../src/operations/errors.js'
import type { Check, Step } from '../../src/operations/step.js'
import { tlsFiles } from '../../src/postgres/tls.js'
import type { Bench } from '../bench.js'
import { askLocal } from './local-sql.js'
import { reloadIfRunning, staleReason } from './reload.js'
import { readGivenCertificate } from './tls-files.js'

/** Thrown when a server is to lose its certificate, and something beside our own file still names it. */
export class CertificateStillUsed extends OperationError {
  constructor(node: string, directory: string, settings: string) {
    super(`${node} still has its certificate in ${directory}: ${settings}.`, {
      code: 'certificate-still-used',
      outcome: 'failed_clean',
      remedy:
        'Take that line away (ALTER SYSTEM RESET for postgresql.auto.conf), reload the server, then repeat the call. The files are as they were.',
    })
  }
}

/** Everything that a server needs before it is told to speak TLS, and to verify others. Empty without TLS. */
export function tlsSteps(bench: Bench, node: ClusterNode): Step[] {
  if (!hasTls(bench.cluster)) return []
  const { authority } = bench.tls
  const { mode, certificateFile } = tlsOf(bench.cluster)
  return [
    // Before the first thing is written.
    ...(mode === 'files' && certificateFile !== undefined ? [readGivenCertificate(bench, node, certificateFile)] : []),
    makeDirectory(bench, node),
    trustCa(bench, node),
    ...(authority && mode === 'own-ca' ? [makeKey(bench, node), signCertificate(bench, node, authority)] : []),
  ]
}

const OWNER = 'postgres:postgres'

function makeDirectory(bench: Bench, node: ClusterNode): Step {
  const { directory } = tlsFiles(bench.layout)
  const host = bench.host(node)
  return {
    id: `${node.name}/tls-directory`,
    kind: 'change',
    title: 'make the directory of the certificates',
    node: node.name,
    actions: [
      runCommand(host, bench.cluster.name, {
        argv: ['install', '-d', '-o', 'postgres', '-g', 'postgres', '-m', '0755', directory],
        as: 'root',
        timeoutMs: 30_000,
      }),
    ],
    async check({ signal }): Promise<Check> {
      const { stdout } = await host.run(
        {
          argv: ['sh', '-c', 'stat -c "%U:%G %a %F" -- "$1" 2>/dev/null || true', 'understudy-tls', directory],
          as: 'root',
          timeoutMs: 15_000,
        },
        { signal },
      )
      return stdout.trim() === `${OWNER} 755 directory`
        ? { done: true }
        : { done: false, reason: `${directory} is not there, or not postgres’ own` }
    },
  }
}

/**
 * The CA by which the node verifies the others. `ca`: others in place of the cluster's own, while they are being changed.
 * Its text is not in the plan, because a dry run may not have it yet.
 */
export function trustCa(
  bench: Bench,
  node: ClusterNode,
  { ca = bench.tls.ca, id = 'tls-ca', title = 'write the CA by which it verifies the others' } = {},
): Step {
  if (ca === undefined) throw new TypeError(`${bench.cluster.name} has no CA`)
  const host = bench.host(node)
  const file: RemoteFile = { path: tlsFiles(bench.layout).ca, content: ca, owner: OWNER, mode: '0644' }
  const { path, owner, mode } = file
  const content = `[certificates: GET /v1/clusters/${bench.cluster.name}/ca.pem once it is done]\n`
  return {
    id: `${node.name}/${id}`,
    kind: 'change',
    title,
    node: node.name,
    actions: [
      {
        description: { kind: 'file', path, owner, mode, content },
        perform: ({ epoch, signal }) => writeFile(changing(host, bench.cluster.name, epoch), file, { signal }),
      },
    ],
    async check({ signal }): Promise<Check> {
      return (await fileMatches(host, file, { signal }))
        ? { done: true }
        : { done: false, reason: `${path} is missing or different` }
    },
  }
}

/** A key that is there and can be read is kept: a running server has it, and a certificate is renewed without a new one. */
const MAKE_KEY = `key=$1
umask 077
command -v openssl >/dev/null || { echo "understudy: there is no openssl on this host" >&2; exit 1; }
if ! openssl pkey -in "$key" -noout -passin pass: 2>/dev/null; then
  openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$key.new" || exit 1
  chmod 0600 -- "$key.new" && sync -- "$key.new" && mv -fT -- "$key.new" "$key" || exit 1
fi
chmod 0600 -- "$key" && sync -- "$key" "$(dirname -- "$key")"`

const LOOK_AT_KEY = `key=$1
[ "$(stat -c '%U %a' -- "$key" 2>/dev/null)" = 'postgres 600' ] || { echo "$key is not there, or not postgres' alone"; exit 0; }
openssl pkey -in "$key" -noout -passin pass: 2>/dev/null || { echo "$key cannot be read"; exit 0; }
echo fine`

/** Made on the host: it never leaves it. */
function makeKey(bench: Bench, node: ClusterNode): Step {
  const { key } = tlsFiles(bench.layout)
  const host = bench.host(node)
  return {
    id: `${node.name}/tls-key`,
    kind: 'change',
    title: 'make the key of its certificate',
    node: node.name,
    actions: [
      runCommand(host, bench.cluster.name, {
        argv: ['sh', '-c', MAKE_KEY, 'understudy-tls', key],
        as: 'postgres',
        timeoutMs: 60_000,
        shownAs: `sudo -n -u postgres -- openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out ${key}`,
      }),
    ],
    async check({ signal }): Promise<Check> {
      const { stdout } = await host.run(
        { argv: ['sh', '-c', LOOK_AT_KEY, 'understudy-tls', key], as: 'root', timeoutMs: 15_000 },
        { signal },
      )
      return stdout.trim() === 'fine' ? { done: true } : { done: false, reason: stdout.trim() }
    },
  }
}

function signCertificate(bench: Bench, node: ClusterNode, authority: Authority): Step {
  const { key, certificate: path } = tlsFiles(bench.layout)
  const { cluster } = bench
  const host = bench.host(node)
  const names = certificateNames(cluster, node)
  const command = {
    argv: ['openssl', 'req', '-new', '-batch', '-key', key, '-passin', 'pass:', '-subj', `/CN=${node.name}`],
    as: 'postgres',
    timeoutMs: 30_000,
  } as const
  const mode = '0644'
  return {
    id: `${node.name}/tls-certificate`,
    kind: 'change',
    title: `sign a certificate for ${names.join(', ')}`,
    node: node.name,
    actions: [
      {
        description: {
          kind: 'file',
          path,
          owner: OWNER,
          mode,
          content: `[a certificate for ${names.join(', ')}: the host makes the request (openssl req -new), this service signs it]\n`,
        },
        async perform({ epoch, signal }) {
          const { stdout } = await host.run(command, { signal })
          const content = await signRequest(authority, stdout, names, new Date())
          await writeFile(changing(host, cluster.name, epoch), { path, content, owner: OWNER, mode }, { signal })
        },
      },
      ...reloadIfRunning(bench, node),
    ],
    async check({ signal }): Promise<Check> {
      const certificate = await readFile(host, path, { signal })
      if (certificate === undefined) return { done: false, reason: `${path} is missing` }
      const publicKey = await publicKeyOf(bench, node, key, signal)
      if (publicKey === undefined) return { done: false, reason: `there is no key in ${key}` }
      const wrong = renewalReason(certificate, authority.certificate, { publicKey, names, now: new Date() })
      const reason = wrong ?? (await staleReason(bench, node, path, signal))
      return reason === undefined ? { done: true } : { done: false, reason }
    },
  }
}

/** PEM. Undefined where there is no key that can be read. */
async function publicKeyOf(
  bench: Bench,
  node: ClusterNode,
  key: string,
  signal: AbortSignal,
): Promise<string | undefined> {
  const script = 'openssl pkey -in "$1" -pubout -passin pass: 2>/dev/null || true'
  const { stdout } = await bench
    .host(node)
    .run({ argv: ['sh', '-c', script, 'understudy-tls', key], as: 'root', timeoutMs: 15_000 }, { signal })
  return stdout.includes('PUBLIC KEY') ? stdout : undefined
}

/** The key too. Not before the server has let go of them: with a file that is gone it would not start again. */
export function removeTls(bench: Bench, node: ClusterNode): Step {
  const { directory } = tlsFiles(bench.layout)
  const host = bench.host(node)
  return {
    id: `${node.name}/tls-removal`,
    kind: 'change',
    title: 'remove its key, its certificate and the CA',
    node: node.name,
    actions: [
      runCommand(host, bench.cluster.name, {
        argv: ['rm', '-rf', '--one-file-system', '--', directory],
        as: 'root',
        timeoutMs: 30_000,
      }),
    ],
    async check({ signal }): Promise<Check> {
      const used = await askLocal(
        bench,
        node,
        signal,
        `SELECT string_agg(name || ' in ' || COALESCE(sourcefile, 'its configuration'), ', ') FROM pg_settings
          WHERE name IN ('ssl_cert_file', 'ssl_key_file', 'ssl_ca_file') AND starts_with(setting, '${directory}/')`,
      )
      if (used !== '') throw new CertificateStillUsed(node.name, directory, used)
      const { stdout } = await host.run(
        {
          argv: ['sh', '-c', 'if [ -e "$1" ]; then echo there; fi', 'understudy-tls', directory],
          as: 'root',
          timeoutMs: 15_000,
        },
        { signal },
      )
      return stdout.trim() === '' ? { done: true } : { done: false, reason: `${directory} is still there` }
    },
  }
}
