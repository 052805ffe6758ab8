/** The first server: started, given repmgr's role and database, registered. */
import type { ClusterNode } from '../../src/cluster/model.js'
import { act, putFile, runCommand, runSql } from '../../src/host/actions.js'
import type { ChangeStep, Check, Step, StepContext } from '../../src/operations/step.js'
import { ServerUnreachable } from '../../src/postgres/connect.js'
import { scramVerifier } from '../../src/postgres/scram.js'
import { registerPrimary } from '../../src/repmgr/commands.js'
import type { Bench } from '../bench.js'
import { NotInTime, until } from '../until.js'
import { markerFile } from './data-directory.js'
import { askLocal, superuser } from './local-sql.js'
import { registrationOf } from './registration.js'

export function startPrimary(bench: Bench, node: ClusterNode): Step[] {
  return [...startAlone(bench, node), registerPrimaryNode(bench, node)]
}

/** The primary's server with repmgr's role and database in it, and not in repmgr's metadata yet. */
export function startAlone(bench: Bench, node: ClusterNode): Step[] {
  return [startServer(bench, node), makeRole(bench, node), makeDatabase(bench, node)]
}

/** A fresh server, or a primary after a crash of moderate size. */
const START_TIMEOUT_MS = 300_000
/** Time for the process to appear; from then on it is waited for as long as it lives. */
const LAUNCH_TIMEOUT_MS = 60_000
/** To look at the host costs more than to knock at the server. */
const LOOK_EVERY_MS = 1000

/**
 * Marked as in use before it can first accept a write: from then on nothing here ever wipes it, and Debian starts it at
 * boot. `limitMs` is long for a standby, which replays everything that was written during its clone before it answers.
 */
export function startServer(bench: Bench, node: ClusterNode, limitMs = START_TIMEOUT_MS): Step {
  const host = bench.host(node)
  const scope = bench.cluster.name
  const startConf = { path: bench.layout.startConf, content: 'auto\n', owner: 'postgres:postgres', mode: '0644' }
  return {
    id: `${node.name}/start`,
    kind: 'change',
    title: 'start the server',
    node: node.name,
    actions: [
      putFile(host, scope, markerFile(bench, node, 'in-use')),
      putFile(host, scope, startConf),
      runCommand(host, scope, {
        argv: ['systemctl', 'start', '--no-block', bench.layout.unit],
        as: 'root',
        timeoutMs: 60_000,
      }),
      act('wait until it accepts connections', context => waitUntilAccepting(bench, node, limitMs, context)),
    ],
    async check({ signal }): Promise<Check> {
      const { running, inRecovery, marker, startMode } = await bench.inspect(node, signal)
      if (!running) return { done: false, reason: 'it is not running' }
      if (inRecovery === undefined) return { done: false, reason: 'it runs, but does not accept connections yet' }
      if (startMode === 'held') return { done: false, reason: 'it runs, and no boot starts it since it was stopped' }
      return marker?.state === 'in-use'
        ? { done: true }
        : { done: false, reason: 'it runs, and is not marked as in use' }
    },
  }
}

export async function waitUntilAccepting(
  bench: Bench,
  node: ClusterNode,
  limitMs: number,
  context: StepContext,
): Promise<void> {
  let seenAtMs = performance.now()
  let lookedAtMs = 0
  await until(`PostgreSQL on ${node.name} accepts connections`, limitMs, context, async () => {
    const answer = await knock(bench, node, context.signal)
    if (answer === 'accepts') return true
    // It says so itself: its host need not be asked.
    if (answer === 'starting_up') seenAtMs = performance.now()
    if (answer === 'starting_up' || performance.now() - lookedAtMs < LOOK_EVERY_MS) return false
    const { running, inRecovery } = await bench.inspect(node, context.signal)
    lookedAtMs = performance.now()
    if (running) seenAtMs = lookedAtMs
    else if (lookedAtMs - seenAtMs > LAUNCH_TIMEOUT_MS)
      throw new NotInTime(`PostgreSQL on ${node.name} runs`, LAUNCH_TIMEOUT_MS)
    return inRecovery !== undefined
  })
}

