/** What an operation needs for TLS: the CA, and how to connect to servers that are between two states. */
import { bundle } from '../src/cluster/certificate.js'
import type { Cluster } from '../src/cluster/model.js'
import { hasTls, tlsOf } from '../src/cluster/tls.js'
import { caOf, openAuthority, trustOf } from '../src/store/authority.js'
import type { SecretStore } from '../src/store/secrets.js'
import type { BenchTls } from './bench.js'

/**
 * `target`: the cluster as the operation is to leave it. Only where TLS is there before and after is it insisted upon: a
 * server that has none yet, or none any more, has to be asked too. `keep`: a CA that is made is kept; a dry run keeps none.
 */
export async function openTls(
  secrets: SecretStore,
  cluster: Cluster,
  target: Cluster,
  keep: boolean,
): Promise<BenchTls> {
  const authority = tlsOf(target).mode === 'own-ca' ? await openAuthority(secrets, cluster.name, keep) : undefined
  const ca = authority ? bundle([authority.certificate]) : await caOf(secrets, target)
  const known = await trustOf(secrets, cluster)
  const trusted = bundle([ca, known.ca])
  return {
    trust: {
      tls: hasTls(cluster) && hasTls(target) ? 'verified' : 'as-asked',
      ...(trusted === '' ? {} : { ca: trusted }),
    },
    ...(ca === undefined ? {} : { ca }),
    ...(authority === undefined ? {} : { authority }),
  }
}
