/** Actions of a plan that happen on a host. What they show and what they run is made from the same object. */
import type { Action, StepContext } from '../operations/step.js'
import type { Command } from './command.js'
import { render } from './command.js'
import { type RemoteFile, writeFile } from './files.js'
import { guarded } from './guard.js'
import type { Host } from './host.js'

/** How long a command waits for the cluster's lock on its host: for the last command of a worker that has died. */
const LOCK_WAIT_MS = 120_000

/**
 * The host with every command behind the cluster's lock and epoch: what changes something goes through this, so that a
 * worker that was replaced, and does not know it yet, is refused by the host itself.
 */
export function changing(host: Host, scope: string, epoch: number): Host {
  return {
    ...host,
    run: (command, options) => host.run(guarded(command, { scope, epoch, waitMs: LOCK_WAIT_MS }), options),
  }
}

/** A command whose output goes into the operation's log. */
export function runCommand(host: Host, scope: string, command: Command): Action {
  return {
    description: { kind: 'command', text: render(command) },
    async perform({ epoch, signal, log }) {
      await changing(host, scope, epoch).run(command, { signal, onLine: log })
    },
  }
}

export function putFile(host: Host, scope: string, file: RemoteFile): Action {
  const content = file.secret ? '[secret, over standard input]' : file.content
  return {
    description: { kind: 'file', path: file.path, owner: file.owner, mode: file.mode, content },
    async perform({ epoch, signal }) {
      await writeFile(changing(host, scope, epoch), file, { signal })
    },
  }
}

/** Statements for the local superuser, by psql over SSH: they go over standard input, with what is secret in them. */
export function runSql(
  host: Host,
  scope: string,
  sql: { psql: string; port: number; database: string; shown: string; statement: () => string },
): Action {
  return {
    description: { kind: 'sql', text: sql.shown },
    async perform({ epoch, signal, log }) {
      const command: Command = {
        argv: [
          sql.psql,
          '-X',
          '-w',
          '-q',
          '-v',
          'ON_ERROR_STOP=1',
          '-p',
          String(sql.port),
          '-d',
          sql.database,
          '-f',
          '-',
        ],
        as: 'postgres',
        stdin: sql.statement(),
        timeoutMs: 60_000,
      }
      await changing(host, scope, epoch).run(command, { signal, onLine: log })
    },
  }
}

/** Anything else: says in words what it does or waits for. */
export function act(text: string, perform: (context: StepContext) => Promise<void>): Action {
  return { description: { kind: 'wait', text }, perform }
}
