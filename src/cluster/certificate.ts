/** What is wrong with a server's certificate. Pure: the clock is an argument. */
import { createPublicKey, X509Certificate } from 'node:crypto'
import { isIP } from 'node:net'

/** From here on a certificate of our own is renewed, and of any other it is said that it ends. */
export const RENEWAL_DAYS = 30

const DAY_MS = 24 * 3_600_000
const BLOCK = /-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g

/** Each certificate of a PEM text, the server's own first. Undefined where there is none, or one that cannot be read. */
export function certificatesIn(pem: string): X509Certificate[] | undefined {
  const blocks = pem.match(BLOCK) ?? []
  try {
    return blocks.length === 0 ? undefined : blocks.map(block => new X509Certificate(block))
  } catch {
    return undefined
  }
}

/** Text in one form, so that line ends and words between the certificates make no difference. */
export const normalPem = (pem: string): string => (certificatesIn(pem) ?? []).map(one => one.toString()).join('')

/** Several texts of certificates as one, each certificate once. */
export function bundle(texts: readonly (string | undefined)[]): string {
  const all = texts.flatMap(text => (text === undefined ? [] : (certificatesIn(text) ?? [])))
  return [...new Map(all.map(one => [one.fingerprint256, one.toString()])).values()].join('')
}

export const validTo = (certificate: X509Certificate): Date => new Date(certificate.validTo)

/** Whole days until a certificate ends; negative once it has. */
export const daysLeft = (certificate: X509Certificate, now: Date): number =>
  Math.floor((validTo(certificate).getTime() - now.getTime()) / DAY_MS)

/** Whether a client that connects to this name, or address, and verifies it, finds it in the certificate. */
export const isFor = (certificate: X509Certificate, name: string): boolean =>
  isIP(name) === 0
    ? certificate.checkHost(name, { subject: 'never' }) !== undefined
    : certificate.checkIP(name) !== undefined

export interface Expected {
  /** PEM of the public key that the server has the private half of. */
  publicKey?: string
  names: readonly string[]
  now: Date
}

export type Objection = { kind: 'unreadable' | 'key' | 'future' | 'expired' | 'name'; detail: string }

/** What keeps a certificate from being used, whoever made it: the first of what is wrong. */
export function objectionTo(pem: string, { publicKey, names, now }: Expected): Objection | undefined {
  const [certificate] = certificatesIn(pem) ?? []
  if (!certificate) return { kind: 'unreadable', detail: 'it holds no certificate in PEM' }
  if (publicKey !== undefined && !certificate.publicKey.equals(createPublicKey(publicKey)))
    return { kind: 'key', detail: 'the certificate is for another key' }
  const from = new Date(certificate.validFrom)
  if (from > now) return { kind: 'future', detail: `the certificate is not valid before ${from.toISOString()}` }
  const end = validTo(certificate)
  if (end <= now) return { kind: 'expired', detail: `the certificate has expired, at ${end.toISOString()}` }
  const missing = names.filter(name => !isFor(certificate, name))
  if (missing.length > 0) {
    const named = certificate.subjectAltName ?? 'no name at all'
    return { kind: 'name', detail: `the certificate is not for ${missing.join(', ')} but for ${named}` }
  }
  return undefined
}

/** Why a certificate that an authority of ours has signed is to be made anew; undefined where it is as it should be. */
export function renewalReason(pem: string, authority: string, expected: Expected): string | undefined {
  const objection = objectionTo(pem, expected)
  if (objection) return objection.detail
  const [certificate] = certificatesIn(pem) ?? []
  const [issuer] = certificatesIn(authority) ?? []
  if (!certificate || !issuer) throw new TypeError('an authority without a certificate')
  if (!certificate.checkIssued(issuer) || !certificate.verify(issuer.publicKey))
    return 'another authority has signed the certificate'
  const days = daysLeft(certificate, expected.now)
  return days < RENEWAL_DAYS ? `the certificate ends at ${validTo(certificate).toISOString()}` : undefined
}
