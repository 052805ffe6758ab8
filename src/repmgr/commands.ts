/** repmgr's commands, as they are run on a host. All as the postgres user: repmgr refuses to run as root. */
import type { Command } from '../host/command.js'
import type { Layout } from '../postgres/layout.js'
import { nodeConninfo } from './conf.js'

const base = (layout: Layout) => [layout.repmgr, '-f', layout.repmgrConf]

/** `--force` makes them repeatable: the caller has seen that the row, where there is one, is this node's own. */
export function registerPrimary(layout: Layout): Command {
  return { argv: [...base(layout), 'primary', 'register', '--force'], as: 'postgres', timeoutMs: 60_000 }
}

/**
 * The time limit is for the caller to set: a clone takes as long as the database is large. `applicationName` is what the
 * primary knows the copy by while it is made.
 */
export function cloneStandby(
  layout: Layout,
  from: { host: string; port: number },
  applicationName: string,
  timeoutMs: number,
): Command {
  // More patient than the metadata's: a primary under load may take its time for a copy that takes hours.
  const conninfo = `${nodeConninfo(from, 10)} application_name=${applicationName}`
  return {
    argv: [...base(layout), '-d', conninfo, 'standby', 'clone', '--fast-checkpoint'],
    as: 'postgres',
    timeoutMs,
  }
}

export function registerStandby(layout: Layout, upstreamNodeId: number): Command {
  return {
    argv: [...base(layout), 'standby', 'register', `--upstream-node-id=${upstreamNodeId}`, '--wait-sync=30', '--force'],
    as: 'postgres',
    timeoutMs: 90_000,
  }
}
