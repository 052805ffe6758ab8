/** repmgr.conf for repmgr 5.x. */
import type { Layout } from '../postgres/layout.js'
import { settingString } from '../postgres/settings.js'

export interface RepmgrNode {
  nodeId: number
  name: string
  host: string
  port: number
  /** Path, on every node, of the CA by which it is verified; undefined without TLS. */
  rootCertificate?: string
  /** 0: never promoted. */
  priority: number
  location: string
}

/**
 * The connection string in repmgr's metadata, and for streams and clones. No password: it comes from the pass file. A peer
 * that vanishes without a word is noticed after 25 seconds instead of the kernel's two hours.
 */
export function nodeConninfo(
  { host, port, rootCertificate }: Pick<RepmgrNode, 'host' | 'port' | 'rootCertificate'>,
  connectTimeoutSeconds = 2,
): string {
  const tls = rootCertificate === undefined ? '' : ` ${verified(rootCertificate)}`
  return `host=${host} port=${port} user=repmgr dbname=repmgr connect_timeout=${connectTimeoutSeconds} keepalives_idle=10 keepalives_interval=5 keepalives_count=3${tls}`
}

/** The part of a connection string that says: by TLS, and only to the server that was meant. */
export const verified = (rootCertificate: string) => `sslmode=verify-full sslrootcert=${rootCertificate}`

/**
 * Complete, with absolute paths: repmgr stores the path of this file and uses it from other hosts. Failover is `manual`
 * because it is not repmgrd that decides here. Whom a standby streams from is not in it: repmgr 5 takes that on its
 * command line and keeps it in its metadata; how far it is behind on purpose is a setting of the server.
 *
 * @see https://www.repmgr.org/docs/current/configuration-file-settings.html
 */
export function repmgrConf(node: RepmgrNode, cluster: string, layout: Layout): string {
  const repmgr = `${layout.repmgr} -f ${layout.repmgrConf}`
  const service = (verb: string) => `sudo -n /usr/bin/systemctl ${verb} ${layout.unit}`
  const settings: [string, string | number][] = [
    ['node_id', node.nodeId],
    ['node_name', node.name],
    ['conninfo', nodeConninfo(node)],
    ['data_directory', layout.dataDirectory],
    ['config_directory', layout.configDirectory],
    ['pg_bindir', layout.binDirectory],
    ['repmgr_bindir', layout.binDirectory],
    ['replication_user', 'repmgr'],
    ['passfile', layout.passFile],
    ['use_replication_slots', 'yes'],
    ['location', node.location],
    ['priority', node.priority],
    ['failover', 'manual'],
    ['promote_command', `${repmgr} standby promote`],
    ['follow_command', `${repmgr} standby follow --upstream-node-id=%n`],
    ['log_level', 'INFO'],
    ['service_start_command', service('start')],
    ['service_stop_command', service('stop')],
    ['service_restart_command', service('restart')],
    ['service_reload_command', service('reload')],
  ]
  return [
    `# Managed by Understudy: cluster ${cluster}, node ${node.name}. What is changed here is overwritten.`,
    ...settings.map(([name, value]) => `${name}=${typeof value === 'number' ? value : settingString(value)}`),
    '',
  ].join('\n')
}
