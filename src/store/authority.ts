/** The CA of a cluster, and which certificates this service believes of its servers. */
import { type Authority, makeAuthority } from '../certificates/authority.js'
import { bundle } from '../cluster/certificate.js'
import { hasTls, type TlsPolicy, type Trust, tlsOf } from '../cluster/tls.js'
import { alsoTrusted, authorityOf, type SecretStore } from './secrets.js'

interface Named {
  name: string
  tls?: TlsPolicy
}

/** Undefined until an operation has needed one. */
export async function readAuthority(secrets: SecretStore, cluster: string): Promise<Authority | undefined> {
  const text = await secrets.get(authorityOf(cluster))
  return text === undefined ? undefined : (JSON.parse(text) as Authority)
}

/** `keep`: made for good where there is none; otherwise one that is there, or one for a look that nobody keeps. */
export async function openAuthority(secrets: SecretStore, cluster: string, keep: boolean): Promise<Authority> {
  const known = await readAuthority(secrets, cluster)
  if (known) return known
  const made = await makeAuthority(cluster, new Date())
  if (!keep) return made
  return JSON.parse(await secrets.getOrCreate(authorityOf(cluster), () => JSON.stringify(made))) as Authority
}

/** By what the servers of a cluster are verified: PEM. Undefined without TLS, and where no CA was made yet. */
export async function caOf(secrets: SecretStore, cluster: Named): Promise<string | undefined> {
  const { mode, ca } = tlsOf(cluster)
  if (mode === 'off') return undefined
  if (mode === 'files') return bundle([ca])
  const authority = await readAuthority(secrets, cluster.name)
  return authority && bundle([authority.certificate])
}

/** How to connect to the servers of a cluster as its record says it is, with what a change under way makes of it. */
export async function trustOf(secrets: SecretStore, cluster: Named): Promise<Trust> {
  const [ca, also] = await Promise.all([caOf(secrets, cluster), secrets.get(alsoTrusted(cluster.name))])
  const all = bundle([ca, also])
  return { tls: hasTls(cluster) ? 'verified' : 'as-asked', ...(all === '' ? {} : { ca: all }) }
}
