/** The TLS of a cluster that is taken over: where its standbys verify their primary, that is kept. */

import type { ClusterNode } from '../src/cluster/model.js'
import { hasTls, type TlsPolicy, tlsProblems } from '../src/cluster/tls.js'
import { isWitness } from '../src/cluster/topology.js'
import { readFile } from '../src/host/files.js'
import { askAs, type Bench } from './bench.js'
import { askLocal } from './steps/local-sql.js'
import { CertificateUnusable, refuseUnusableCertificates } from './steps/tls-files.js'

/** Of a connection string only what is asked for: there may be a password in it. */
const QUERY = String.raw`
WITH own AS (SELECT current_setting('primary_conninfo') AS conninfo, current_setting('data_directory') || '/' AS home)
SELECT json_build_object(
  'ssl', current_setting('ssl') = 'on',
  'certificateFile', CASE WHEN current_setting('ssl_cert_file') LIKE '/%' THEN '' ELSE home END || current_setting('ssl_cert_file'),
  'keyFile', CASE WHEN current_setting('ssl_key_file') LIKE '/%' THEN '' ELSE home END || current_setting('ssl_key_file'),
  'verifies', COALESCE(conninfo ~ '\msslmode\s*=\s*''?verify-full', false),
  'caFile', substring(conninfo from '\msslrootcert\s*=\s*''?([^''\s]+)')) FROM own`

interface FoundTls {
  ssl: boolean
  certificateFile: string
  keyFile: string
  verifies: boolean
  caFile: string | null
}

/**
 * Undefined where nobody verifies anybody: then a server’s own configuration goes on to count, as the mode `off` says.
 * `objection`: they do, and why this service cannot go on with it.
 */
export async function foundTls(
  bench: Bench,
  primary: ClusterNode,
  signal: AbortSignal,
): Promise<{ tls?: TlsPolicy; objection?: string }> {
  const { nodes } = bench.cluster
  const found = await Promise.all(
    nodes.map(async node => ({ node, ...(JSON.parse(await askLocal(bench, node, signal, QUERY)) as FoundTls) })),
  )
  const standbys = found.filter(({ node }) => node !== primary && !isWitness(node))
  if (!standbys.some(({ verifies }) => verifies)) return {}
  const [first] = found
  if (!first) return {}
  const other = found.find(
    one => !one.ssl || one.certificateFile !== first.certificateFile || one.keyFile !== first.keyFile,
  )
  if (other) return { objection: `${other.node.name} has its certificate elsewhere than ${first.node.name}, or none` }
  const lax = standbys.find(({ verifies, caFile }) => !verifies || caFile === null)
  if (lax) return { objection: `${lax.node.name} does not verify whom it streams from` }
  const cas = await Promise.all(
    standbys.map(({ node, caFile }) => readFile(bench.host(node), caFile ?? '', { signal })),
  )
  const [ca] = cas
  if (ca === undefined || cas.some(one => one !== ca)) return { objection: 'the standbys do not believe the same CA' }
  const { certificateFile, keyFile } = first
  const tls: TlsPolicy = { mode: 'files', clients: 'allowed', certificateFile, keyFile, ca }
  const [problem] = tlsProblems(tls)
  if (problem) return { objection: problem.detail }
  try {
    await refuseUnusableCertificates(withFoundTls(bench, tls), signal)
    return { tls }
  } catch (error) {
    if (!(error instanceof CertificateUnusable)) throw error
    return { objection: error.message }
  }
}

/** The bench of a cluster that has it already, and may not ask this service for it. */
export function withFoundTls(bench: Bench, tls: TlsPolicy | undefined): Bench {
  if (tls === undefined || tls.ca === undefined || !hasTls({ tls })) return bench
  const trust = { tls: 'as-asked', ca: tls.ca } as const
  const cluster = { ...bench.cluster, tls }
  return { ...bench, cluster, tls: { trust, ca: tls.ca }, ask: askAs(cluster, bench.password, trust) }
}
