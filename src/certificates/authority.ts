/** A small certificate authority for the servers of one cluster. It knows keys and names, and nothing of PostgreSQL. */
import 'reflect-metadata'
import { createPrivateKey, createPublicKey, randomBytes, webcrypto } from 'node:crypto'
import { isIP } from 'node:net'
import * as x509 from '@peculiar/x509'

x509.cryptoProvider.set(webcrypto)

/** Kept as one, so that a key is never found beside the certificate of another. Both PEM. */
export interface Authority {
  /** PKCS#8. Secret. */
  key: string
  certificate: string
}

const CURVE = { name: 'ECDSA', namedCurve: 'P-256' } as const
const SIGNATURE = { ...CURVE, hash: 'SHA-256' } as const

const DAY_MS = 24 * 3_600_000
/** As long as a cluster may live: whoever trusts it has to be told of another one. */
const AUTHORITY_DAYS = 20 * 365
/** Renewed by any operation that finds less than `RENEWAL_DAYS` left of it. */
const CERTIFICATE_DAYS = 730
/** A clock that is a little behind must not take a fresh certificate for one of the future. */
const LEEWAY_MS = 3_600_000

/** 127 random bits, and positive, as RFC 5280 asks for. */
function serialNumber(): string {
  const bytes = randomBytes(16)
  bytes[0] = ((bytes[0] ?? 0) & 0x7f) | 0x40
  return bytes.toString('hex')
}

/** `cluster` is only for people who read the certificate; the key alone makes it this one. */
export async function makeAuthority(cluster: string, now: Date): Promise<Authority> {
  const keys = await webcrypto.subtle.generateKey(CURVE, true, ['sign', 'verify'])
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: serialNumber(),
    subject: [{ CN: [`Understudy CA of ${cluster}`] }],
    issuer: [{ CN: [`Understudy CA of ${cluster}`] }],
    notBefore: new Date(now.getTime() - LEEWAY_MS),
    notAfter: new Date(now.getTime() + AUTHORITY_DAYS * DAY_MS),
    publicKey: keys.publicKey,
    signingKey: keys.privateKey,
    signingAlgorithm: SIGNATURE,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
      await x509.AuthorityKeyIdentifierExtension.create(keys.publicKey),
    ],
  })
  const pkcs8 = await webcrypto.subtle.exportKey('pkcs8', keys.privateKey)
  return { key: x509.PemConverter.encode(pkcs8, 'PRIVATE KEY'), certificate: pem(certificate) }
}

/**
 * Signs the key of a request for these names; what else the request asks for counts for nothing. The first name is the
 * common name too. Returns PEM. Throws where the request is not signed by its own key.
 */
export async function signRequest(
  authority: Authority,
  request: string,
  names: readonly [string, ...string[]],
  now: Date,
): Promise<string> {
  const asked = new x509.Pkcs10CertificateRequest(request)
  if (!(await asked.verify())) throw new TypeError('the request is not signed by the key that is in it')
  const issuer = new x509.X509Certificate(authority.certificate)
  const key = createPrivateKey(authority.key).export({ type: 'pkcs8', format: 'der' })
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: serialNumber(),
    subject: [{ CN: [names[0].slice(0, 64)] }],
    issuer: issuer.subjectName,
    notBefore: new Date(now.getTime() - LEEWAY_MS),
    notAfter: new Date(Math.min(now.getTime() + CERTIFICATE_DAYS * DAY_MS, issuer.notAfter.getTime())),
    publicKey: asked.publicKey,
    signingKey: await webcrypto.subtle.importKey('pkcs8', key, CURVE, false, ['sign']),
    signingAlgorithm: SIGNATURE,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
      new x509.SubjectAlternativeNameExtension(alternativeNames(names)),
      await x509.SubjectKeyIdentifierExtension.create(asked.publicKey),
      await x509.AuthorityKeyIdentifierExtension.create(issuer.publicKey),
    ],
  })
  return pem(certificate)
}

/**
 * An address is there as a DNS name too: libpq before version 15 compares a host with nothing else.
 *
 * @see https://www.postgresql.org/docs/15/release-15.html "Allow libpq's SSL host name check to match IP addresses"
 */
const alternativeNames = (names: readonly string[]) =>
  [...new Set(names)].flatMap((name): x509.JsonGeneralName[] =>
    isIP(name) === 0
      ? [{ type: 'dns', value: name.toLowerCase() }]
      : [
          { type: 'ip', value: name },
          { type: 'dns', value: name },
        ],
  )

const pem = (certificate: x509.X509Certificate) => `${certificate.toString('pem')}\n`

/** The public half of a private key in PEM, as `openssl pkey -pubout` writes it. */
export const publicHalf = (key: string): string =>
  createPublicKey(createPrivateKey(key)).export({ type: 'spki', format: 'pem' }).toString()
