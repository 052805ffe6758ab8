/** TLS as PostgreSQL has it: its files on a host, its settings. */
import type { TlsPolicy } from '../cluster/tls.js'
import type { Layout } from './layout.js'
import type { Setting } from './settings.js'

export interface TlsFiles {
  directory: string
  key: string
  certificate: string
  /** By which the node verifies the others. */
  ca: string
}

/** Ours: beside the server’s configuration, and gone with it. The same on each node, because repmgr’s metadata name it. */
export function tlsFiles({ configDirectory }: Pick<Layout, 'configDirectory'>): TlsFiles {
  const directory = `${configDirectory}/understudy-tls`
  return {
    directory,
    key: `${directory}/server.key`,
    certificate: `${directory}/server.crt`,
    ca: `${directory}/ca.pem`,
  }
}

/** What the server presents: its own, or what somebody else has put on the host. Undefined where that is not our business. */
export function servedFiles(
  { mode, certificateFile, keyFile }: TlsPolicy,
  layout: Pick<Layout, 'configDirectory'>,
): { certificate: string; key: string } | undefined {
  if (mode === 'own-ca') return tlsFiles(layout)
  if (mode === 'off' || certificateFile === undefined || keyFile === undefined) return undefined
  return { certificate: certificateFile, key: keyFile }
}

/** All take effect at a reload, for new connections. */
export function tlsSettings(tls: TlsPolicy, layout: Pick<Layout, 'configDirectory'>): Setting[] {
  const files = servedFiles(tls, layout)
  if (!files) return []
  return [
    { name: 'ssl', value: true },
    { name: 'ssl_cert_file', value: files.certificate },
    { name: 'ssl_key_file', value: files.key },
  ]
}