/** Whom it does not let in it has accepted: the role may not be there yet. */
const ACCEPTING = ['authentication', 'too_many_connections', 'tls']

async function knock(
  bench: Bench,
  node: ClusterNode,
  signal: AbortSignal,
): Promise<'accepts' | 'starting_up' | 'silent'> {
  try {
    await bench.ask(node, { signal, timeoutMs: 1000 }, query => query('SELECT 1'))
    return 'accepts'
  } catch (error) {
    signal.throwIfAborted()
    if (!(error instanceof ServerUnreachable)) return 'silent'
    if (error.reason === 'starting_up') return 'starting_up'
    return ACCEPTING.includes(error.reason) ? 'accepts' : 'silent'
  }
}

/** repmgr's tools expect a superuser. Only a verifier leaves this process; the password itself is in .pgpass alone. */
export function makeRole(bench: Bench, node: ClusterNode): Step {
  return {
    id: `${node.name}/repmgr-role`,
    kind: 'change',
    title: 'make the role repmgr, with a generated password',
    node: node.name,
    actions: [
      runSql(bench.host(node), bench.cluster.name, {
        ...superuser(bench),
        shown: "CREATE ROLE repmgr; ALTER ROLE repmgr LOGIN SUPERUSER PASSWORD '<SCRAM verifier>'",
        statement: () =>
          `DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'repmgr') THEN CREATE ROLE repmgr; END IF; END $$;\n` +
          `ALTER ROLE repmgr LOGIN SUPERUSER PASSWORD '${scramVerifier(bench.password)}';\n`,
      }),
    ],
    async check({ signal }): Promise<Check> {
      const answer = await askLocal(
        bench,
        node,
        signal,
        "SELECT rolcanlogin AND rolsuper FROM pg_roles WHERE rolname = 'repmgr'",
      )
      if (answer !== 't')
        return { done: false, reason: answer === '' ? 'there is no such role' : 'it is no superuser that may log in' }
      // Its own database may not be there yet: what is asked is whether the password is right.
      try {
        await bench.ask(node, { signal }, async query => query('SELECT 1'))
      } catch (error) {
        if (error instanceof ServerUnreachable && error.reason === 'authentication')
          return { done: false, reason: 'its password is another one' }
        if (!(error instanceof ServerUnreachable && /database "repmgr" does not exist/.test(error.message))) throw error
      }
      return { done: true }
    },
  }
}

function makeDatabase(bench: Bench, node: ClusterNode): Step {
  return {
    id: `${node.name}/repmgr-database`,
    kind: 'change',
    title: 'make the database repmgr',
    node: node.name,
    actions: [
      runSql(bench.host(node), bench.cluster.name, {
        ...superuser(bench),
        shown: 'CREATE DATABASE repmgr OWNER repmgr',
        statement: () => 'CREATE DATABASE repmgr OWNER repmgr;\n',
      }),
    ],
    async check({ signal }): Promise<Check> {
      const answer = await askLocal(bench, node, signal, "SELECT 1 FROM pg_database WHERE datname = 'repmgr'")
      return answer === '1' ? { done: true } : { done: false, reason: 'there is no such database' }
    },
  }
}

export function registerPrimaryNode(bench: Bench, node: ClusterNode): ChangeStep {
  return {
    id: `${node.name}/register`,
    kind: 'change',
    title: 'register the primary with repmgr',
    node: node.name,
    actions: [runCommand(bench.host(node), bench.cluster.name, registerPrimary(bench.layout))],
    check: ({ signal }) =>
      registrationOf(bench, node, node, signal, row => (row.type === 'primary' ? undefined : `as a ${row.type}`)),
  }
}
