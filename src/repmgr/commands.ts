/** repmgr's commands, as they are run on a host. All as the postgres user: repmgr refuses to run as root. */
import type { Command } from '../host/command.js'
import type { Layout } from '../postgres/layout.js'

const base = (layout: Layout) => [layout.repmgr, '-f', layout.repmgrConf]

export function registerPrimary(layout: Layout): Command {
  return { argv: [...base(layout), 'primary', 'register'], as: 'postgres', timeoutMs: 60_000 }
}

/** The time limit is for the caller to set: a clone takes as long as the database is large. */
export function cloneStandby(layout: Layout, from: { host: string; port: number }, timeoutMs: number): Command {
  return {
    argv: [
      ...base(layout),
      '-h',
      from.host,
      '-p',
      String(from.port),
      '-U',
      'repmgr',
      '-d',
      'repmgr',
      'standby',
      'clone',
      '--fast-checkpoint',
    ],
    as: 'postgres',
    timeoutMs,
  }
}

export function registerStandby(layout: Layout, upstreamNodeId: number): Command {
  return {
    argv: [...base(layout), 'standby', 'register', `--upstream-node-id=${upstreamNodeId}`, '--wait-sync=30'],
    as: 'postgres',
    timeoutMs: 90_000,
  }
}
