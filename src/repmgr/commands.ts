/** repmgr's commands, as they are run on a host. All as the postgres user: repmgr refuses to run as root. */
import type { Command } from '../host/command.js'
import type { Layout } from '../postgres/layout.js'
import { nodeConninfo, type RepmgrNode } from './conf.js'

const base = (layout: Layout) => [layout.repmgr, '-f', layout.repmgrConf]

/** `--force` makes them repeatable: the caller has seen that the row, where there is one, is this node's own. */
export function registerPrimary(layout: Layout): Command {
  return { argv: [...base(layout), 'primary', 'register', '--force'], as: 'postgres', timeoutMs: 60_000 }
}

/**
 * A clone of the node that it will stream from, which makes its slot there. The time limit is for the caller to set: a
 * clone takes as long as the database is large. `applicationName` is what that node knows the copy by while it is made.
 */
export function cloneStandby(
  layout: Layout,
  from: Pick<RepmgrNode, 'nodeId' | 'host' | 'port' | 'rootCertificate'>,
  applicationName: string,
  timeoutMs: number,
): Command {
  // More patient than the metadata's: a primary under load may take its time for a copy that takes hours.
  const conninfo = `${nodeConninfo(from, 10)} application_name=${applicationName}`
  return {
    argv: [
      ...base(layout),
      '-d',
      conninfo,
      'standby',
      'clone',
      `--upstream-node-id=${from.nodeId}`,
      '--fast-checkpoint',
    ],
    as: 'postgres',
    timeoutMs,
  }
}

/** `delayed`: what is written on the primary is not to be waited for on this standby. */
export function registerStandby(layout: Layout, upstreamNodeId: number, delayed: boolean): Command {
  const wait = delayed ? [] : ['--wait-sync=30']
  return {
    argv: [...base(layout), 'standby', 'register', `--upstream-node-id=${upstreamNodeId}`, ...wait, '--force'],
    as: 'postgres',
    timeoutMs: 90_000,
  }
}

/** On the witness: enters it on the primary, and copies all of repmgr's metadata from there. */
export function registerWitness(
  layout: Layout,
  primary: Pick<RepmgrNode, 'host' | 'port' | 'rootCertificate'>,
): Command {
  return {
    argv: [...base(layout), '-d', nodeConninfo(primary), 'witness', 'register', '--force'],
    as: 'postgres',
    timeoutMs: 60_000,
  }
}

/** Run on the primary. Each kind of node has a command of its own; all only remove the row and the node may be down. */
export function unregisterNode(layout: Layout, kind: string, nodeId: number): Command {
  return {
    argv: [
      ...base(layout),
      kind === 'primary' || kind === 'witness' ? kind : 'standby',
      'unregister',
      `--node-id=${nodeId}`,
    ],
    as: 'postgres',
    timeoutMs: 60_000,
  }
}
